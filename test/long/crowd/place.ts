/** A proxy of the bundle with its broker and collector, each a process, between two targets: one for good programs, one for slow ones. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
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
  /** The slow target ends. Until then a program that has left is not noticed whose body nobody reads. */
  readonly release: () => void;
  /** Starts a crowd; what it says last, and how it ends. */
  readonly crowd: (count: number, kinds: readonly string[], retryMs?: number) => Crowd;
  /** The same of HTTP/2 connections with many streams each. */
  readonly h2Crowd: (count: number, kind: 'unread' | 'uploads' | 'resets') => Crowd;
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

interface Running {
  readonly child: ChildProcess;
  readonly onLine: (heard: (line: string) => void) => void;
}

/** A program of this folder, given `input` on stdin. */
const run = (t: Test, name: string, args: readonly string[], input = ''): Running => {
  const child = spawn(process.execPath, [join(import.meta.dirname, name), ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(input);
  t.teardown(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout });
  return { child, onLine: (heard) => void lines.on('line', heard) };
};

const crowdOf = (t: Test, name: string, args: readonly string[]): Crowd => {
  const { child, onLine } = run(t, name, args);
  let counts = { open: 0, opened: 0, closed: 0, refused: 0 };
  onLine((line) => {
    counts = JSON.parse(line) as typeof counts;
  });
  return { counts: () => counts, stop: () => void child.kill('SIGKILL') };
};

export const startPlace = async (t: Test, { slowPlacement = '{ kind: bearer }', good }: PlaceOptions = {}): Promise<Crowded> => {
  const stack = await prepareStack(t, good ?? ((_request, response) => response.end('ok')));
  const { key, cert } = stack.serverFor(slowHost);
  const slow = run(t, 'slow-target.ts', [], key + cert);
  const [slowPort, slowTlsPort] = (await new Promise<string>(slow.onLine)).split(' ');
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
  const pin = (port: number, to: string | undefined): string => `    - { host: ${slowHost}, port: ${port}, address: "127.0.0.1:${to}" }\n`;
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
    release: () => void slow.child.kill('SIGKILL'),
    crowd: (count, kinds, retryMs = 5_000) => crowdOf(t, 'crowd.ts', [String(port), String(count), kinds.join(','), String(retryMs)]),
    h2Crowd: (count, kind) => crowdOf(t, 'h2-crowd.ts', [String(port), String(count), kind, files.bundle]),
  };
};
