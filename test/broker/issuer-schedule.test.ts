/** The rotation arithmetic, over many rotations, late and early wake-ups, and every instant in between. */
import * as fc from 'fast-check';
import t from 'tap';
import {
  inOrder,
  keysCacheMs,
  nextRotationMs,
  planRotation,
  publishedKeys,
  type Rotation,
  type ScheduledKey,
  signingKey,
} from '../../src/broker/issuer/schedule.ts';

const minute = 60_000;
const hour = 60 * minute;
const rotation: Rotation = { keyLifetimeMs: 24 * hour, keyOverlapMs: hour };
const start = 1_795_000_000_000;
const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);

/** What the issuer does with a plan, without keys. */
const rotate = (keys: readonly ScheduledKey[], nowMs: number, mustReplace = false): readonly ScheduledKey[] => {
  const { create, forget } = planRotation(keys, nowMs, rotation, mustReplace);
  const made = create ? [{ kid: `made at ${nowMs - start}`, publishedFromMs: nowMs, ...create }] : [];
  return inOrder([...keys, ...made].filter(({ kid }) => !forget.includes(kid)));
};

t.test('the first key signs at once; its successor is published one overlap before it signs, and goes one overlap after', async (t) => {
  let keys = rotate([], start);
  t.equal(signingKey(keys, start)?.kid, 'made at 0');
  t.equal(nextRotationMs(keys, rotation), start + 23 * hour);
  t.same(rotate(keys, start + 23 * hour - 1), keys, 'not before it is due');

  keys = rotate(keys, start + 23 * hour);
  const [first, second] = keys as [ScheduledKey, ScheduledKey];
  t.equal(keys.length, 2);
  t.equal(second.signsFromMs, start + 24 * hour);
  t.equal(signingKey(keys, start + 24 * hour - 1), first);
  t.equal(signingKey(keys, start + 24 * hour), second);
  t.equal(nextRotationMs(keys, rotation), start + 25 * hour);
  t.same(publishedKeys(keys, start + 25 * hour - 1, rotation), [first, second]);
  t.same(publishedKeys(keys, start + 25 * hour, rotation), [second]);
  t.same(rotate(keys, start + 25 * hour), [second]);
});

t.test('a broker that slept through a rotation still publishes the next key one overlap before it signs', async (t) => {
  const keys = rotate([], start);
  const late = start + 100 * hour;
  const [first, second] = rotate(keys, late) as [ScheduledKey, ScheduledKey];
  t.equal(second.signsFromMs, late + hour);
  t.equal(signingKey([first, second], late + hour - 1), first);
  t.same(publishedKeys([first, second], late + 2 * hour - 1, rotation), [first, second]);
});

t.test('a changed algorithm makes a successor now, and only one', async (t) => {
  const keys = rotate([], start);
  const replaced = rotate(keys, start + hour, true);
  t.equal(replaced.at(-1)?.signsFromMs, start + 2 * hour);
  t.same(rotate(replaced, start + hour + 1), replaced);
  const ahead = rotate(rotate([], start), start + 23 * hour);
  const last = rotate(ahead, start + 23 * hour, true).at(-1);
  t.ok((last?.signsFromMs ?? 0) > (ahead.at(-1)?.signsFromMs ?? 0), 'and it signs after the one it replaces');
});

t.test('a clock that ran backwards finds the first key', async (t) => {
  t.equal(signingKey(rotate([], start), start - hour)?.kid, 'made at 0');
  t.equal(signingKey([], start), undefined);
});

t.test('nothing to do means nothing is planned, however often one asks', async (t) => {
  let keys: readonly ScheduledKey[] = rotate([], start);
  for (let i = 0; i < 40; i += 1) {
    const next = nextRotationMs(keys, rotation);
    t.same(planRotation(keys, next - 1, rotation), { create: undefined, forget: [] });
    const plan = planRotation(keys, next, rotation);
    t.ok(plan.create !== undefined || plan.forget.length > 0, 'due when it says so');
    keys = rotate(keys, next);
    t.ok(nextRotationMs(keys, rotation) > next, 'and not again at once');
  }
});

t.test('every token verifies all its life by the key set of that instant, and by any copy as old as may be kept', async (t) => {
  const life = 10 * minute;
  const copyAgeMax = keysCacheMs(rotation, life, Number.POSITIVE_INFINITY);
  t.equal(copyAgeMax, 50 * minute);
  const wakeUps = fc.array(fc.integer({ min: 1, max: 30 * hour }), { minLength: 20, maxLength: 60 });
  const share = fc.double({ min: 0, max: 1, noNaN: true });
  const property = fc.property(wakeUps, share, share, share, (pauses, mintShare, lifeShare, ageShare) => {
    let now = start;
    let keys = rotate([], now);
    /** Every key set there ever was, from when it was in force. */
    const history: { fromMs: number; keys: readonly ScheduledKey[] }[] = [{ fromMs: now, keys }];
    for (const pause of pauses) {
      now += pause;
      keys = rotate(keys, now);
      history.push({ fromMs: now, keys });
    }
    const inForce = (atMs: number): readonly ScheduledKey[] => history.findLast(({ fromMs }) => fromMs <= atMs)?.keys ?? [];
    const end = now + 30 * hour;
    for (let i = 0; i < 40; i += 1) {
      const mintedAt = start + ((i + mintShare) / 40) * (end - life - start);
      const usedAt = mintedAt + lifeShare * (life - 1);
      // A copy cannot be older than the first key.
      const copiedAt = Math.max(start, usedAt - ageShare * copyAgeMax);
      const kid = signingKey(inForce(mintedAt), mintedAt)?.kid;
      for (const readAt of [usedAt, copiedAt]) {
        const known = publishedKeys(inForce(readAt), readAt, rotation).map((key) => key.kid);
        if (kid === undefined || !known.includes(kid)) return false;
      }
    }
    return true;
  });
  t.comment(`seed ${seed}`);
  fc.assert(property, { seed, numRuns: 300 });
  t.pass(`holds for seed ${seed}`);
});

t.test('a broker that wakes in time keeps two keys at most, each signing for its lifetime', async (t) => {
  let keys = rotate([], start);
  const signers: string[] = [];
  let keysMax = 0;
  const end = start + 50 * 24 * hour;
  for (let now = start; now < end; now = Math.min(now + 7 * minute, nextRotationMs(keys, rotation))) {
    if (now >= nextRotationMs(keys, rotation)) keys = rotate(keys, now);
    keysMax = Math.max(keysMax, keys.length);
    const kid = signingKey(keys, now)?.kid as string;
    if (signers.at(-1) !== kid) signers.push(kid);
  }
  t.equal(keysMax, 2);
  t.same(signers, ['made at 0', ...Array.from({ length: 49 }, (_, day) => `made at ${(day + 1) * 24 * hour - hour}`)]);
});

t.test('copies may be kept for the overlap less the life of a token, within a bound, and not at all when nothing is left', async (t) => {
  t.equal(keysCacheMs(rotation, 10 * minute, 5 * minute), 5 * minute);
  t.equal(keysCacheMs({ ...rotation, keyOverlapMs: 12 * minute }, 10 * minute, 5 * minute), 2 * minute);
  t.equal(keysCacheMs({ ...rotation, keyOverlapMs: 5 * minute }, 10 * minute, 5 * minute), 0);
});
