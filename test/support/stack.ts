/**
 * Every role as it runs in production, joined over real sockets in this process, with configuration as an operator writes it:
 * YAML text through the settings reader. A cluster issuer that signs whatever a test asks for, and an origin that records.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { join } from 'node:path';
import type { Test } from 'tap';
import { type RunningBroker, startBroker } from '../../src/broker/run.ts';
import { type RunningCollector, startCollector } from '../../src/collector/run.ts';
import { createLog, type Log } from '../../src/ops/log.ts';
import { type RunningProxy, startProxy } from '../../src/proxy/run.ts';
import type { BrokerSettings } from '../../src/settings/broker.ts';
import type { CollectorSettings } from '../../src/settings/collector.ts';
import { parseSettings } from '../../src/settings/document.ts';
import type { ProxySettings } from '../../src/settings/proxy.ts';
import { type ClusterIssuer, startClusterIssuer, type TokenParts } from '../fakes/cluster-issuer.ts';
import { type Recorder, startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority, type ServerFiles } from './certificates.ts';
import { directoryOf } from './directory.ts';

export const host = 'echo.outrider.test';
export const collectorId = 'spiffe://outrider.test/ns/outrider/sa/collector';
export const workloadId = 'spiffe://outrider.test/ns/demo/sa/demo-app';

export interface StackFiles {
  readonly dir: string;
  readonly token: string;
  readonly collectorToken: string;
  readonly issuerCa: string;
  readonly brokerCa: string;
  readonly originCa: string;
  readonly bundle: string;
  readonly events: string;
}

const filesIn = (dir: string): StackFiles => {
  mkdirSync(dir, { recursive: true });
  const at = (name: string): string => join(dir, name);
  return {
    dir,
    token: at('token'),
    collectorToken: at('collector-token'),
    issuerCa: at('issuer-ca.pem'),
    brokerCa: at('broker-ca.pem'),
    originCa: at('origin-ca.pem'),
    bundle: at('ca-bundle.pem'),
    events: at('events.jsonl'),
  };
};

/** As the kubelet does it: whole files, by rename. */
export const writeWhole = (file: string, text: string): void => {
  writeFileSync(`${file}.new`, text, { mode: 0o600 });
  renameSync(`${file}.new`, file);
};

export interface BrokerYaml {
  readonly port?: number;
  readonly issuerPort?: number;
  /** Items of `providers:`, `targets:` and `policies:`, as YAML. */
  readonly providers?: string;
  readonly targets?: string;
  readonly policies?: string;
  readonly workloads?: string;
  readonly svidLifetime?: string;
}

const defaults = {
  providers: '  - { kind: jwt, name: echo-token, audience: "https://echo.outrider.test", lifetime: 5m }',
  targets: `  - name: echo
    hosts: [${host}]
    ports: [443, 80]
    cleartext: allowed
    credentials: [{ provider: echo-token, placement: { kind: bearer } }]`,
  policies: `  - name: demo
    rules:
      - { name: use-echo, effect: allow, workloads: [demo-app], targets: [echo] }
      - { name: no-admin, effect: deny, targets: [echo], paths: ["/admin/**"] }`,
  workloads: `  - { name: demo-app, match: { kubernetes.namespace: demo, kubernetes.service_account: demo-app } }`,
};

export const brokerYaml = (files: StackFiles, issuerUrl: string, changes: BrokerYaml = {}): string => `kind: broker
trustDomain: outrider.test
stateDir: ${files.dir}/broker
bundleFile: ${files.brokerCa}
listen: 127.0.0.1:${changes.port ?? 0}
admin: 127.0.0.1:0
svidLifetime: ${changes.svidLifetime ?? '1h'}
issuer: { url: "https://127.0.0.1:${changes.issuerPort ?? 8444}", listen: "127.0.0.1:${changes.issuerPort ?? 0}" }
attestors:
  - { kind: projected_token, name: cluster, issuer: "${issuerUrl}", audience: outrider, caFile: ${files.issuerCa} }
workloads:
${changes.workloads ?? defaults.workloads}
  - { name: collector, match: { kubernetes.namespace: outrider, kubernetes.service_account: collector } }
providers:
${changes.providers ?? defaults.providers}
targets:
${changes.targets ?? defaults.targets}
policies:
${changes.policies ?? defaults.policies}
`;

const identityYaml = (files: StackFiles, brokerPort: number, token: string): string => `identity:
  broker: { address: "127.0.0.1:${brokerPort}", spiffeId: spiffe://outrider.test/outrider/broker }
  brokerCaFile: ${files.brokerCa}
  tokenFile: ${token}
`;

export const collectorYaml = (files: StackFiles, brokerPort: number, port = 0): string => `kind: collector
listen: 127.0.0.1:${port}
admin: 127.0.0.1:0
${identityYaml(files, brokerPort, files.collectorToken)}store: { file: ${files.events} }
`;

export interface ProxyYaml {
  readonly onUnmatched?: string;
  readonly audit?: string;
  readonly eventQueueMax?: number;
  /** Further names for the origin, whose certificate is for `host` alone. */
  readonly hosts?: readonly string[];
  /** `upstream.proxy`, as YAML: then nothing is pinned, and names are that proxy's to resolve. */
  readonly upstreamProxy?: string;
}

