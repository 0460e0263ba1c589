/**
 * A real Prometheus that finds the cluster's pods through the API server, as a Prometheus operator would make it from the chart's PodMonitor and
 * ServiceMonitors, and reads the chart's own rules.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { freePort } from '../support/free-port.ts';
import type { Cluster } from './cluster.ts';
import { within } from './control-plane.ts';
import { httpGet } from './installation.ts';

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

/** Pods with a port of this name; labels as the operator gives them. */
const job = (cluster: Cluster, name: string, port: string, pods: string, honorLabels = false): object => {
  const { api, directory } = cluster;
  const place = {
    tls_config: { ca_file: join(directory, 'prometheus/ca.pem') },
    authorization: { credentials_file: join(directory, 'prometheus/token') },
  };
  return {
    job_name: name,
    honor_labels: honorLabels,
    kubernetes_sd_configs: [{ role: 'pod', api_server: api.url, ...place, selectors: [{ role: 'pod', label: pods }] }],
    relabel_configs: [
      { source_labels: ['__meta_kubernetes_pod_container_port_name'], regex: port, action: 'keep' },
      { source_labels: ['__meta_kubernetes_namespace'], target_label: 'namespace' },
      { source_labels: ['__meta_kubernetes_pod_name'], target_label: 'pod' },
      { source_labels: ['__meta_kubernetes_pod_container_name'], target_label: 'container' },
    ],
  };
};

const rights = {
  clusterRole: { metadata: { name: 'prometheus' }, rules: [{ apiGroups: [''], resources: ['pods'], verbs: ['get', 'list', 'watch'] }] },
  binding: {
    metadata: { name: 'prometheus' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'prometheus' },
    subjects: [{ kind: 'ServiceAccount', name: 'default', namespace: 'monitoring' }],
  },
};

/** Its namespace `monitoring` is there already. */
export const startPrometheus = async (t: Test, cluster: Cluster): Promise<Prometheus> => {
  const { api, directory } = cluster;
  const home = join(directory, 'prometheus');
  mkdirSync(home);
  await api.create('/apis/rbac.authorization.k8s.io/v1/clusterroles', rights.clusterRole);
  await api.create('/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', rights.binding);
  const token = await api.create('/api/v1/namespaces/monitoring/serviceaccounts/default/token', { spec: { expirationSeconds: 3600 } });
  writeFileSync(join(home, 'token'), token['status'].token as string, { mode: 0o600 });
  writeFileSync(join(home, 'ca.pem'), api.caPem);
  const role = (name: string): string => `app.kubernetes.io/name=outrider,app.kubernetes.io/component=${name}`;
  writeFileSync(
    join(home, 'prometheus.yml'),
    JSON.stringify({
      global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
      rule_files: ['recording-rules.yaml', 'alerts.yaml'].map((name) => join(cluster.chart, 'files', name)),
      scrape_configs: [
        ...['broker', 'collector', 'injector'].map((name) => job(cluster, name, 'metrics', role(name), name === 'injector')),
        job(cluster, 'proxies', 'outrider-metrics', 'outrider.dev/injected=true'),
      ],
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
  t.teardown(async () => {
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
