import fc from 'fast-check';
import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import type { Grant } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import { type CacheResult, createGrantCache, grantSchedule } from '../../src/proxy/grant/cache.ts';
import type { GrantKey } from '../../src/proxy/grant.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { grantOf, target } from '../support/path.ts';

const key: GrantKey = { workload: 'spiffe://outrider.test/ns/demo/sa/app', target: 'echo', configurationVersion: 'c1' };
const minute = 60_000;

const setUp = (
  answer: (call: number, key: GrantKey) => Promise<Grant> | Grant = () => grantOf(target('echo'), { lifetimeMs: 10 * minute }),
) => {
  const clock = createFakeClock();
  const lookups: CacheResult[] = [];
  const refreshes: ('ok' | Fault)[] = [];
  let calls = 0;
  const cache = createGrantCache({
    fetch: async (asked) => answer(++calls, asked),
    clock,
    random: () => 0.5,
    onLookup: (result) => lookups.push(result),
    onRefresh: (result) => refreshes.push(result),
  });
  return { clock, cache, lookups, refreshes, calls: () => calls };
};
const settled = (): Promise<void> => new Promise(setImmediate);

t.test('a thousand cold requests for one target make one fetch, a warm one none', async (t) => {
  const { cache, calls, lookups } = setUp();
  const grants = await Promise.all(Array.from({ length: 1_000 }, async () => cache.get(key)));
  t.equal(calls(), 1);
  t.equal(new Set(grants).size, 1);
  t.notOk(cache.get(key) instanceof Promise, 'warm: at once, without a promise');
  t.equal(calls(), 1);
  t.same(
    [lookups.filter((one) => one === 'miss').length, lookups.filter((one) => one === 'joined').length, lookups.at(-1)],
    [1, 999, 'hit'],
  );
});

t.test('a grant is refreshed ahead of expiry while it is used, and the old one serves meanwhile', async (t) => {
  const { clock, cache, calls, refreshes } = setUp((call) => grantOf(target('echo'), { id: `g${call}`, lifetimeMs: 10 * minute }));
  await cache.get(key);
  clock.advance(7 * minute);
  t.match(cache.get(key), { id: 'g1' });
  t.equal(calls(), 1, 'before 75 % of its life nothing is fetched');
  clock.advance(0.6 * minute);
  for (let i = 0; i < 10; i += 1) t.match(cache.get(key), { id: 'g1' }, 'no request waits for the refresh');
  await settled();
  t.match(cache.get(key), { id: 'g2' });
  t.equal(calls(), 2);
  t.same(refreshes, ['ok']);
});

t.test('an unused grant is not refreshed', async (t) => {
  const { clock, cache, calls } = setUp();
  await cache.get(key);
  clock.advance(60 * minute);
  await settled();
  t.equal(calls(), 1);
});

t.test('a failed refresh keeps the grant until it expires, then the failure is what requests get', async (t) => {
  const { clock, cache, calls } = setUp((call) => {
    if (call > 1) throw new Fault('broker_unavailable');
    return grantOf(target('echo'), { id: 'g1', lifetimeMs: 10 * minute });
  });
  await cache.get(key);
  clock.advance(8 * minute);
  t.match(cache.get(key), { id: 'g1' });
  await settled();
  t.match(cache.get(key), { id: 'g1' });
  t.equal(calls(), 2, 'not tried again at once');
  clock.advance(5_000);
  t.match(cache.get(key), { target: 'echo' });
  await settled();
  t.equal(calls(), 3, 'but after a pause');
  clock.advance(3 * minute);
  await t.rejects(async () => cache.get(key), { code: 'broker_unavailable' });
});

t.test('a refresh that is denied takes the grant away', async (t) => {
  const { clock, cache } = setUp((call) => {
    if (call > 1) throw new Fault('policy_denied');
    return grantOf(target('echo'), { lifetimeMs: 10 * minute });
  });
  await cache.get(key);
  clock.advance(8 * minute);
  t.match(cache.get(key), { target: 'echo' });
  await settled();
  await t.rejects(async () => cache.get(key), { code: 'policy_denied' });
});

t.test('refusals and failures are remembered briefly', async (t) => {
  for (const [code, ms, result] of [
    ['policy_denied', limits.grantDeniedCacheMs, 'denied'],
    ['broker_unavailable', limits.grantFailedCacheMs, 'failed'],
  ] as const) {
    const { clock, cache, calls, lookups } = setUp(() => {
      throw new Fault(code);
    });
    await t.rejects(Promise.all([cache.get(key), cache.get(key)]), { code });
    clock.advance(ms - 1);
    t.throws(() => cache.get(key), { code });
    t.equal(lookups.at(-1), result);
    t.equal(calls(), 1);
    clock.advance(1);
    await t.rejects(async () => cache.get(key), { code });
    t.equal(calls(), 2);
  }
});

t.test('a revoked grant is not used again, nor one whose fetch began before', async (t) => {
  const gates: (() => void)[] = [];
  const { cache, calls } = setUp(async (call) => {
    await new Promise<void>((resolve) => gates.push(resolve));
    return grantOf(target('echo'), { id: `g${call}` });
  });
  const open = async (): Promise<void> => {
    while (gates.length === 0) await settled();
    gates.shift()?.();
  };
  const first = cache.get(key);
  while (gates.length === 0) await settled();
  cache.revoke('echo', []);
  await open();
  await open();
  t.match(await first, { id: 'g2' }, 'the answer that may predate the revocation was dropped');
  cache.revoke('echo', ['other']);
  t.match(cache.get(key), { id: 'g2' });
  cache.revoke('echo', ['g2']);
  const again = cache.get(key);
  await open();
  t.match(await again, { id: 'g3' });
  t.equal(calls(), 3);
});

t.test('each input of the decision has a place of its own in the cache', async (t) => {
  const { cache, calls } = setUp((_call, asked) => grantOf(target(asked.target)));
  const keys = [key, { ...key, workload: `${key.workload}2` }, { ...key, target: 'other' }, { ...key, configurationVersion: 'c2' }];
  for (const one of keys) await cache.get(one);
  t.equal(calls(), keys.length);
  cache.keepOnly('c1');
  t.equal(cache.size(), 3);
});

t.test('the cache is bounded', async (t) => {
  const { cache } = setUp();
  for (let i = 0; i < limits.grantCacheMax + 50; i += 1) await cache.get({ ...key, target: `t${i}` });
  t.equal(cache.size(), limits.grantCacheMax);
});

t.test('a schedule refreshes before it expires and expires before the credential, for any life', async (t) => {
  const seed = Date.now();
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 1e9 }),
      fc.integer({ min: -1000, max: 1e8 }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (at, life, random) => {
        const { refreshAt, expiresAt } = grantSchedule(at, life, random);
        return refreshAt <= expiresAt && expiresAt <= at + Math.max(life, 0) && expiresAt <= at + limits.grantLifetimeMaxMs;
      },
    ),
    { seed, numRuns: 5_000 },
  );
});
