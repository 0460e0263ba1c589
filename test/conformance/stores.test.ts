/**
 * What every broker store does. Another store joins by a row in `stores`: how to open one that is empty, and how to open the
 * same one again.
 */
import { join } from 'node:path';
import { inspect } from 'node:util';
import t, { type Test } from 'tap';
import {
  type BrokerStore,
  createSharedKeys,
  type Lease,
  openStore,
  type StoredAuthority,
  type StoredKey,
  withKeysFrom,
} from '../../src/broker/store.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { createApiServer } from '../../src/net/api-server.ts';
import { startObjectServer } from '../fakes/object-server.ts';

interface StoreForm {
  readonly name: string;
  /** Opens a new, empty store; the function opens it again, or, where several may be open, another one beside it. */
  readonly create: (t: Test) => Promise<() => Promise<BrokerStore>>;
}

const stores: readonly StoreForm[] = [
  {
    name: 'sqlite',
    create: async (t) => {
      const directory = t.testdir();
      return () => openStore(directory);
    },
  },
  {
    name: 'shared keys',
    create: async (t) => {
      const { url, caPem, bearer } = await startObjectServer(t);
      const directory = t.testdir({ 'ca.pem': caPem, token: bearer });
      const api = createApiServer({ url, caFile: join(directory, 'ca.pem'), tokenFile: join(directory, 'token') });
      return async () =>
        withKeysFrom(createSharedKeys(api, { namespace: 'outrider', secret: 'outrider-keys' }), await openStore(directory));
    },
  },
];

const canary = 'canary-private-key';
const now = 1_795_000_000_000;

const key = (kid: string, signsFromMs: number, rest: Partial<StoredKey> = {}): StoredKey => ({
  kid,
  algorithm: 'ES256',
  privateKeyPem: new Secret(`${canary} ${kid}`),
  publishedFromMs: signsFromMs - 1_000,
  signsFromMs,
  ...rest,
});

const authority = (certificatePem: string, signsFromMs: number): StoredAuthority => ({
  certificatePem,
  privateKeyPem: new Secret(`${canary}\n${certificatePem}`),
  signsFromMs,
});

const adding =
  <K>(...more: readonly K[]) =>
  async (keys: readonly K[]): Promise<readonly K[]> => [...keys, ...more];

const lease = (grantId: string, rest: Partial<Lease> = {}): Lease => ({
  grantId,
  workload: 'spiffe://outrider.test/ns/demo/sa/demo-app',
  target: 'echo',
  policy: 'demo',
  policyVersion: 'v1',
  rule: 'use-echo',
  createdAtMs: now,
  expiresAtMs: now + 60_000,
  ...rest,
});

const plain = ({ privateKeyPem, ...rest }: StoredKey | StoredAuthority) => ({ ...rest, privateKeyPem: privateKeyPem.reveal() });