export const proxyYaml = (
  files: StackFiles,
  brokerPort: number,
  collectorPort: number,
  origin: Recorder,
  changes: ProxyYaml = {},
): string => `kind: proxy
listen: 127.0.0.1:0
admin: 127.0.0.1:0
${identityYaml(files, brokerPort, files.token)}collector: { address: "127.0.0.1:${collectorPort}", spiffeId: ${collectorId} }
interception: { bundleFile: ${files.bundle} }
onUnmatched: ${changes.onUnmatched ?? 'tunnel'}
audit: ${changes.audit ?? 'required'}
${changes.eventQueueMax === undefined ? '' : `eventQueueMax: ${changes.eventQueueMax}\n`}upstream:
  caFiles: [${files.originCa}]
${changes.upstreamProxy === undefined ? pins(origin, [host, ...(changes.hosts ?? [])]) : `  proxy: ${changes.upstreamProxy}\n`}`;

const pins = (origin: Recorder, hosts: readonly string[]): string => `  resolve:
${hosts
  .flatMap((name) => [
    `    - { host: ${name}, port: 443, address: "127.0.0.1:${origin.httpsPort}" }\n`,
    `    - { host: ${name}, port: 80, address: "127.0.0.1:${origin.httpPort}" }\n`,
  ])
  .join('')}`;

export interface Stack {
  readonly files: StackFiles;
  readonly issuer: ClusterIssuer;
  readonly origin: Recorder;
  /** For another origin that the proxy is to trust. */
  readonly serverFor: (host: string) => ServerFiles;
  readonly logs: string[];
  readonly log: (role: string) => Log;
  /** Writes the workload's token. */
  readonly projectToken: (parts?: TokenParts) => void;
  readonly startBroker: (changes?: BrokerYaml) => Promise<RunningBroker>;
  readonly startCollector: (brokerPort: number, port?: number) => Promise<RunningCollector>;
  readonly startProxy: (brokerPort: number, collectorPort: number, changes?: ProxyYaml) => Promise<RunningProxy>;
  readonly events: () => Record<string, unknown>[];
}

/** Issuer, origin and files; the roles are started by the test, in the order it is about. Each stack of a test needs a directory of its own. */
export const prepareStack = async (t: Test, answer?: RequestListener, dir: string = directoryOf(t)): Promise<Stack> => {
  const files = filesIn(dir);
  const issuer = await startClusterIssuer(t);
  const authority = createTestAuthority('Outrider test origin authority');
  const origin = await startRecorder(authority.serverFor(host), answer);
  t.teardown(() => origin.close());
  const collectorClaims = {
    sub: 'system:serviceaccount:outrider:collector',
    'kubernetes.io': { namespace: 'outrider', serviceaccount: { name: 'collector', uid: 'c1' }, pod: { name: 'collector-0', uid: 'c2' } },
  };
  writeWhole(files.issuerCa, issuer.caPem);
  writeWhole(files.originCa, authority.pem);
  writeWhole(files.token, issuer.token());
  writeWhole(files.collectorToken, issuer.token({ claims: collectorClaims }));
  const logs: string[] = [];
  const log = (role: string): Log => createLog({ role, level: 'debug', write: (line) => logs.push(line) });
  const closing = <T extends { close: () => Promise<void> }>(running: T): T => {
    t.teardown(() => running.close());
    return running;
  };
  return {
    files,
    issuer,
    origin,
    serverFor: authority.serverFor,
    logs,
    log,
    projectToken: (parts) => writeWhole(files.token, issuer.token(parts)),
    startBroker: async (changes) =>
      closing(
        await startBroker(parseSettings(brokerYaml(files, issuer.url, changes), 'broker.yaml') as BrokerSettings, { log: log('broker') }),
      ),
    startCollector: async (brokerPort, port) =>
      closing(
        await startCollector(parseSettings(collectorYaml(files, brokerPort, port), 'collector.yaml') as CollectorSettings, {
          log: log('collector'),
        }),
      ),
    startProxy: async (brokerPort, collectorPort, changes) =>
      closing(
        await startProxy(parseSettings(proxyYaml(files, brokerPort, collectorPort, origin, changes), 'proxy.yaml') as ProxySettings, {
          log: log('proxy'),
          drainNoticeMs: 0,
        }),
      ),
    events: () =>
      readFileSync(files.events, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>),
  };
};

export interface WholeStack extends Stack {
  readonly broker: RunningBroker;
  readonly collector: RunningCollector;
  readonly proxy: RunningProxy;
}

/** Everything, ready. */
export const startStack = async (
  t: Test,
  changes: BrokerYaml & ProxyYaml & { readonly answer?: RequestListener } = {},
): Promise<WholeStack> => {
  const stack = await prepareStack(t, changes.answer);
  const broker = await stack.startBroker(changes);
  const collector = await stack.startCollector(broker.grpc.port);
  const proxy = await stack.startProxy(broker.grpc.port, collector.grpc.port, changes);
  await Promise.all([collector.ready(), proxy.ready()]);
  return { ...stack, broker, collector, proxy };
};

/** Asks again until it holds; the test's own time limit is the bound. */
export const eventually = async <T>(what: () => T | Promise<T>): Promise<NonNullable<T>> => {
  for (;;) {
    const found = await what();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

/** One sample of a role's /metrics, summed over the series whose labels contain `labels`. */
export const metric = async (admin: { port: number }, name: string, labels = ''): Promise<number> => {
  const text = await (await fetch(`http://127.0.0.1:${admin.port}/metrics`)).text();
  return text
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
    .filter((line) => line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
};
