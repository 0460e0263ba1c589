/**
 * A real Prometheus that scrapes the cluster's pods, found by the labels and port names of the chart's PodMonitor and ServiceMonitors, and reads
 * the chart's own rules.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { freePort } from '../support/free-port.ts';
import { writeWhole } from '../support/stack.ts';
import type { Kube } from './api.ts';
import type { Cluster } from './cluster.ts';
import { within } from './control-plane.ts';
import { addressOf, httpGet } from './installation.ts';

export interface Sample {
  readonly metric: Readonly<Record<string, string>>;
  readonly value: readonly [number, string];
}

export interface Rule {
  readonly name: string;
  readonly type: 'alerting' | 'recording';
  readonly health: string;
  readonly lastError?: string;
}

export interface Alert {
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly state: 'pending' | 'firing';
}

export interface Prometheus {
  readonly query: (expression: string) => Promise<readonly Sample[]>;
  readonly rules: () => Promise<readonly Rule[]>;
  readonly alerts: (name: string) => Promise<readonly Alert[]>;
}

/** As podsArePossible. */
export const prometheusIsHere = (t: Test): boolean => {
  if (spawnSync('prometheus', ['--version']).status === 0) return true;
  t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], 'prometheus is not installed, where it is required');
  t.comment('prometheus is not installed: left out');
  return false;
};

interface Container {
  readonly name: string;
  readonly ports?: readonly { readonly name?: string; readonly containerPort: number }[];
}

/** What the operator's discovery yields for a port's name: Debian's Prometheus has no discovery of Kubernetes built in. */
const targetsOf = (pods: readonly Kube[], port: string): object[] =>
  pods
    .filter((pod) => pod['status']?.phase === 'Running')
    .flatMap((pod) =>
      ([...(pod['spec'].initContainers ?? []), ...pod['spec'].containers] as Container[]).flatMap(({ name: container, ports = [] }) =>
        ports
          .filter(({ name }) => name === port)
          .map(({ containerPort }) => ({
            targets: [`${addressOf(pod)}:${containerPort}`],
            labels: { namespace: pod.metadata.namespace, pod: pod.metadata.name, container },
          })),
      ),
    );

/** Job → label selector of its pods, and the name of their port: those of the chart's monitors. */
const jobs: Readonly<Record<string, { readonly pods: string; readonly port: string }>> = {
  ...Object.fromEntries(
    ['broker', 'collector', 'injector'].map((role) => [
      role,
      { pods: `app.kubernetes.io/name=outrider,app.kubernetes.io/component=${role}`, port: 'metrics' },
    ]),
  ),
  proxies: { pods: 'outrider.dev/injected=true', port: 'outrider-admin' },
};

export const startPrometheus = async (t: Test, cluster: Cluster): Promise<Prometheus> => {
  const home = join(cluster.directory, 'prometheus');
  mkdirSync(home);
  const discover = async (): Promise<void> => {
    for (const [job, { pods, port }] of Object.entries(jobs)) {
      const found = await cluster.api.list(`/api/v1/pods?labelSelector=${encodeURIComponent(pods)}`);
      writeWhole(join(home, `${job}.json`), JSON.stringify(targetsOf(found, port)));
    }
  };
  await discover();
  writeFileSync(
    join(home, 'prometheus.yml'),
    JSON.stringify({
      global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
      rule_files: ['recording-rules.yaml', 'alerts.yaml'].map((name) => join(cluster.chart, 'files', name)),
      scrape_configs: Object.keys(jobs).map((job) => ({
        job_name: job,
        // The injector's own `namespace` says which it counts in.
        honor_labels: job === 'injector',
        file_sd_configs: [{ files: [join(home, `${job}.json`)] }],
      })),
    }),
  );
  const port = await freePort();
  const log = openSync(join(home, 'log'), 'a');
  const child = spawn(
    'prometheus',
    [
      `--config.file=${home}/prometheus.yml`,
      `--storage.tsdb.path=${home}/data`,
      `--web.listen-address=127.0.0.1:${port}`,
      '--log.level=warn',
    ],
    { stdio: ['ignore', log, log] },
  );
  closeSync(log);
  const exited = once(child, 'exit');
  const following = setInterval(() => void discover().catch(() => undefined), 1_000);
  t.teardown(async () => {
    clearInterval(following);
    child.kill('SIGKILL');
    await exited;
  });
  const ask = async (path: string): Promise<unknown> =>
    (JSON.parse(await httpGet('127.0.0.1', port, `/api/v1/${path}`)) as { data: unknown }).data;
  await within('Prometheus to be ready', 30_000, async () => {
    if (child.exitCode !== null) throw new Error(readFileSync(join(home, 'log'), 'utf8'));
    return (await httpGet('127.0.0.1', port, '/-/ready')) !== '';
  });
  return {
    query: async (expression) => ((await ask(`query?query=${encodeURIComponent(expression)}`)) as { result: Sample[] }).result,
    rules: async () => ((await ask('rules')) as { groups: { rules: Rule[] }[] }).groups.flatMap(({ rules }) => rules),
    alerts: async (name) => ((await ask('alerts')) as { alerts: Alert[] }).alerts.filter(({ labels }) => labels['alertname'] === name),
  };
};
