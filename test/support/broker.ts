/** A whole broker on free ports, with a cluster issuer whose tokens it accepts, and a workload that calls it as a proxy does. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { request } from 'node:https';
import { join } from 'node:path';
import type { Test } from 'tap';
import { type RunningBroker, startBroker } from '../../src/broker/run.ts';
import { Secret } from '../../src/core/secret.ts';
import { type Clock, systemClock } from '../../src/ops/clock.ts';
import { createLog, type Log } from '../../src/ops/log.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { attest, type BrokerChannel, openBroker } from '../../src/rpc/client.ts';
import type { Svid } from '../../src/rpc/svid.ts';
import type { BrokerSettings } from '../../src/settings/broker.ts';
import { parseSettings } from '../../src/settings/document.ts';
import { type ClusterIssuer, startClusterIssuer } from '../fakes/cluster-issuer.ts';
import { directoryOf } from './directory.ts';

/** A port that was free a moment ago, for what must be named before it listens. */
export const freePort = async (): Promise<number> => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
};

/** Log lines, and a promise of the next one that matches. */
export interface LogLines {
  readonly log: Log;
  readonly lines: readonly string[];
  readonly next: (pattern: RegExp) => Promise<string>;
}

export const createLogLines = (): LogLines => {
  const lines: string[] = [];
  const waiting = new Set<{ pattern: RegExp; resolve: (line: string) => void }>();
  const write = (line: string): void => {
    lines.push(line);
    for (const waiter of waiting) {
      if (!waiter.pattern.test(line)) continue;
      waiting.delete(waiter);
      waiter.resolve(line);
    }
  };
  const next = (pattern: RegExp): Promise<string> => new Promise((resolve) => waiting.add({ pattern, resolve }));
  return { log: createLog({ role: 'broker', level: 'debug', write }), lines, next };
};

export const demoPolicies = `
policies:
  - name: demo
    rules:
      - { name: use-echo, effect: allow, workloads: [demo-app], targets: [echo] }
      - { name: no-admin, effect: deny, targets: [echo], paths: ["/admin/**"] }
      - { name: never, effect: deny, targets: [forbidden] }
`;

export interface BrokerFiles {
  readonly directory: string;
  readonly configuration: string;
  readonly bundle: string;
  /** The configuration's text, with `policies` and anything else in the place of the demo's. */
  readonly text: (policies?: string, more?: string) => string;
  readonly settings: (policies?: string, more?: string) => BrokerSettings;
}

const target = (name: string, provider: string): string => `
  - name: ${name}
    hosts: [${name}.outrider.test]
    credentials: [{ provider: ${provider}, placement: { kind: bearer } }]`;

export const brokerFiles = async (t: Test, cluster: ClusterIssuer): Promise<BrokerFiles> => {
  const directory = directoryOf(t, { 'cluster-ca.pem': cluster.caPem, static: 'canary-static-value\n' });
  const issuerPort = await freePort();
  const text = (policies = demoPolicies, more = ''): string => `kind: broker
trustDomain: outrider.test
stateDir: ${directory}/state
bundleFile: ${directory}/bundle/ca.pem
listen: 127.0.0.1:0
admin: 127.0.0.1:0
issuer:
  url: https://127.0.0.1:${issuerPort}
  listen: 127.0.0.1:${issuerPort}
attestors:
  - { kind: projected_token, name: cluster, issuer: "${cluster.url}", audience: outrider, caFile: ${directory}/cluster-ca.pem }
workloads:
  - name: demo-app
    match: { kubernetes.namespace: demo, kubernetes.service_account: demo-app }
providers:
  - { kind: jwt, name: own, audience: "https://echo.outrider.test" }
  - { kind: static_file, name: old, file: ${directory}/static }
targets:${target('echo', 'own')}${target('forbidden', 'own')}${target('legacy', 'old')}${more}
${policies}`;
  const configuration = join(directory, 'broker.yaml');
  writeFileSync(configuration, text());
  mkdirSync(join(directory, 'bundle'));
  return {
    directory,
    configuration,
    bundle: join(directory, 'bundle', 'ca.pem'),
    text,
    settings: (policies, more) => parseSettings(text(policies, more), configuration) as BrokerSettings,
  };
};

export interface BrokerRig {
  readonly cluster: ClusterIssuer;
  readonly files: BrokerFiles;
  readonly logs: LogLines;
  readonly broker: RunningBroker;
  /** A broker on the same files, once this one is closed. */
  readonly restart: () => Promise<RunningBroker>;
}

export const startBrokerRig = async (
  t: Test,
  { clock = systemClock, isReloading = false }: { clock?: Clock; isReloading?: boolean } = {},
): Promise<BrokerRig> => {
  const cluster = await startClusterIssuer(t, { now: clock.now });
  const files = await brokerFiles(t, cluster);
  const logs = createLogLines();
  const start = async (): Promise<RunningBroker> => {
    const broker = await startBroker(files.settings(), {
      clock,
      log: logs.log,
      ...(isReloading ? { reloadFrom: files.configuration } : {}),
    });
    t.teardown(broker.close);
    return broker;
  };
  return { cluster, files, logs, broker: await start(), restart: start };
};

export const brokerId = 'spiffe://outrider.test/outrider/broker';

export const attestAt = (broker: RunningBroker, bundlePem: string, token: string): Promise<Svid> =>
  attest({
    broker: { address: `127.0.0.1:${broker.grpc.port}`, spiffeId: brokerId },
    brokerCaPem: bundlePem,
    evidence: { kind: 'projected_token', token: new Secret(token) },
    key: createKeyPair(),
    timeoutMs: 5_000,
    clock: systemClock,
  });

export const channelTo = (t: Test, broker: RunningBroker, svid: Svid): BrokerChannel => {
  const channel = openBroker({ broker: { address: `127.0.0.1:${broker.grpc.port}`, spiffeId: brokerId }, svid });
  t.teardown(() => channel.close());
  return channel;
};

/** GET over HTTPS, trusting `ca`. */
export const getJson = (url: string, ca: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const outgoing = request(url, { ca, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve(JSON.parse(body)));
    });
    outgoing.on('error', reject).end();
  });

export const metricsOf = async (broker: RunningBroker): Promise<string> =>
  (await fetch(`http://127.0.0.1:${broker.admin.port}/metrics`)).text();
