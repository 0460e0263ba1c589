/** Access events from a proxy's log to the collector's file, over real gRPC and mTLS. */
import { mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { createLedger } from '../../src/collector/ledger.ts';
import { startCollector } from '../../src/collector/run.ts';
import { createRecorder } from '../../src/collector/service.ts';
import { openStore } from '../../src/collector/store.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { type Clock, systemClock } from '../../src/ops/clock.ts';
import { createMetrics, type Metrics } from '../../src/ops/metrics.ts';
import { openEvents } from '../../src/rpc/client.ts';
import { startEventsServer } from '../../src/rpc/server.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { draft, sample, workload } from '../proxy/event/fakes.ts';
import { collectorSettings, domain, freePort, loopback, proxyTo, sequencesIn, storedIn, until, upTo, workloadId } from './ends.ts';
import { event } from './events.ts';
import { logLines } from './log-lines.ts';
import { collectorId, createTrustDomain, silent } from './trust-domain.ts';
import { directoryOf } from '../support/directory.ts';

const collectorOn = async (t: Test, o: { port?: number; svidLifetimeMs?: number; clock?: Clock } = {}) => {
  const { settings, broker } = await collectorSettings(t, o);
  const { file } = settings.store;
  const { lines, log } = logLines();
  const start = async () => {
    const running = await startCollector(settings, { log, ...(o.clock ? { clock: o.clock } : {}) });
    await running.ready();
    const at = (path: string): string => `http://127.0.0.1:${running.admin.port}${path}`;
    return {
      ...running,
      metric: async (name: string): Promise<number> => {
        const text = await (await fetch(at('/metrics'))).text();
        const line = text.split('\n').find((l) => l.startsWith(`outrider_collector_${name} `));
        return Number(line?.split(' ').at(-1) ?? 0);
      },
      readyz: async () => {
        const response = await fetch(at('/readyz'));
        return { status: response.status, text: await response.text() };
      },
    };
  };
  return { file, start, settings, broker, lines };
};

const metricOf = (metrics: Metrics, name: string): Promise<number> => sample(metrics, `outrider_proxy_${name}`);

t.test('events arrive in order, with who sent them; each is in the file before it is acknowledged', async (t) => {
  const { start, file } = await collectorOn(t);
  const collector = await start();
  t.teardown(() => collector.close());
  let checked = 0;
  const { eventLog, request, metrics } = proxyTo(t, collector.grpc.port, {
    open: (o) =>
      openEvents({
        ...o,
        on: {
          ...o.on,
          stored: (bootId, through) => {
            t.same(sequencesIn(file).slice(0, through), upTo(through));
            checked += 1;
            o.on.stored(bootId, through);
          },
        },
      }),
  });
  for (let i = 0; i < 250; i += 1) request();
  t.equal(await eventLog.flush(10_000), 0);
  t.ok(checked >= 3, `${checked} acknowledgements`);
  t.same(sequencesIn(file), upTo(500));
  t.match(storedIn(file)[0], { kind: 'intent', reporter: workload, bootId: 'boot-1', workload, path: '/hello' });
  t.equal(await collector.metric('events_stored_total{kind="intent"}'), 250);
  t.equal(await collector.metric('events_stored_total{kind="outcome"}'), 250);
  t.equal(await collector.metric('streams'), 1);
  t.ok((await collector.metric('store_duration_seconds_count')) > 0);
  t.ok((await collector.metric('svid_expiry_timestamp_seconds')) > Date.now() / 1000);
  t.equal(await collector.metric('svid_renewals_total{result="ok"}'), 1);
  t.equal(await metricOf(metrics, 'collector_connected'), 1);
  eventLog.close();
  await until(async () => (await collector.metric('streams')) === 0);
});

t.test('streams killed between writing and acknowledging, at random, forty times: every event is stored once', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
  t.comment(`seed ${seed}`);
  let state = seed;
  const random = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state / 2 ** 32;
  };
  const file = join(directoryOf(t), 'events.jsonl');
  const store = await openStore({ file, clock: systemClock, log: silent, onRecorded: () => {} });
  const metrics = createMetrics('collector');
  const ledger = createLedger({ clock: systemClock, onMissing: () => t.fail('nothing is missing') });
  const record = createRecorder({ store, ledger, metrics, clock: systemClock, log: silent });
  let kills = 0;
  const server = await startEventsServer({
    listen: loopback(),
    identity: domain.serverIdentity(collectorId),
    record: async (caller, bootId, events) => {
      if (events.length > 0 && kills < 40 && random() < 0.3) {
        kills += 1;
        throw new Fault('event_store_failed', { detail: 'killed before writing' });
      }
      const through = await record(caller, bootId, events);
      if (events.length > 0 && kills < 40 && random() < 0.6) {
        kills += 1;
        throw new Fault('event_store_failed', { detail: 'killed between writing and acknowledging' });
      }
      return through;
    },
    find: async () => ({ events: [], isComplete: true }),
    log: silent,
    clock: systemClock,
  });
  t.teardown(async () => {
    await server.close();
    await store.close();
  });
  // Pauses between tries of a few milliseconds: the clock runs fast for timers.
  const hasty = { ...systemClock, after: (ms: number, callback: () => void) => systemClock.after(ms / 40, callback) };
  const { eventLog, request, metrics: sent } = proxyTo(t, server.address.port, { clock: hasty });
  while (kills < 40) {
    for (let i = 0; i < 5; i += 1) request();
    await pause(2);
  }
  t.equal(await eventLog.flush(40 * 10_000), 0);
  const sequences = sequencesIn(file);
  t.same(
    [...sequences].toSorted((a, b) => a - b),
    upTo(sequences.length),
    'set equality, no duplicates',
  );
  t.equal(await metricOf(sent, 'events_acknowledged_total'), sequences.length);
  const line = (await metrics.expose()).split('\n').find((l) => l.startsWith('outrider_collector_events_duplicate_total '));
  t.ok(Number(line?.split(' ')[1]) > 0, 'some came twice');
});

