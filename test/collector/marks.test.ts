/** The bookkeeping of stored sequence numbers against a plain set. */
import * as fc from 'fast-check';
import t from 'tap';
import {
  forgetOldest,
  giveUp,
  giveUpAll,
  hasHoles,
  isStored,
  markStored,
  marksFrom,
  type Range,
  storedThrough,
} from '../../src/collector/marks.ts';

const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
t.comment(`seed ${seed}`);

const marked = (first: number, ...sequences: number[]) => {
  const marks = marksFrom(first);
  for (const sequence of sequences) markStored(marks, sequence);
  return marks;
};
const numbersIn = (holes: readonly Range[]): number[] =>
  holes.flatMap(({ from, to }) => Array.from({ length: to - from + 1 }, (_, i) => from + i));

t.test(
  'in whatever order numbers are stored: what is stored, what may be acknowledged and what is missing are as a set would say',
  async (t) => {
    const step = fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: 1, max: 40 }) },
      { weight: 1, arbitrary: fc.constantFrom('look' as const, 'give up' as const) },
    );
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 20 }), fc.array(step, { maxLength: 60 }), (first, steps) => {
        const marks = marksFrom(first);
        const stored = new Set<number>();
        const missing = new Set<number>();
        let seen = first - 1;
        const top = (): number => Math.max(first - 1, ...stored);
        const holes = (through: number): number[] =>
          Array.from({ length: Math.max(0, through) }, (_, i) => i + 1).filter((n) => n >= first && !stored.has(n) && !missing.has(n));
        for (const what of steps) {
          if (typeof what === 'number') {
            markStored(marks, what);
            stored.add(what);
          } else {
            const expected = holes(what === 'look' ? Math.min(seen, top()) : top());
            const actual = numbersIn(what === 'look' ? giveUp(marks) : giveUpAll(marks));
            if (JSON.stringify(actual) !== JSON.stringify(expected)) return false;
            for (const n of expected) missing.add(n);
            if (what === 'look') seen = top();
          }
          const open = holes(top());
          for (let n = 1; n <= 45; n += 1) if (isStored(marks, n) !== stored.has(n)) return false;
          if (hasHoles(marks) !== open.length > 0) return false;
          const through = open.length > 0 ? (open[0] as number) - 1 : top();
          // A number that was given up does not hold an acknowledgement back, nor is it acknowledged by itself.
          if (storedThrough(marks) > through) return false;
          if (![...stored].filter((n) => n <= through && n >= first).every((n) => n <= storedThrough(marks))) return false;
        }
        return true;
      }),
      { seed, numRuns: 4000 },
    );
    t.pass();
  },
);

t.test('counting begins with the first number offered, whether or not it is then stored', async (t) => {
  const marks = marksFrom(501);
  t.equal(storedThrough(marks), 500);
  t.equal(isStored(marks, 500), false, 'what came before is not known');
  markStored(marks, 701);
  t.equal(storedThrough(marks), 500, '501 to 700 were offered and are not stored');
});

t.test('a gap holds the acknowledgement until it is filled', async (t) => {
  const marks = marked(1, 1, 2, 4, 5);
  t.equal(storedThrough(marks), 2);
  markStored(marks, 3);
  t.equal(storedThrough(marks), 5);
});

t.test('a gap is given up at the second look, and a late arrival is still not taken for a repeat', async (t) => {
  const marks = marked(1, 1, 4);
  t.same(giveUp(marks), []);
  markStored(marks, 9);
  t.same(giveUp(marks), [{ from: 2, to: 3 }], 'the younger gap waits for the next look');
  t.equal(storedThrough(marks), 4);
  t.equal(isStored(marks, 2), false);
  markStored(marks, 2);
  t.equal(isStored(marks, 2), true);
  t.same(giveUp(marks), [{ from: 5, to: 8 }]);
  t.equal(storedThrough(marks), 9);
  t.equal(hasHoles(marks), false);
});

t.test('many gaps are forgotten from the oldest on, and reported when they are', async (t) => {
  const marks = marked(1, ...Array.from({ length: 10 }, (_, i) => 1 + 2 * i));
  t.same(forgetOldest(marks, 20), []);
  t.same(forgetOldest(marks, 8), [
    { from: 2, to: 2 },
    { from: 4, to: 4 },
  ]);
  t.equal(marks.ranges.length, 8);
  t.equal(storedThrough(marks), 5);
  t.equal(isStored(marks, 2), true, 'the price of forgetting');
});
