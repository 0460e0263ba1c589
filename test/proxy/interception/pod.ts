/** A pod as far as the interception authority sees it: two volumes, a clock, and processes that come after each other. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLog } from '../../../src/ops/log.ts';
import { dersOf } from '../../../src/pki/pem.ts';
import { createInterception, type Interception, type InterceptionOptions, publicRoots } from '../../../src/proxy/listener/interception.ts';
import { createFakeClock, type FakeClock } from '../../fakes/clock.ts';

export interface Pod {
  readonly bundleFile: string;
  readonly trustStoreFile: string;
  readonly stateFile: string;
  readonly publicDirectory: string;
  readonly clock: FakeClock;
  readonly logs: Record<string, unknown>[];
  /** A process of the proxy's; the next one is a restart. */
  readonly start: (changes?: Partial<InterceptionOptions>) => Interception;
  /** The authority as programs find it. */
  readonly published: () => X509Certificate;
}

export const roots = publicRoots(createLog({ role: 'test', level: 'silent' }));

export const podIn = (dir: string): Pod => {
  const publicDirectory = join(dir, 'public');
  const bundleFile = join(publicDirectory, 'ca-bundle.pem');
  const trustStoreFile = join(publicDirectory, 'trust-store.p12');
  const stateFile = join(dir, 'private', 'authority.pem');
  const clock = createFakeClock();
  const logs: Record<string, unknown>[] = [];
  const log = createLog({ role: 'proxy', level: 'debug', write: (line) => logs.push(JSON.parse(line) as Record<string, unknown>) });
  let starts = 0;
  return {
    bundleFile,
    trustStoreFile,
    stateFile,
    publicDirectory,
    clock,
    logs,
    start: (changes) => createInterception({ bundleFile, trustStoreFile, stateFile, id: `${++starts}`, clock, log, roots, ...changes }),
    published: () => new X509Certificate(dersOf(readFileSync(bundleFile, 'utf8')).at(-1) as Buffer),
  };
};

export const isSameKey = (a: X509Certificate, b: X509Certificate): boolean => a.publicKey.equals(b.publicKey) && a.subject === b.subject;
export const isPermitted = (authority: X509Certificate, name: string): boolean => authority.raw.includes(Buffer.from(name));