t.test(
  'while the collector is away events wait up to the bound, what is lost is counted, intents are refused; all that is kept arrives when it is back',
  async (t) => {
    const reserved = await freePort();
    const { eventLog, request, metrics } = proxyTo(t, reserved, { queueMax: 60, reserved: 10 });
    let admitted = 0;
    let refused: unknown;
    while (refused === undefined) {
      try {
        request();
        admitted += 1;
      } catch (error) {
        refused = error;
      }
    }
    t.match(refused, { name: 'Fault', code: 'event_backlog' });
    t.equal(eventLog.waiting(), 2 * admitted);
    for (let i = 0; i < 100; i += 1) eventLog.record(draft({ kind: 'refusal' }));
    const kept = eventLog.waiting() - 2 * admitted;
    await until(async () => (await metricOf(metrics, 'events_queued')) === eventLog.waiting());
    t.equal(await metricOf(metrics, 'events_lost_total{kind="refusal"}'), 100 - kept);
    t.equal(await metricOf(metrics, 'collector_connected'), 0);
    t.equal(await metricOf(metrics, 'events_acknowledged_total'), 0);

    const { start, file } = await collectorOn(t, { port: reserved });
    const collector = await start();
    t.teardown(() => collector.close());
    t.equal(await eventLog.flush(10_000), 0);
    request();
    t.equal(await eventLog.flush(10_000), 0);
    const stored = storedIn(file);
    t.same(
      stored.map((e) => e.sequence),
      upTo(stored.length),
      'numbers without a gap: the loss record explains what is not there',
    );
    t.equal(
      stored.filter((e) => e.kind === 'loss').reduce((sum, e) => sum + (e.lostCount ?? 0), 0),
      100 - kept,
    );
    t.equal(stored.filter((e) => e.kind === 'refusal').length, kept);
    t.equal(stored.filter((e) => e.kind === 'outcome').length, admitted + 1);
    t.equal(await collector.metric('events_lost_total'), 100 - kept);
    t.equal(await collector.metric('events_missing_total'), 0);
    t.equal(await metricOf(metrics, 'collector_connected'), 1);
  },
);

