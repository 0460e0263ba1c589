import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import type { Grant } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import type { Clock } from '../../src/ops/clock.ts';
import { createGrantCache } from '../../src/proxy/grant/cache.ts';
import { renewalDelayMs } from '../../src/rpc/renewal.ts';
import { startSvidSource } from '../../src/rpc/svid-source.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { broker, createDomain, handlersOf, hourMs, peerOf, silent } from '../rpc/trust-domain.ts';
import { directoryOf } from '../support/directory.ts';
import { grantOf, target } from '../support/path.ts';
import { holds, seed } from './seed.ts';

/** Schedules of grants and SVIDs against models, under a clock that a test moves and a wall clock that somebody else sets. */

/** Time goes on by `advance`; `step` sets the wall clock alone. */
const steppableClock = () => {
  const fake = createFakeClock(1_700_000_000_000);
  let offMs = 0;
  const clock: Clock = { now: () => fake.now() + offMs, monotonic: fake.monotonic, after: fake.after };
  return { clock, advance: fake.advance, step: (ms: number) => (offMs += ms) };
};

const settled = async (): Promise<void> => {
  for (let i = 0; i < 4; i += 1) await new Promise(setImmediate);
};

// Grants ------------------------------------------------------------------------------------------------------------

type Step =
  | { readonly do: 'get' }
  | { readonly do: 'advance'; readonly ms: number }
  | { readonly do: 'step'; readonly ms: number }
  | { readonly do: 'answer'; readonly how: 'grant' | 'deny' | 'fail'; readonly lifetimeMs: number }
  | { readonly do: 'revoke' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.constant({ do: 'get' } as const) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('advance' as const), ms: fc.integer({ min: 1, max: 200_000 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('step' as const), ms: fc.integer({ min: -4_000_000, max: 4_000_000 }) }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('answer' as const),
      how: fc.constantFrom('grant' as const, 'grant' as const, 'deny' as const, 'fail' as const),
      lifetimeMs: fc.integer({ min: 0, max: 5_000_000 }),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'revoke' } as const) },
);

const key = { workload: 'spiffe://outrider.test/ns/demo/sa/app', target: 'echo', configurationVersion: 'c1' };
const ofEcho = target('echo');

t.test(
  'a grant is never used past its life or after a revocation, whatever the wall clock says, and is asked for by one fetch at a time',
  (t) =>
    holds(
      t,
      'walks of a grant cache',
      fc.asyncProperty(
        fc.array(step, { maxLength: 60 }),
        fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })),
        async (steps, random) => {
          const { clock, advance, step: stepWall } = steppableClock();
          const waiting: { startedAt: number; resolve: (grant: Grant) => void; reject: (fault: Fault) => void }[] = [];
          /** Grant id → when it began to be fetched, how long it lives from there, how many revocations there had been. */
          const given = new Map<string, { endsAt: number; revocations: number }>();
          let revocations = 0;
          const cache = createGrantCache({
            fetch: () =>
              new Promise((resolve, reject) => {
                // One for those who wait, and one ahead of expiry that may have been overtaken by it.
                if (waiting.length >= 2) reject(new Error('three fetches at a time'));
                waiting.push({ startedAt: clock.monotonic(), resolve, reject });
              }),
            clock,
            random: () => random.next().value as number,
          });
          const sound = (grant: Grant): void => {
            const of = given.get(grant.id);
            if (!of) throw new Error('a grant that nobody gave');
            if (clock.monotonic() >= of.endsAt) throw new Error(`used ${clock.monotonic() - of.endsAt} ms after its end`);
            if (of.revocations < revocations) throw new Error('used after it was revoked');
          };
          const problems: Error[] = [];
          for (const one of steps) {
            if (one.do === 'advance') advance(one.ms);
            else if (one.do === 'step') stepWall(one.ms);
            else if (one.do === 'revoke') {
              revocations += 1;
              cache.revoke('echo', []);
            } else if (one.do === 'get') {
              try {
                const found = cache.get(key);
                // Who waits gets what comes; only what is given at once is from memory.
                if (found instanceof Promise) found.catch((error: Error) => error instanceof Fault || problems.push(error));
                else sound(found);
              } catch (error) {
                if (!(error instanceof Fault)) throw error;
              }
            } else {
              const next = waiting.shift();
              if (!next) continue;
              const id = `g${given.size}`;
              given.set(id, { endsAt: next.startedAt + one.lifetimeMs, revocations });
              if (one.how === 'grant') next.resolve(grantOf(ofEcho, { id, lifetimeMs: one.lifetimeMs }));
              else next.reject(new Fault(one.how === 'deny' ? 'policy_denied' : 'broker_unavailable'));
            }
            await settled();
          }
          if (problems[0]) throw problems[0];
        },
      ),
      400,
    ),
);

