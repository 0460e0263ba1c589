/** Check → deduplicate → store → acknowledge, on a store in the test's hand. */
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { createLedger } from '../../src/collector/ledger.ts';
import { createRecorder } from '../../src/collector/service.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { event, eventsFrom, workload } from './events.ts';
import { logLines } from './log-lines.ts';

const caller = { spiffeId: workload };

const setUp = () => {
  const clock = createFakeClock();
  const metrics = createMetrics('collector');
  const { lines: logged, log } = logLines();
  const missing: number[] = [];
  const ledger = createLedger({ clock, onMissing: (_, holes) => void missing.push(...holes.map((h) => h.from)) });
  const stored: string[] = [];
  const disk: { fault: Fault | undefined; gate: Promise<void> | undefined } = { fault: undefined, gate: undefined };
  const store = {
    append: async (lines: readonly string[]) => {
      const { fault, gate } = disk;
      await gate;
      if (fault) throw fault;
      stored.push(...lines);
    },
  };
  const record = createRecorder({ store, ledger, metrics, clock, log });
  const sequences = (): number[] => stored.map((line) => (JSON.parse(line) as { sequence: number }).sequence);
  const sample = async (name: string): Promise<number> => {
    const line = (await metrics.expose()).split('\n').find((l) => l.startsWith(`outrider_collector_${name} `));
    return Number(line?.split(' ').at(-1) ?? 0);
  };
  return { record, stored, sequences, disk, metrics, sample, clock, logged, missing };
};

t.test('a batch is stored with who sent it and when it came, then acknowledged', async (t) => {
  const { record, stored, sample } = setUp();
  t.equal(await record(caller, 'boot-1', eventsFrom(1, 3)), 3);
  t.match(JSON.parse(stored[0] as string), { sequence: 1, bootId: 'boot-1', reporter: workload, receivedAt: /^\d{4}-/ });
  t.equal(await sample('events_stored_total{kind="intent"}'), 3);
  t.equal(await sample('store_duration_seconds_count'), 1);
});

t.test('a batch without events asks what is stored', async (t) => {
  const { record } = setUp();
  t.equal(await record(caller, 'boot-1', []), 0);
  await record(caller, 'boot-1', eventsFrom(1, 3));
  t.equal(await record(caller, 'boot-1', []), 3);
  t.equal(await record(caller, 'boot-2', []), 0);
});

t.test('what comes again is counted and not stored again; what is new beside it is', async (t) => {
  const { record, sequences, sample } = setUp();
  await record(caller, 'boot-1', eventsFrom(1, 4));
  t.equal(await record(caller, 'boot-1', eventsFrom(3, 6)), 6);
  t.equal(await record(caller, 'boot-1', eventsFrom(1, 6)), 6);
  t.same(sequences(), [1, 2, 3, 4, 5, 6]);
  t.equal(await sample('events_duplicate_total'), 2 + 6);
  await record(
    { spiffeId: 'spiffe://outrider.test/ns/demo/sa/other' },
    'boot-1',
    eventsFrom(1, 2, { workload: 'spiffe://outrider.test/ns/demo/sa/other' }),
  );
  t.equal(sequences().length, 8, 'another sender with the same boot id is another proxy');
});

t.test('what could not be stored is not acknowledged, not taken for a repeat, and counted', async (t) => {
  const { record, sequences, disk, sample } = setUp();
  disk.fault = new Fault('event_store_failed');
  await t.rejects(record(caller, 'boot-1', eventsFrom(1, 3)), { name: 'Fault', code: 'event_store_failed' });
  t.equal(await sample('store_failures_total'), 1);
  t.equal(await sample('events_stored_total{kind="intent"}'), 0);
  disk.fault = undefined;
  t.equal(await record(caller, 'boot-1', eventsFrom(4, 6)), 0, 'what comes after does not acknowledge what failed before');
  t.equal(await record(caller, 'boot-1', eventsFrom(1, 6)), 6);
  t.same(sequences(), [4, 5, 6, 1, 2, 3]);
});

t.test('an event is no repeat of one that is still being written by another stream, and may yet fail', async (t) => {
  const { record, sequences, disk } = setUp();
  const gate = Promise.withResolvers<void>();
  disk.gate = gate.promise;
  disk.fault = new Fault('event_store_failed');
  const first = record(caller, 'boot-1', eventsFrom(1, 3));
  await turn();
  disk.fault = undefined;
  let isSecondDone = false;
  const second = record(caller, 'boot-1', eventsFrom(1, 3)).then((through) => {
    isSecondDone = true;
    return through;
  });
  await turn();
  t.equal(isSecondDone, false);
  gate.resolve();
  await t.rejects(first, { code: 'event_store_failed' });
  t.equal(await second, 3);
  t.same(sequences(), [1, 2, 3]);
});

t.test('an impostor is refused with a fault, counted by reason, and nothing of the batch is stored', async (t) => {
  const { record, stored, sample } = setUp();
  const batch = [event(1), event(2, { workload: 'spiffe://outrider.test/ns/demo/sa/other' }), event(3)];
  await t.rejects(record(caller, 'boot-1', batch), { name: 'Fault', code: 'event_refused' });
  t.same(stored, []);
  t.equal(await sample('events_refused_total{reason="workload"}'), 3);
  await t.rejects(record(caller, 'no such\nboot', []), { code: 'event_refused' });
  t.equal(await sample('events_refused_total{reason="boot_id"}'), 1);
});

t.test('a reported loss is counted once, by how many were lost, and logged', async (t) => {
  const { record, sample, logged } = setUp();
  const batch = [event(1), event(2, { kind: 'loss', lostCount: 41 })];
  await record(caller, 'boot-1', batch);
  await record(caller, 'boot-1', batch);
  t.equal(await sample('events_lost_total'), 41);
  t.equal(await sample('events_stored_total{kind="loss"}'), 1);
  t.match(
    logged.find((l) => l['lost'] === 41),
    { level: 'warn', reporter: workload, sequence: 2 },
  );
});

t.test('a gap holds the acknowledgement; what fills it late is stored; what stays missing is reported', async (t) => {
  const { record, sequences, missing, clock } = setUp();
  t.equal(await record(caller, 'boot-1', [event(1), event(2), event(5), event(9)]), 2);
  t.equal(await record(caller, 'boot-1', [event(3), event(4)]), 5);
  clock.advance(2 * limits.eventGapGraceMs);
  t.same(missing, [6]);
  t.equal(await record(caller, 'boot-1', [event(7)]), 9, 'late, after it was given up');
  t.same(sequences(), [1, 2, 5, 9, 3, 4, 7]);
});
