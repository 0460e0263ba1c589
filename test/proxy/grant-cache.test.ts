import fc from 'fast-check';
import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import type { Grant } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import { type CacheResult, createGrantCache, grantSchedule } from '../../src/proxy/grant/cache.ts';
import type { GrantKey } from '../../src/proxy/grant.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { bearer, grantOf, target } from '../support/path.ts';

const key: GrantKey = { workload: 'spiffe://outrider.test/ns/demo/sa/app', target: 'echo', configurationVersion: 'c1' };
const minute = 60_000;

const setUp = (
  answer: (call: number, key: GrantKey) => Promise<Grant> | Grant = () => grantOf(target('echo'), { lifetimeMs: 10 * minute }),
) => {
  const clock = createFakeClock();
  const lookups: CacheResult[] = [];
  const refreshes: ['ok' | Fault, string][] = [];
  let kept: readonly Grant[] = [];
  let calls = 0;
  const cache = createGrantCache({
    fetch: async (asked) => answer(++calls, asked),
    clock,
    random: () => 0.5,
    onLookup: (result) => lookups.push(result),
    onRefresh: (result, name) => refreshes.push([result, name]),
    onChange: (grants) => void (kept = grants),
  });
  return { clock, cache, lookups, refreshes, calls: () => calls, kept: () => kept.map(({ id }) => id) };
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
  t.same(refreshes, [['ok', 'echo']]);
});

t.test('an unused grant is not refreshed', async (t) => {
  const { clock, cache, calls } = setUp();
  await cache.get(key);
  clock.advance(60 * minute);
  await settled();
  t.equal(calls(), 1);
});