t.test('a collector that is restarted remembers what it has stored', async (t) => {
  const port = await freePort();
  const { start, file } = await collectorOn(t, { port });
  const first = await start();
  let isDeaf = true;
  const { eventLog, request } = proxyTo(t, port, {
    open: (o) => openEvents({ ...o, on: { ...o.on, stored: (bootId, through) => void (isDeaf || o.on.stored(bootId, through)) } }),
  });
  for (let i = 0; i < 50; i += 1) request();
  await until(async () => (await first.metric('events_stored_total{kind="outcome"}')) === 50);
  await first.close();
  t.equal(eventLog.waiting(), 100, 'stored, but the proxy has not heard of it');
  isDeaf = false;
  const second = await start();
  t.teardown(() => second.close());
  t.equal(await eventLog.flush(10_000), 0);
  request();
  t.equal(await eventLog.flush(10_000), 0);
  t.same(sequencesIn(file), upTo(102), 'once each');
  t.equal(await second.metric('events_stored_total{kind="intent"}'), 1);
});

t.test('a proxy that speaks for another workload is refused: nothing of its batch is stored, the stream ends with a fault', async (t) => {
  const { start, file } = await collectorOn(t);
  const collector = await start();
  t.teardown(() => collector.close());
  const { eventLog, lines, metrics } = proxyTo(t, collector.grpc.port);
  eventLog.record(draft({ kind: 'refusal', workload: 'spiffe://outrider.test/ns/demo/sa/other' }));
  await until(() => lines.some((l) => l['reason'] === 'event_refused'));
  t.same(storedIn(file), []);
  t.ok((await collector.metric('events_refused_total{reason="workload"}')) >= 1);
  t.equal(eventLog.waiting(), 1);
  t.equal(await metricOf(metrics, 'events_acknowledged_total'), 0);
});

t.test('without an SVID of the trust domain nobody records', async (t) => {
  const { start, file } = await collectorOn(t);
  const collector = await start();
  t.teardown(() => collector.close());
  const foreign = createTrustDomain().svid(workloadId);
  const ended = Promise.withResolvers<Fault>();
  const channel = openEvents({
    collector: { address: `127.0.0.1:${collector.grpc.port}`, spiffeId: collectorId },
    svid: { ...foreign, trustBundlePem: domain.svid(workloadId).trustBundlePem },
    on: { stored: () => t.fail('it was acknowledged'), drained: () => {}, ended: ended.resolve },
  });
  channel.write('boot-1', []);
  t.equal((await ended.promise).code, 'identity_refused');
  t.same(storedIn(file), []);
});

t.test('the proxy’s SVID changes again and again under load: nothing is lost, nothing twice, order kept', async (t) => {
  const { start, file } = await collectorOn(t);
  const collector = await start();
  t.teardown(() => collector.close());
  const { eventLog, request, svids } = proxyTo(t, collector.grpc.port);
  for (let change = 0; change < 20; change += 1) {
    const target = eventLog.waiting() + 20;
    while (eventLog.waiting() < target) request();
    await pause(3);
    svids.change(domain.svid(workloadId));
  }
  t.equal(await eventLog.flush(10_000), 0);
  const sequences = sequencesIn(file);
  t.same(sequences, upTo(sequences.length));
  t.equal(await collector.metric('events_missing_total'), 0);
});

t.test('the collector renews its own SVID without dropping a stream', async (t) => {
  const { start, file } = await collectorOn(t, { svidLifetimeMs: 3_000 });
  const collector = await start();
  t.teardown(() => collector.close());
  let streams = 0;
  const open: typeof openEvents = (o) => {
    streams += 1;
    return openEvents(o);
  };
  const { eventLog, request } = proxyTo(t, collector.grpc.port, { open });
  request();
  const firstExpiry = await collector.metric('svid_expiry_timestamp_seconds');
  await until(async () => {
    request();
    return (await collector.metric('svid_renewals_total{result="ok"}')) >= 2;
  });
  request();
  t.equal(await eventLog.flush(10_000), 0);
  t.equal(streams, 1);
  const sequences = sequencesIn(file);
  t.same(sequences, upTo(sequences.length));
  t.ok((await collector.metric('svid_expiry_timestamp_seconds')) > firstExpiry);
  const later = proxyTo(t, collector.grpc.port, { bootId: 'boot-2' });
  later.request();
  t.equal(await later.eventLog.flush(10_000), 0, 'new connections see the new certificate');
});

