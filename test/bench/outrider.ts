/**
 * Outrider as it is shipped: the bundle with the image's flags, metrics on, evidence to a real collector, credentials and policy from a
 * real broker. The proxy is the product that is measured; broker and collector are others' cores where the machine has one.
 */
import { mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Test } from 'tap';
import { freePort } from '../support/free-port.ts';
import { fromBundle, imageEnvironment, type RoleProcess, startRole } from '../support/processes.ts';
import { brokerYaml, collectorYaml, host, prepareStack, proxyYaml, type StackFiles, writeWhole } from '../support/stack.ts';
import { accepting, cores, pinned, start, type Started } from './machine.ts';
import type { Origin } from './origin.ts';

export const otherHosts = { bodies: 'bodies.outrider.test', h2: 'h2.outrider.test', grpc: 'grpc.outrider.test' } as const;

/** Where names lead: the ports of origins on 127.0.0.1. */
export interface Pin {
  readonly host: string;
  readonly port: 80 | 443;
  readonly originPort: number;
}

export interface OutriderOptions {
  /** Its files go below this. */
  readonly dir: string;
  readonly bundle: string;
  /** PEM of what origins' certificates chain to. */
  readonly originCa: string;
  readonly pins: readonly Pin[];
  /** `targets:` as YAML; what the comparison uses unless given. */
  readonly targets?: string;
  /** `policies:` as YAML. */
  readonly policies?: string;
  readonly routes?: readonly string[];
}

export interface Outrider {
  readonly port: number;
  readonly routePorts: readonly number[];
  readonly files: StackFiles;
  readonly broker: RoleProcess;
  readonly collector: RoleProcess;
  readonly startProxy: () => Started;
}

const placement = 'credentials: [{ provider: echo-token, placement: { kind: bearer } }]';

const targetsYaml = `  - { name: echo, hosts: [${host}], ports: [443, 80], cleartext: allowed, ${placement} }
  - { name: bodies, hosts: [${otherHosts.bodies}], ports: [80], cleartext: allowed, ${placement} }
  - { name: h2, hosts: [${otherHosts.h2}], protocol: h2, ${placement} }
  - { name: grpc, hosts: [${otherHosts.grpc}], protocol: h2, ${placement} }`;

const policiesYaml = `  - name: bench
    rules:
      - { name: use, effect: allow, workloads: [demo-app] }
      - { name: no-admin, effect: deny, targets: [echo], paths: ["/admin/**"] }`;

/** Broker and collector run when it resolves; the proxy is started, and started again, by the caller. */
export const prepareOutrider = async (t: Test, options: OutriderOptions): Promise<Outrider> => {
  const stack = await prepareStack(t, undefined, mkdtempSync(join(options.dir, 'outrider-')));
  const { files } = stack;
  writeWhole(files.originCa, options.originCa);
  const program = fromBundle(options.bundle);
  const launch = { command: pinned(cores.others, [process.execPath]) };
  const brokerText = brokerYaml(files, stack.issuer.url, {
    targets: options.targets ?? targetsYaml,
    policies: options.policies ?? policiesYaml,
  });
  const broker = await startRole(t, 'broker', files.dir, brokerText, program, launch);
  const grpc = broker.ports['gRPC'] as number;
  const collector = await startRole(t, 'collector', files.dir, collectorYaml(files, grpc), program, launch);
  await collector.ready;
  const port = await freePort();
  const routePorts: number[] = [];
  for (const _ of options.routes ?? []) routePorts.push(await freePort());
  const pins = options.pins.map((pin) => `    - { host: ${pin.host}, port: ${pin.port}, address: "127.0.0.1:${pin.originPort}" }`);
  const routes = (options.routes ?? []).map((to, i) => `  - { listen: "127.0.0.1:${routePorts[i]}", to: "${to}" }`);
  const settings = proxyYaml(files, grpc, collector.ports['gRPC'] as number, stack.origin)
    .replace('listen: 127.0.0.1:0', `listen: 127.0.0.1:${port}`)
    .replace(/^ {4}- \{ host: .*\n/gm, '');
  const file = join(files.dir, 'proxy.yaml');
  writeFileSync(file, `${settings}${pins.join('\n')}\n${routes.length > 0 ? `routes:\n${routes.join('\n')}\n` : ''}log: { level: warn }\n`);
  return {
    port,
    routePorts,
    files,
    broker,
    collector,
    startProxy: () => {
      const log = openSync(join(files.dir, 'proxy.log'), 'a');
      return start(t, cores.product, [process.execPath, ...program, 'proxy', '--config', file], {
        stdio: ['ignore', log, log],
        env: imageEnvironment,
      });
    },
  };
};

/** Asks through the proxy until it is answered with a credential; resolves with that. */
export const credentialThrough = async ({ port, files }: Outrider, origin: Origin, name: string = host): Promise<string> => {
  await accepting(port);
  let last = '';
  for (const end = performance.now() + 60_000; performance.now() < end; ) {
    const said = await new Promise<string>((resolve) => {
      const asking = request({ host: '127.0.0.1', port, path: `http://${name}/seen`, headers: { host: name }, agent: false }, (answer) => {
        void text(answer).then(resolve, () => resolve(''));
      });
      asking.once('error', ({ message }) => resolve(message));
      asking.end();
    });
    const [, token = ''] = said === 'seen' ? (/^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/.exec(origin.seen()) ?? []) : [];
    if (token) return token;
    last = said;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`the proxy did not become ready: ${last}\n${readFileSync(join(files.dir, 'proxy.log'), 'utf8')}`);
};
