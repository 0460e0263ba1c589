/** When authorities of the trust domain are made, sign and go: examples, and properties over late and early wake-ups of several brokers. */
import * as fc from 'fast-check';
import t from 'tap';
import {
  type AuthoritySchedule,
  inOrder,
  nextChangeMs,
  planAuthorities,
  type ScheduledAuthority,
  signingAuthority,
} from '../../src/pki/authority-schedule.ts';
import { authoritySchedule } from '../../src/broker/authority.ts';

const hour = 3_600_000;
const day = 24 * hour;
const start = 1_795_000_000_000;
const seed = Number(process.env['SEED'] ?? Date.now() % 1_000_000);
const schedule: AuthoritySchedule = authoritySchedule;

/** What a broker does with a plan, without keys. */
const rotate = (authorities: readonly ScheduledAuthority[], nowMs: number): readonly ScheduledAuthority[] => {
  const { create, keep } = planAuthorities(authorities, nowMs, schedule);
  return inOrder([...keep, ...(create ? [{ ...create, notAfterMs: nowMs + schedule.lifetimeMs }] : [])]);
};

t.test('a year of life, half of it until a successor, thirty days until that signs', async (t) => {
  t.strictSame(schedule, { lifetimeMs: 365 * day, announcementMs: 30 * day, signedLifetimeMaxMs: day });
  const first = rotate([], start);
  t.strictSame(first, [{ signsFromMs: start, notAfterMs: start + 365 * day }]);
  t.equal(nextChangeMs([], start, schedule), Number.NEGATIVE_INFINITY);
  t.equal(nextChangeMs(first, start, schedule), start + 182.5 * day);
  t.strictSame(rotate(first, start + 182.5 * day - 1), first, 'not before it is due');
  const two = rotate(first, start + 182.5 * day);
  t.strictSame(two[1], { signsFromMs: start + 212.5 * day, notAfterMs: start + 547.5 * day });
  t.equal(signingAuthority(two, start + 212.5 * day - 1), two[0]);
  t.equal(signingAuthority(two, start + 212.5 * day), two[1]);
  t.equal(nextChangeMs(two, start + 182.5 * day, schedule), start + 212.5 * day, 'the broker has to take another certificate then');
  t.equal(nextChangeMs(two, start + 212.5 * day, schedule), start + 365 * day);
});

t.test('who slept announces as long as there is time, and signs in time for everything signed to live its life', async (t) => {
  const first = rotate([], start);
  const signsAt = (leftMs: number): number => {
    const now = start + 365 * day - leftMs;
    return ((rotate(first, now).at(-1) as ScheduledAuthority).signsFromMs - now) / day;
  };
  t.equal(signsAt(100 * day), 30);
  t.equal(signsAt(20 * day), 19);
  t.equal(signsAt(1.5 * day), 0.5);
  t.equal(signsAt(12 * hour), 0, 'at once when the rest would be too short');
  t.strictSame(rotate(first, start + 365 * day), [{ signsFromMs: start + 365 * day, notAfterMs: start + 730 * day }]);
});

t.test('a clock that ran backwards finds the first authority', async (t) => {
  t.equal(signingAuthority(rotate([], start), start - day)?.signsFromMs, start);
  t.equal(signingAuthority([], start), undefined);
});

t.test(
  'whatever the wake-ups: one signs that has not expired, nothing changes unasked, and brokers that wake in time never break',
  async (t) => {
    const pauses = fc.array(fc.integer({ min: 1, max: 60 * day }), { minLength: 20, maxLength: 60 });
    const property = fc.property(pauses, (all) => {
      let now = start;
      let authorities = rotate([], now);
      for (const pause of all) {
        const before = authorities;
        const signedBefore = signingAuthority(authorities, now) as ScheduledAuthority;
        now += pause;
        authorities = rotate(authorities, now);
        if (rotate(authorities, now) !== authorities && JSON.stringify(rotate(authorities, now)) !== JSON.stringify(authorities))
          return false;
        const signing = signingAuthority(authorities, now) as ScheduledAuthority;
        if (signing.notAfterMs <= now || signing.signsFromMs > now) return false;
        // Pauses of sixty days at most are in time: whatever was signed before the pause is still believed, and who signs now was known.
        if (signedBefore.notAfterMs > now && !authorities.includes(signedBefore)) return false;
        if (!before.some(({ notAfterMs }) => notAfterMs === signing.notAfterMs)) return false;
        if (authorities.length > 3) return false;
        if (nextChangeMs(authorities, now, schedule) <= now) return false;
      }
      return true;
    });
    t.comment(`seed ${seed}`);
    fc.assert(property, { seed, numRuns: 500 });
    t.pass(`holds for seed ${seed}`);
  },
);

t.test('a broker that wakes when it is told to announces every authority for thirty days and cuts no life short', async (t) => {
  let now = start;
  let authorities = rotate([], now);
  const announced: number[] = [];
  let most = 0;
  while (now < start + 20 * 365 * day) {
    now = nextChangeMs(authorities, now, schedule);
    const before = authorities;
    authorities = rotate(authorities, now);
    for (const made of authorities.filter((one) => !before.includes(one))) announced.push(made.signsFromMs - now);
    most = Math.max(most, authorities.length);
    const signing = signingAuthority(authorities, now) as ScheduledAuthority;
    if (signing.notAfterMs - now < schedule.signedLifetimeMaxMs) t.fail('what it signs ends too early');
  }
  t.ok(announced.length >= 39);
  t.ok(announced.every((ms) => ms === 30 * day));
  t.equal(most, 2);
});
