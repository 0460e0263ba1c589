import * as fc from 'fast-check';
import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import { renewalDelayMs, retryPauseMs } from '../../src/rpc/renewal.ts';

const seed = Date.now() & 0x7fffffff;
t.comment(`seed ${seed}`);
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const instant = fc.integer({ min: 0, max: 4_102_444_800_000 });

t.test('a renewal is never in the past and, while the SVID lives, always before its end', async () => {
  fc.assert(
    fc.property(
      instant,
      fc.integer({ min: -1_000, max: 1_000_000_000 }),
      fc.integer({ min: -1_000_000, max: 2_000_000_000 }),
      random,
      (issuedAtMs, lifeMs, ageMs, random) => {
        const [expiresAtMs, nowMs] = [issuedAtMs + lifeMs, issuedAtMs + ageMs];
        const delayMs = renewalDelayMs({ issuedAtMs, expiresAtMs, nowMs, random });
        return Number.isSafeInteger(delayMs) && delayMs >= 0 && (nowMs >= expiresAtMs || nowMs + delayMs < expiresAtMs);
      },
    ),
    { seed, numRuns: 5_000 },
  );
});

t.test('a new SVID is renewed at half of its life, give or take a tenth', async (t) => {
  const at = (random: number): number => renewalDelayMs({ issuedAtMs: 1_000, expiresAtMs: 3_601_000, nowMs: 1_000, random });
  t.equal(at(0), 1_440_000);
  t.equal(at(0.5), 1_800_000);
  t.ok(at(0.999_999) < 2_160_000 && at(0.999_999) > 2_159_000);
});

t.test('pauses double with jitter and keep within the limits', async (t) => {
  const { reconnectPauseMinMs: min, reconnectPauseMaxMs: max } = limits;
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100_000 }), random, (failures, random) => {
      const pauseMs = retryPauseMs(failures, random);
      return Number.isSafeInteger(pauseMs) && pauseMs >= min && pauseMs <= max;
    }),
    { seed, numRuns: 5_000 },
  );
  t.strictSame(
    [1, 2, 3, 4, 100].map((failures) => retryPauseMs(failures, 0)),
    [min, 2 * min, 4 * min, 8 * min, max / 2],
  );
  t.ok(retryPauseMs(1, 0.99) > 1.9 * min, 'spread upwards');
});