t.test('a store that fails: nothing is acknowledged, readiness says so; when it is well again everything arrives', async (t) => {
  const { start, file } = await collectorOn(t);
  const collector = await start();
  t.teardown(() => collector.close());
  const { eventLog, request, lines } = proxyTo(t, collector.grpc.port);
  request();
  t.equal(await eventLog.flush(10_000), 0);
  t.same(await collector.readyz(), { status: 200, text: 'ready\n' });
  rmSync(file);
  mkdirSync(file);
  request();
  await until(() => lines.some((l) => l['reason'] === 'event_store_failed'));
  t.equal(eventLog.waiting(), 2);
  t.ok((await collector.metric('store_failures_total')) >= 1);
  t.same(await collector.readyz(), { status: 503, text: 'waiting for the event store, which cannot be written to (EISDIR)\n' });
  rmdirSync(file);
  await until(async () => (await collector.readyz()).status === 200);
  t.equal(await eventLog.flush(10_000), 0);
  t.same(sequencesIn(file), [3, 4]);
});

t.test('events as large as they may be arrive too, though a batch of them is more than one message', async (t) => {
  const { start, file } = await collectorOn(t);
  const collector = await start();
  t.teardown(() => collector.close());
  const { eventLog } = proxyTo(t, collector.grpc.port);
  const long = '語'.repeat(5_000);
  const decision = { verdict: 'deny', policy: long, policyVersion: long, rule: long, reason: long } as const;
  const fields = { kind: 'refusal', target: long, method: long, path: `/${long}`, grantId: long, traceId: long, decision } as const;
  for (let i = 0; i < 200; i += 1) eventLog.record(draft(fields));
  t.equal(await eventLog.flush(10_000), 0);
  t.same(sequencesIn(file), upTo(200));
  t.match(storedIn(file)[199], { target: /^語+ \[\d+ more bytes, sha256 [0-9a-f]{64}\]$/ });
});

t.test('what never arrives is counted as missing when its time is over', async (t) => {
  const clock = createFakeClock();
  const { start, file, lines } = await collectorOn(t, { clock });
  const collector = await start();
  t.teardown(() => collector.close());
  const stored: number[] = [];
  const ended: string[] = [];
  const channel = openEvents({
    collector: { address: `127.0.0.1:${collector.grpc.port}`, spiffeId: collectorId },
    svid: domain.svid(workloadId),
    on: { stored: (_, through) => void stored.push(through), drained: () => {}, ended: (fault) => void ended.push(fault.message) },
  });
  channel.write('boot-1', [event(1), event(2), event(5)]);
  await until(() => stored.length === 1);
  t.same(stored, [2], 'what is behind the gap is stored, and not acknowledged');
  t.same(sequencesIn(file), [1, 2, 5]);
  clock.advance(2 * limits.eventGapGraceMs);
  t.equal(await collector.metric('events_missing_total'), 2);
  t.match(
    lines.find((l) => l['message'] === 'events are missing'),
    { reporter: workload, bootId: 'boot-1', holes: [{ from: 3, to: 4 }] },
  );
  channel.write('boot-1', []);
  await until(() => stored.length === 2);
  t.same(stored, [2, 5]);
  t.same(ended, [], 'the stream lives');
  channel.close();
});

t.test('before the broker has attested it the collector listens, is not ready, and proxies keep their events', async (t) => {
  const { settings, broker } = await collectorOn(t);
  await broker.close();
  const running = await startCollector(settings, { log: silent });
  t.teardown(() => running.close());
  const { eventLog, request, lines } = proxyTo(t, running.grpc.port);
  request();
  await until(() => lines.some((l) => l['reason'] === 'untrusted'));
  t.equal(eventLog.waiting(), 2);
  const response = await fetch(`http://127.0.0.1:${running.admin.port}/readyz`);
  t.equal(response.status, 503);
  t.match(await response.text(), /^waiting for an identity from the broker/);
  const ready = running.ready();
  await running.close();
  await t.rejects(ready, { name: 'Fault' });
});

t.test('a port in use is found at once and leaves nothing open', async (t) => {
  const blocker = createServer();
  await new Promise<void>((resolve) => blocker.listen(0, '127.0.0.1', resolve));
  t.teardown(() => blocker.close());
  const { port } = blocker.address() as { port: number };
  const { settings } = await collectorOn(t, { port });
  await t.rejects(startCollector(settings, { log: silent }), { name: 'ListenError', message: new RegExp(`127.0.0.1:${port} is in use`) });
});

t.test('a store that cannot be opened is said at once', async (t) => {
  const { settings, file } = await collectorOn(t);
  mkdirSync(file, { recursive: true });
  await t.rejects(startCollector(settings, { log: silent }), { name: 'StoreError' });
});