for (const { name, create } of stores) {
  const opened = async (t: Test) => {
    const open = await create(t);
    let store = await open();
    t.teardown(() => store.close());
    const reopen = async (): Promise<BrokerStore> => {
      await store.close();
      store = await open();
      return store;
    };
    return { store, reopen };
  };

  t.test(`${name}: a new store is empty`, async (t) => {
    const { store } = await opened(t);
    t.same(await store.authorities(), []);
    t.same(await store.signingKeys(), []);
    t.same(await store.leases(0), []);
    t.equal(await store.countLeases(0), 0);
    t.equal(await store.deleteExpiredLeases(now), 0);
    t.match(store.name, /broker\.sqlite$|^Secret outrider\/outrider-keys$/, 'an operator knows it by its name');
  });

  t.test(`${name}: authorities come oldest first by when they sign, whole, after a restart`, async (t) => {
    const { store, reopen } = await opened(t);
    const [first, second, third] = [authority('c', now), authority('a', now + 1), authority('b', now + 2)];
    await store.changeAuthorities(adding(second));
    const there = await store.changeAuthorities(adding(third, first));
    t.same(there.map(plain), [first, second, third].map(plain), 'what is there then');
    await store.changeAuthorities(async (keys) => keys.slice(1));
    t.same((await (await reopen()).authorities()).map(plain), [second, third].map(plain));
  });

  t.test(`${name}: signing keys come oldest first by when they sign, whole, after a restart`, async (t) => {
    const { store, reopen } = await opened(t);
    const keys = [key('b', now + 2), key('c', now + 3, { algorithm: 'RS256' }), key('a', now + 1)];
    await store.changeSigningKeys(adding(...keys));
    await store.changeSigningKeys(async (stored) => stored.filter(({ kid }) => kid !== 'b'));
    await store.changeAuthorities(adding(authority('a', now)));
    const found = await (await reopen()).signingKeys();
    t.same(
      found.map(plain),
      [keys[2], keys[1]].map((one) => plain(one as StoredKey)),
    );
  });

  t.test(`${name}: whoever decides that nothing changes is told what is there, and changes at the same time all count`, async (t) => {
    const { store } = await opened(t);
    t.same(await store.changeSigningKeys(async () => undefined), []);
    await Promise.all(['a', 'b', 'c', 'd'].map((kid) => store.changeSigningKeys(adding(key(kid, now)))));
    const there = await store.changeSigningKeys(async () => undefined);
    t.same(
      there.map(({ kid }) => kid),
      ['a', 'b', 'c', 'd'],
    );
    t.same(there.map(plain), (await store.signingKeys()).map(plain));
  });

  t.test(`${name}: who cannot decide changes nothing, and does not stand in the way of the next`, async (t) => {
    const { store } = await opened(t);
    await t.rejects(
      store.changeSigningKeys(() => Promise.reject(new Error('no'))),
      { message: 'no' },
    );
    await store.changeSigningKeys(adding(key('a', now)));
    t.equal((await store.signingKeys()).length, 1);
  });

  t.test(`${name}: a key that is there already is refused and the first stays`, async (t) => {
    const { store } = await opened(t);
    await store.changeSigningKeys(adding(key('a', now)));
    await t.rejects(store.changeSigningKeys(adding(key('a', now + 1))));
    t.same((await store.signingKeys()).map(plain), [plain(key('a', now))]);
    await store.changeAuthorities(adding(authority('a', now)));
    await t.rejects(store.changeAuthorities(adding(authority('a', now + 1))));
    t.same((await store.authorities()).map(plain), [plain(authority('a', now))]);
  });

  t.test(`${name}: a private key shows in no printer and in no error`, async (t) => {
    const { store } = await opened(t);
    await store.changeSigningKeys(adding(key('a', now)));
    await store.changeAuthorities(adding(authority('public', now)));
    const errors = await Promise.all(
      [key('a', now), key('b', now, { algorithm: 'none' as 'ES256' }), key('c', Number.NaN)].map((wrong) =>
        store.changeSigningKeys(adding(wrong)).catch((error: unknown) => error),
      ),
    );
    for (const value of [...errors, await store.signingKeys(), await store.authorities()]) {
      t.ok(value);
      t.notMatch(inspect(value, { depth: 10, showHidden: true }), canary);
      t.notMatch(JSON.stringify(value), canary);
    }
    for (const error of errors) t.ok(error instanceof Error);
    t.equal((await store.signingKeys()).length, 1);
  });

  t.test(`${name}: leases end at their expiry, to the millisecond`, async (t) => {
    const { store, reopen } = await opened(t);
    await store.saveLease(lease('long', { createdAtMs: now + 2, expiresAtMs: now + 100 }));
    await store.saveLease(lease('short', { createdAtMs: now + 1, expiresAtMs: now + 50 }));
    t.same(await store.leases(now + 49), [
      lease('short', { createdAtMs: now + 1, expiresAtMs: now + 50 }),
      lease('long', { createdAtMs: now + 2, expiresAtMs: now + 100 }),
    ]);
    t.equal(await store.countLeases(now + 49), 2);
    t.equal(await store.countLeases(now + 50), 1);
    const again = await reopen();
    t.equal(await again.deleteExpiredLeases(now + 49), 0);
    t.equal(await again.deleteExpiredLeases(now + 50), 1);
    t.same(
      (await again.leases(0)).map(({ grantId }) => grantId),
      ['long'],
    );
  });

  t.test(`${name}: a lease of the same grant is refused`, async (t) => {
    const { store } = await opened(t);
    await store.saveLease(lease('one'));
    await t.rejects(store.saveLease(lease('one', { target: 'other' })));
    t.same(await store.leases(now), [lease('one')]);
  });

  t.test(`${name}: leases are found by workload, by target and by both`, async (t) => {
    const { store } = await opened(t);
    const other = 'spiffe://outrider.test/ns/demo/sa/other';
    await store.saveLease(lease('1'));
    await store.saveLease(lease('2', { workload: other, createdAtMs: now + 1 }));
    await store.saveLease(lease('3', { target: "o'ther; DROP TABLE lease", createdAtMs: now + 2 }));
    const ids = async (filter?: Parameters<BrokerStore['leases']>[1]) => (await store.leases(now, filter)).map(({ grantId }) => grantId);
    t.same(await ids(), ['1', '2', '3']);
    t.same(await ids({ workload: other }), ['2']);
    t.same(await ids({ target: 'echo' }), ['1', '2']);
    t.same(await ids({ target: 'echo', workload: other }), ['2']);
    t.same(await ids({ target: "o'ther; DROP TABLE lease" }), ['3']);
    t.same(await ids({ target: 'nowhere' }), []);
  });

  t.test(`${name}: a listing of leases is bounded, a count is not`, async (t) => {
    const { store } = await opened(t);
    const count = limits.leasesListMax + 1;
    for (let i = 0; i < count; i += 1) await store.saveLease(lease(String(i)));
    t.equal((await store.leases(now)).length, limits.leasesListMax);
    t.equal(await store.countLeases(now), count);
  });

  t.test(`${name}: closing twice is no error, and a closed store rejects`, async (t) => {
    const { store } = await opened(t);
    await store.close();
    await t.resolves(store.close());
    await t.rejects(store.leases(0));
  });
}
