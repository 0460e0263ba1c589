/** A proxy's event log, a collector's settings and what is in its file: the two ends of the tests over real gRPC. */
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Test } from 'tap';
import type { AccessEventDraft } from '../../src/core/access-event.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import { createEventLog, type EventLogOptions } from '../../src/proxy/event.ts';
import type { CollectorSettings } from '../../src/settings/collector.ts';
import { draft, outcomeOf, svidsInHand, workload } from '../proxy/event/fakes.ts';
import { logLines } from './log-lines.ts';
import { collectorId, createTrustDomain } from './trust-domain.ts';
import { directoryOf } from '../support/directory.ts';

export interface Stored {
  readonly sequence: number;
  readonly kind: string;
  readonly requestId: string;
  readonly bootId: string;
  readonly lostCount?: number;
}

export const domain = createTrustDomain();
export const loopback = (port = 0) => ({ host: '127.0.0.1', port });
export const workloadId = workload as `spiffe://${string}`;

export const storedIn = (file: string): Stored[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Stored);
export const sequencesIn = (file: string): number[] => storedIn(file).map((e) => e.sequence);
export const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);

/** Waits until `is` holds; tap's timeout ends what never comes. */
export const until = async (is: () => boolean | Promise<boolean>): Promise<void> => {
  while (!(await is())) await pause(5);
};

/** Settings of a collector with a broker of its own; both live in the test's directory. */
export const collectorSettings = async (t: Test, o: { port?: number; svidLifetimeMs?: number } = {}) => {
  const dir = directoryOf(t);
  const broker = await domain.startBroker(o.svidLifetimeMs);
  t.teardown(() => broker.close());
  const settings: CollectorSettings = {
    kind: 'collector',
    listen: loopback(o.port),
    admin: loopback(),
    identity: domain.identitySettings(dir, broker.address),
    store: { file: join(dir, 'store', 'events.jsonl') },
    log: { level: 'silent' },
  };
  return { settings, broker };
};

/** An event log that sends to the collector on `port`. */
export const proxyTo = (t: Test, port: number, o: Partial<EventLogOptions> = {}) => {
  const metrics = createMetrics('proxy');
  const svids = svidsInHand(domain.svid(workloadId));
  const { lines, log } = logLines();
  const eventLog = createEventLog({
    audit: 'required',
    queueMax: 10_000,
    reserved: 100,
    collector: { address: `127.0.0.1:${port}`, spiffeId: collectorId },
    svids,
    metrics,
    clock: systemClock,
    log,
    bootId: 'boot-1',
    ...o,
  });
  t.teardown(() => eventLog.close());
  /** Intent and outcome of one request. */
  const request = (): AccessEventDraft => {
    const intent = draft();
    eventLog.intent(intent);
    eventLog.record(outcomeOf(intent));
    return intent;
  };
  return { eventLog, metrics, svids, lines, request };
};

/** A port that was free a moment ago: for a collector that is to come up later, or again, at the same place. */
export const freePort = async (): Promise<number> => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
};
