/** The memory queue against a plain array. */
import * as fc from 'fast-check';
import t from 'tap';
import { numbered } from '../../../src/proxy/event/entry.ts';
import { createMemoryQueue } from '../../../src/proxy/event/queue.ts';
import { draft } from './fakes.ts';

const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
t.comment(`seed ${seed}`);

type Step =
  | { readonly do: 'append' }
  | { readonly do: 'drop'; readonly back: number }
  | { readonly do: 'peek'; readonly after: number; readonly max: number };

const steps = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('append' as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('drop' as const), back: fc.integer({ min: -3, max: 8 }) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('peek' as const), after: fc.integer({ min: -2, max: 8 }), max: fc.nat(6) }) },
  ),
  { maxLength: 60 },
);

t.test('it behaves as an array of at most so many events would', async (t) => {
  fc.assert(
    fc.property(steps, (all: readonly Step[]) => {
      const places = 5;
      const queue = createMemoryQueue(places);
      let model: number[] = [];
      let sequence = 0;
      for (const step of all) {
        const first = model[0] ?? sequence + 1;
        if (step.do === 'append' && model.length < places) {
          sequence += 1;
          queue.append(numbered(draft(), sequence));
          model.push(sequence);
        } else if (step.do === 'drop') {
          const through = first - 1 + step.back;
          const kept = model.filter((s) => s > through);
          if (queue.drop(through) !== model.length - kept.length) return false;
          model = kept;
        } else if (step.do === 'peek') {
          const after = first - 1 + step.after;
          const expected = model.filter((s) => s > after).slice(0, step.max);
          const actual = queue.peek(after, step.max).map((e) => e.sequence);
          if (JSON.stringify(actual) !== JSON.stringify(expected)) return false;
        }
        if (queue.size() !== model.length) return false;
      }
      return true;
    }),
    { seed, numRuns: 3000 },
  );
  t.pass();
});

t.test('a queue without a place, and a sequence with a gap, are bugs', async (t) => {
  const queue = createMemoryQueue(1);
  queue.append(numbered(draft(), 1));
  t.throws(() => queue.append(numbered(draft(), 2)), { name: 'AssertionError' });
  const other = createMemoryQueue(3);
  other.append(numbered(draft(), 1));
  t.throws(() => other.append(numbered(draft(), 3)), { name: 'AssertionError' });
});
