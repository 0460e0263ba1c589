/** A proxy of the bundle with its broker and collector, each a process, between two targets: one for good programs, one for slow ones. */
import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { type RequestListener, createServer, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import { buildBundle } from '../../../scripts/build.ts';
import { fromBundle, type RoleProcess, startRole } from '../../support/processes.ts';
import { brokerYaml, collectorYaml, host, prepareStack, proxyYaml, type Stack } from '../../support/stack.ts';

export const slowHost = 'slow.outrider.test';

export interface Crowded {
  readonly stack: Stack;
  readonly broker: RoleProcess;
  readonly proxy: RoleProcess;
  readonly port: number;
  readonly admin: { readonly port: number };
  /** The slow target gives up. Until then a program that is gone is not noticed whose body nobody reads. */
  readonly release: () => void;
  /** Starts a crowd; what it says last, and how it ends. */
  readonly crowd: (count: number, kinds: readonly string[], retryMs?: number) => Crowd;
}

export interface Crowd {
  readonly counts: () => { readonly open: number; readonly opened: number; readonly closed: number; readonly refused: number };
  readonly stop: () => void;
}

export interface PlaceOptions {
  /** Placement of the slow target's credential, YAML. */
  readonly slowPlacement?: string;
  readonly good?: RequestListener;
}

/** What slow programs ask: an endless answer, a body that is read, one that is not. */
export const slowTarget: RequestListener = (request, response) => {
  request.on('error', () => undefined);
  response.on('error', () => undefined);
  if (request.url === '/stall') return;
  if (request.url === '/big') {
    const block = Buffer.alloc(64 * 1024);
    const more = (): void => {
      while (!response.destroyed && response.write(block));
      if (!response.destroyed) response.once('drain', more);
    };
    return more();
  }
  request.resume();
  request.once('end', () => response.end('ok'));
};

const listening = async (server: Server): Promise<number> => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
};

export const startPlace = async (t: Test, { slowPlacement = '{ kind: bearer }', good }: PlaceOptions = {}): Promise<Crowded> => {
  const stack = await prepareStack(t, good ?? ((_request, response) => response.end('ok')));
  const ways = { keepAliveTimeout: 60_000 };
  const slow = [createServer(ways, slowTarget), createTlsServer({ ...ways, ...stack.serverFor(slowHost) }, slowTarget)];
  const [slowPort, slowTlsPort] = await Promise.all(slow.map((server) => listening(server)));
  t.teardown(() => {
    for (const server of slow) {
      server.close();
      server.closeAllConnections();
    }
  });
  const { files } = stack;
  mkdirSync(files.dir, { recursive: true });
  const bundle = join(files.dir, 'dist');
  await buildBundle(bundle);
  const program = fromBundle(bundle);
  const broker = await startRole(
    t,
    'broker',
    files.dir,
    brokerYaml(files, stack.issuer.url, {
      targets: `  - { name: echo, hosts: [${host}], ports: [443, 80], cleartext: allowed, credentials: [{ provider: echo-token, placement: { kind: bearer } }] }
  - { name: slow, hosts: [${slowHost}], ports: [443, 80], cleartext: allowed, credentials: [{ provider: echo-token, placement: ${slowPlacement} }] }`,
      policies: `  - name: demo
    rules:
      - { name: all, effect: allow, workloads: [demo-app] }
      - { name: no-admin, effect: deny, targets: [echo], paths: ["/admin/**"] }`,
    }),
    program,
  );
  const collector = await startRole(t, 'collector', files.dir, collectorYaml(files, broker.ports['gRPC'] as number), program);
  const yaml = proxyYaml(files, broker.ports['gRPC'] as number, collector.ports['gRPC'] as number, stack.origin);
  const pin = (port: number, to: number | undefined): string => `    - { host: ${slowHost}, port: ${port}, address: "127.0.0.1:${to}" }\n`;
  const pins = pin(80, slowPort) + pin(443, slowTlsPort);
  const proxy = await startRole(t, 'proxy', files.dir, yaml + pins, program);
  await Promise.all([collector.ready, proxy.ready]);
  const port = proxy.ports['proxy'] as number;
  return {
    stack,
    broker,
    proxy,
    port,
    admin: { port: proxy.ports['admin'] as number },
    release: () => {
      for (const server of slow) server.closeAllConnections();
    },
    crowd: (count, kinds, retryMs = 5_000) => {
      const child = spawn(
        process.execPath,
        [join(import.meta.dirname, 'crowd.ts'), String(port), String(count), kinds.join(','), String(retryMs)],
        {
          stdio: ['ignore', 'pipe', 'inherit'],
        },
      );
      let counts = { open: 0, opened: 0, closed: 0, refused: 0 };
      let rest = '';
      child.stdout.on('data', (chunk: Buffer) => {
        const lines = (rest + chunk.toString()).split('\n');
        rest = lines.pop() as string;
        const last = lines.at(-1);
        if (last) counts = JSON.parse(last) as typeof counts;
      });
      const stop = (): void => void child.kill('SIGKILL');
      t.teardown(stop);
      return { counts: () => counts, stop };
    },
  };
};