t.test('while the broker answers, a grant that is in use is refreshed before it ends, and nobody waits after the first', (t) =>
  holds(
    t,
    'grants in use',
    fc.asyncProperty(
      fc.integer({ min: 60_000, max: 3_600_000 }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 60, maxLength: 120 }),
      async (lifetimeMs, random, pauses) => {
        const { clock, advance } = steppableClock();
        let under = 0;
        let most = 0;
        const cache = createGrantCache({
          fetch: async () => {
            most = Math.max(most, (under += 1));
            await new Promise(setImmediate);
            under -= 1;
            return grantOf(ofEcho, { lifetimeMs });
          },
          clock,
          random: () => random,
        });
        await cache.get(key);
        // Up to a tenth of its life between uses: the refresh begins at 80 % at the latest, and 90 % is the end of short ones.
        for (const pause of pauses) {
          advance((pause / 100) * lifetimeMs * 0.09);
          if (cache.get(key) instanceof Promise) throw new Error('somebody had to wait');
          await settled();
        }
        return most === 1;
      },
    ),
    60,
  ),
);

// SVIDs -------------------------------------------------------------------------------------------------------------

t.test('a renewal comes before the end of what it renews, for any life and any moment', (t) =>
  holds(
    t,
    'delays',
    fc.property(
      fc.nat(4_102_444_800_000),
      fc.nat(10 * hourMs),
      fc.nat(10 * hourMs),
      fc.double({ min: 0, max: 0.999_999, noNaN: true }),
      (issuedAtMs, lifeMs, ageMs, random) => {
        const nowMs = issuedAtMs + ageMs;
        const delayMs = renewalDelayMs({ issuedAtMs, expiresAtMs: issuedAtMs + lifeMs, nowMs, random });
        const isLate = ageMs >= lifeMs * 0.6;
        return (
          delayMs >= 0 &&
          (isLate ? delayMs === 0 : delayMs + ageMs <= Math.ceil(lifeMs * 0.6)) &&
          (ageMs > 0 || lifeMs < 10 || delayMs >= Math.floor(lifeMs * 0.4) - 1)
        );
      },
    ),
    10_000,
  ),
);

t.test(
  'an SVID is never used after its end, is renewed by one attempt at a time, and is there as long as the broker answers',
  async (t) => {
    const domain = createDomain();
    const random = fc.sample(fc.double({ min: 0, max: 0.999, noNaN: true }), { seed, numRuns: 1_000 });
    let nth = 0;
    const next = (): number => random[(nth += 1) % random.length] as number;
    const { clock, advance } = steppableClock();
    let under = 0;
    let most = 0;
    let isAway = false;
    const sound = handlersOf(domain, {}, () => Date.now());
    const server = await broker(t, domain, {
      handlers: handlersOf(domain, {
        attest: async (evidence, request) => {
          most = Math.max(most, (under += 1));
          try {
            await new Promise(setImmediate);
            if (isAway) throw new Fault('workload_unknown');
            return await sound.attest(evidence, request);
          } finally {
            under -= 1;
          }
        },
      }),
    });
    const dir = directoryOf(t, { token: 'token', 'ca.pem': domain.authority.certificatePem });
    let attempts = 0;
    let wake = (): void => undefined;
    // Certificates are the broker's, whose clock is the real one: the proxy's begins there, too.
    const startMs = Date.now();
    const own: Clock = { ...clock, now: () => startMs + clock.monotonic() };
    const source = startSvidSource({
      settings: { broker: peerOf(server), brokerCaFile: join(dir, 'ca.pem'), tokenFile: join(dir, 'token') },
      clock: own,
      log: silent,
      random: next,
      onAttempt: () => {
        attempts += 1;
        wake();
      },
    });
    t.teardown(() => source.close());
    const attempted = (count: number): Promise<void> =>
      new Promise((resolve) => {
        wake = () => {
          if (attempts >= count) resolve();
        };
        wake();
      });
    const first = await source.ready();
    // While it is away: in force to its end, and not a moment longer.
    isAway = true;
    while (own.now() < first.expiresAtMs + hourMs / 4) {
      const before = attempts;
      advance(Math.ceil(next() * limits.reconnectPauseMaxMs * 30));
      await settled();
      if (under > 0) await attempted(before + 1);
      const current = source.current();
      if (current && current.expiresAtMs <= own.now()) t.fail(`used ${own.now() - current.expiresAtMs} ms after its end`);
      if (!current && own.now() < first.expiresAtMs) t.fail('given up before its end');
      if (next() < 0.2) source.renew();
      if (next() < 0.2) writeFileSync(join(dir, 'token'), `token-${attempts}`);
    }
    t.equal(source.current(), undefined);
    t.ok(attempts > 5, `${attempts} attempts`);
    t.equal(most, 1, 'one attempt at a time');
  },
);
