/** What the collector remembers of proxy runs. */
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { createLedger, type Run } from '../../src/collector/ledger.ts';
import { markStored, type Range, storedThrough } from '../../src/collector/marks.ts';
import { limits } from '../../src/core/limits.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { workload } from './events.ts';

const runOf = (bootId: string): Run => ({ reporter: workload, bootId });

const setUp = (runsMax = 100) => {
  const clock = createFakeClock();
  const missing: [string, readonly Range[]][] = [];
  const ledger = createLedger({ clock, runsMax, onMissing: (run, holes) => void missing.push([run.bootId, holes]) });
  const store = (bootId: string, ...sequences: number[]): Promise<number> =>
    ledger.exclusively(runOf(bootId), sequences[0] as number, async (marks) => {
      for (const sequence of sequences) markStored(marks, sequence);
      return storedThrough(marks);
    });
  return { clock, ledger, missing, store };
};

t.test('work for one run is done one after another; work for others goes on meanwhile; a failure stops nobody', async (t) => {
  const { ledger } = setUp();
  const order: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = ledger.exclusively(runOf('a'), 1, async () => {
    order.push('a1 begins');
    await gate.promise;
    order.push('a1 fails');
    throw new Error('disk');
  });
  const second = ledger.exclusively(runOf('a'), 1, async () => void order.push('a2'));
  await ledger.exclusively(runOf('b'), 1, async () => void order.push('b'));
  await turn();
  t.same(order, ['a1 begins', 'b']);
  gate.resolve();
  await t.rejects(first, { message: 'disk' });
  await second;
  t.same(order, ['a1 begins', 'b', 'a1 fails', 'a2']);
});

t.test('the same boot id under two identities is two runs', async (t) => {
  const { ledger, store } = setUp();
  await store('a', 1, 2, 3);
  t.equal(ledger.storedThrough(runOf('a')), 3);
  t.equal(ledger.storedThrough({ reporter: 'spiffe://outrider.test/ns/demo/sa/other', bootId: 'a' }), 0);
});

t.test('a gap is reported once, after its grace time; what fills it in time is not', async (t) => {
  const { store, missing, clock } = setUp();
  t.equal(await store('a', 1, 2, 5), 2);
  t.equal(await store('b', 1, 3), 1);
  clock.advance(limits.eventGapGraceMs);
  t.same(missing, []);
  t.equal(await store('b', 2), 3);
  clock.advance(limits.eventGapGraceMs);
  t.same(missing, [['a', [{ from: 3, to: 4 }]]]);
  t.equal(await store('a', 6), 6, 'the gap no longer holds the acknowledgement');
  clock.advance(10 * limits.eventGapGraceMs);
  t.equal(missing.length, 1);
  t.equal(clock.waiting(), 0, 'nothing is looked for when nothing is missing');
});

t.test('more gaps than are remembered are reported at once', async (t) => {
  const { store, missing } = setUp();
  await store('a', ...Array.from({ length: limits.eventGapsMax + 5 }, (_, i) => 1 + 2 * i));
  t.same(
    missing.flatMap(([, holes]) => holes.map(({ from }) => from)),
    [2, 4, 6, 8, 10],
  );
});

t.test('the runs not heard of for longest are forgotten; their open gaps are reported then', async (t) => {
  const { store, ledger, missing } = setUp(3);
  await store('a', 1, 3);
  await store('b', 1);
  await store('c', 1);
  await store('a', 4);
  await store('d', 1);
  t.equal(ledger.size(), 3);
  t.equal(ledger.storedThrough(runOf('b')), 0, 'b was the oldest: a had been heard of again');
  t.same(missing, []);
  await store('e', 1);
  await store('f', 1);
  t.equal(ledger.storedThrough(runOf('a')), 0);
  t.same(missing, [['a', [{ from: 2, to: 2 }]]]);
});

t.test('a run at work is not forgotten, however many come', async (t) => {
  const { store, ledger } = setUp(2);
  const gate = Promise.withResolvers<void>();
  const slow = ledger.exclusively(runOf('slow'), 1, async (marks) => {
    await gate.promise;
    markStored(marks, 1);
  });
  for (const bootId of ['a', 'b', 'c', 'd']) await store(bootId, 1);
  gate.resolve();
  await slow;
  t.equal(ledger.storedThrough(runOf('slow')), 1);
});

t.test('what was restored from the store is known; its old gaps are neither waited for nor reported again', async (t) => {
  const { store, ledger, missing, clock } = setUp();
  for (const sequence of [1, 2, 5]) ledger.restore(runOf('a'), sequence);
  t.equal(ledger.restored(), 2);
  t.equal(ledger.storedThrough(runOf('a')), 5);
  t.equal(await store('a', 6), 6);
  clock.advance(10 * limits.eventGapGraceMs);
  t.same(missing, []);
});