t.test('a grant that has expired is not kept, nor shown among those that are, though nobody asks for it', async (t) => {
  const { clock, cache, kept } = setUp((_call, { target: name }) =>
    grantOf(target(name), { id: name, lifetimeMs: name === 'long' ? 20 * minute : 10 * minute }),
  );
  for (const name of ['short', 'long', 'used']) await cache.get({ ...key, target: name });
  clock.advance(8 * minute);
  t.match(cache.get({ ...key, target: 'used' }), { id: 'used' });
  await settled();
  t.same(kept().toSorted(), ['long', 'short', 'used']);
  clock.advance(2 * minute);
  t.same(kept().toSorted(), ['long', 'used'], 'what was refreshed lives on');
  t.equal(cache.size(), 2);
  clock.advance(8 * minute);
  t.same(kept(), ['long']);
  clock.advance(2 * minute);
  t.same(kept(), []);
  t.equal(cache.size(), 0);
  t.equal(clock.waiting(), 0);
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

t.test('grants that are revoked while they are fetched, again and again, are not used either', async (t) => {
  const made = setUp((call) => {
    made.cache.revoke('echo', [`g${call}`]);
    return grantOf(target('echo'), { id: `g${call}` });
  });
  await t.rejects(Promise.resolve(made.cache.get(key)), { code: 'broker_error', detail: 'It revokes as fast as it grants.' });
  t.equal(made.calls(), 3);
  t.same(made.kept(), []);
});

t.test('each input of the decision has a place of its own in the cache', async (t) => {
  const { cache, calls } = setUp((_call, { target: name, configurationVersion }) => grantOf(target(name), { configurationVersion }));
  const keys = [key, { ...key, workload: `${key.workload}2` }, { ...key, target: 'other' }, { ...key, configurationVersion: 'c2' }];
  for (const one of keys) await cache.get(one);
  t.equal(calls(), keys.length);
  cache.keepOnly('c1');
  t.equal(cache.size(), 3);
});

/** A cache whose broker grants when the test says so, under the configuration that it then has. */
const lagging = () => {
  const gates: ((configurationVersion: string) => void)[] = [];
  const made = setUp(async (call) => {
    const configurationVersion = await new Promise<string>((resolve) => gates.push(resolve));
    return grantOf(target('echo'), { id: `g${call}`, lifetimeMs: 10 * minute, configurationVersion });
  });
  /** Waits until the broker is asked, and has it answer. */
  const answer = async (configurationVersion: string): Promise<void> => {
    while (gates.length === 0) await settled();
    gates.shift()?.(configurationVersion);
    await settled();
  };
  return { ...made, answer };
};
const [under1, under2] = [key, { ...key, configurationVersion: 'c2' }];

t.test(
  'a grant of the configuration before is not kept for the one after, whether it or the news of that configuration came first',
  async (t) => {
    for (const isNewsFirst of [true, false]) {
      const { cache, answer, calls } = lagging();
      cache.keepOnly('c2');
      const early = cache.get(under2);
      // Another broker is watched now, and asked: one that has not heard of the change yet.
      if (isNewsFirst) cache.keepOnly('c1');
      await answer('c1');
      if (!isNewsFirst) cache.keepOnly('c1');
      t.match(await early, { id: 'g1' }, 'it is what is in force there');
      cache.keepOnly('c2');
      const late = cache.get(under2);
      await answer('c2');
      t.match(await late, { id: 'g2' });
      t.match(cache.get(under2), { id: 'g2' });
      t.equal(calls(), 2);
    }
  },
);

t.test('a fetch that is overtaken by a change of the configuration brings nothing of before it', async (t) => {
  const { cache, answer, calls } = lagging();
  cache.keepOnly('c1');
  const overtaken = cache.get(under1);
  cache.keepOnly('c2');
  t.equal(cache.size(), 0, 'nobody else waits for it');
  await answer('c1');
  await answer('c2');
  t.match(await overtaken, { id: 'g2', configurationVersion: 'c2' });
  t.equal(cache.size(), 0);
  t.equal(calls(), 2);
});

t.test('a grant that is ahead of the news of its configuration waits for that', async (t) => {
  const { clock, cache, answer, calls } = lagging();
  cache.keepOnly('c1');
  const ahead = cache.get(under1);
  await answer('c2');
  clock.advance(limits.grantAgreementWaitMs - 1);
  cache.keepOnly('c2');
  t.match(await ahead, { id: 'g1', configurationVersion: 'c2' });
  t.equal(calls(), 1, 'it was not asked for again');
  t.equal(clock.waiting(), 0);
});

t.test('a broker whose grants are never of the configuration that it told of fails, in bounded time', async (t) => {
  const { clock, cache, answer, calls } = lagging();
  cache.keepOnly('c2');
  const failed = t.rejects(async () => cache.get(under2), { code: 'broker_error', detail: /configuration/ });
  for (let i = 0; i < 3; i += 1) {
    await answer('c1');
    clock.advance(limits.grantAgreementWaitMs);
    await settled();
  }
  await failed;
  t.throws(() => cache.get(under2), { code: 'broker_error' }, 'remembered briefly');
  t.equal(calls(), 3);
  clock.advance(limits.grantFailedCacheMs);
  const again = cache.get(under2);
  await answer('c2');
  t.match(await again, { id: 'g4' });
});

t.test('a refresh that is answered under another configuration changes nothing until that is in force', async (t) => {
  const { clock, cache, answer, refreshes } = lagging();
  cache.keepOnly('c1');
  const first = cache.get(under1);
  await answer('c1');
  await first;
  clock.advance(8 * minute);
  t.match(cache.get(under1), { id: 'g1' });
  for (let i = 0; i < 3; i += 1) {
    await answer('c2');
    t.match(cache.get(under1), { id: 'g1' });
    clock.advance(limits.grantAgreementWaitMs);
    await settled();
  }
  t.match(cache.get(under1), { id: 'g1' });
  t.match(refreshes, [[{ code: 'broker_error' }, 'echo']]);
});

/** A cache whose n-th grant has a credential of its own, or as `same` says. */
const renewing = (answer: (call: number, rejectedGrantId: string | undefined) => Promise<Grant> | Grant = (call) => credentialed(call)) => {
  const clock = createFakeClock();
  const asked: (string | undefined)[] = [];
  const cache = createGrantCache({
    fetch: async (_key, rejectedGrantId) => {
      asked.push(rejectedGrantId);
      return answer(asked.length, rejectedGrantId);
    },
    clock,
    random: () => 0.5,
  });
  return { clock, cache, asked };
};
const credentialed = (call: number, fingerprint = `f${call}`): Grant =>
  grantOf(target('echo'), { id: `g${call}`, lifetimeMs: 10 * minute, credentials: [{ ...bearer(`credential-${call}`), fingerprint }] });

t.test('a thousand refused credentials make one fetch, which names the grant that was refused, and all get what it brings', async (t) => {
  const { cache, asked } = renewing();
  const rejected = await cache.get(key);
  const renewed = await Promise.all(Array.from({ length: 1_000 }, async () => cache.renew(key, rejected)));
  t.same(asked, [undefined, 'g1']);
  t.same(new Set(renewed.map((grant) => grant?.id)), new Set(['g2']));
  t.match(cache.get(key), { id: 'g2' }, 'and later requests');
  t.match(await cache.renew(key, rejected), { id: 'g2' }, 'who is refused late gets what is there');
  t.equal(asked.length, 2);
});

t.test('a target that refuses every credential costs one fetch in an interval', async (t) => {
  const { clock, cache, asked } = renewing();
  let grant = await cache.get(key);
  grant = (await cache.renew(key, grant)) as Grant;
  for (let i = 0; i < 100; i += 1) t.equal(cache.renew(key, grant), undefined, 'at once');
  clock.advance(limits.grantRejectedIntervalMs - 1);
  t.equal(cache.renew(key, grant), undefined);
  clock.advance(1);
  t.match(await cache.renew(key, grant), { id: 'g3' });
  t.equal(asked.length, 3);
});

t.test('a grant with the same credential is no other', async (t) => {
  const { cache, asked } = renewing((call) => credentialed(call, 'same'));
  const rejected = await cache.get(key);
  t.equal(await cache.renew(key, rejected), undefined);
  t.equal(cache.renew(key, rejected), undefined);
  t.equal(asked.length, 2);
});

t.test('a renewal that fails leaves the grant, one that is denied takes it away', async (t) => {
  for (const code of ['broker_unavailable', 'policy_denied'] as const) {
    const { cache, asked } = renewing((call) => {
      if (call > 1) throw new Fault(code);
      return credentialed(call);
    });
    const rejected = await cache.get(key);
    await t.rejects(Promise.all([cache.renew(key, rejected), cache.renew(key, rejected)]), { code });
    t.equal(cache.renew(key, rejected), undefined, 'not again at once');
    if (code === 'broker_unavailable') t.match(cache.get(key), { id: 'g1' });
    else t.throws(() => cache.get(key), { code });
    t.equal(asked.length, 2);
  }
});

t.test('a renewal is not overtaken by an older refresh, and brings nothing back that was revoked meanwhile', async (t) => {
  const gates: ((grant: Grant) => void)[] = [];
  const { clock, cache, asked } = renewing((call) => (call === 1 ? credentialed(1) : new Promise((resolve) => gates.push(resolve))));
  const rejected = await cache.get(key);
  clock.advance(8 * minute);
  t.match(cache.get(key), { id: 'g1' });
  const renewal = cache.renew(key, rejected);
  t.same(asked, [undefined, undefined, 'g1'], 'the refresh under way may bring the refused credential');
  gates[1]?.(credentialed(3));
  t.match(await renewal, { id: 'g3' });
  gates[0]?.(credentialed(2, 'f1'));
  await settled();
  t.match(cache.get(key), { id: 'g3' });

  const second = renewing((call) => (call === 1 ? credentialed(1) : new Promise((resolve) => gates.push(resolve))));
  const first = await second.cache.get(key);
  const late = second.cache.renew(key, first);
  second.cache.revoke('echo', []);
  gates[2]?.(credentialed(2));
  await settled();
  gates[3]?.(credentialed(3));
  t.match(await late, { id: 'g3' }, 'the answer that may predate the revocation was dropped');
  t.equal(second.cache.size(), 0, 'and what was forgotten stays so');
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
