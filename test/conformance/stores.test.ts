/**
 * What every broker store does. Another store joins by a row in `stores`: how to open one that is empty, and how to open the
 * same one again.
 */
import { inspect } from 'node:util';
import t, { type Test } from 'tap';
import { type BrokerStore, type Lease, openStore, type StoredAuthority, type StoredKey } from '../../src/broker/store.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';

interface StoreForm {
  readonly name: string;
  /** Opens a new, empty store; the function opens it again. */
  readonly create: (t: Test) => () => Promise<BrokerStore>;
}

const stores: readonly StoreForm[] = [
  {
    name: 'sqlite',
    create: (t) => {
      const directory = t.testdir();
      return () => openStore(directory);
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
    const open = create(t);
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
    t.equal(await store.authority(), undefined);
    t.same(await store.signingKeys(), []);
    t.same(await store.leases(0), []);
    t.equal(await store.countLeases(0), 0);
    t.equal(await store.deleteExpiredLeases(now), 0);
    await t.resolves(store.deleteSigningKey('unknown'));
  });

  t.test(`${name}: the authority is there after a restart, and a new one replaces it`, async (t) => {
    const { store, reopen } = await opened(t);
    await store.saveAuthority({ certificatePem: 'first', privateKeyPem: new Secret('one') });
    await store.saveAuthority({ certificatePem: 'second', privateKeyPem: new Secret('two\nlines') });
    const found = await (await reopen()).authority();
    t.same(found && plain(found), { certificatePem: 'second', privateKeyPem: 'two\nlines' });
  });

  t.test(`${name}: signing keys come oldest first by when they sign, whole, after a restart`, async (t) => {
    const { store, reopen } = await opened(t);
    const keys = [key('b', now + 2), key('c', now + 3, { algorithm: 'RS256' }), key('a', now + 1)];
    for (const one of keys) await store.saveSigningKey(one);
    await store.deleteSigningKey('b');
    const found = await (await reopen()).signingKeys();
    t.same(
      found.map(plain),
      [keys[2], keys[1]].map((one) => plain(one as StoredKey)),
    );
  });

  t.test(`${name}: a kid that is there already is refused and the first stays`, async (t) => {
    const { store } = await opened(t);
    await store.saveSigningKey(key('a', now));
    await t.rejects(store.saveSigningKey(key('a', now + 1)));
    t.same((await store.signingKeys()).map(plain), [plain(key('a', now))]);
  });

  t.test(`${name}: a private key shows in no printer and in no error`, async (t) => {
    const { store } = await opened(t);
    await store.saveSigningKey(key('a', now));
    await store.saveAuthority({ certificatePem: 'public', privateKeyPem: new Secret(canary) });
    const errors = [
      await store.saveSigningKey(key('a', now)).catch((error: unknown) => error),
      await store.saveSigningKey(key('b', now, { algorithm: 'none' as 'ES256' })).catch((error: unknown) => error),
      await store.saveSigningKey(key('c', Number.NaN)).catch((error: unknown) => error),
    ];
    for (const value of [...errors, await store.signingKeys(), await store.authority()]) {
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

  t.test(`${name}: a lease is found by its grant, also after it has expired, until it is deleted`, async (t) => {
    const { store } = await opened(t);
    await store.saveLease(lease('one', { expiresAtMs: now }));
    await store.saveLease(lease('two'));
    t.same(await store.lease('one'), lease('one', { expiresAtMs: now }));
    for (const other of ['', 'ONE', 'on', "' OR ''='"]) t.equal(await store.lease(other), undefined, other);
    await store.deleteExpiredLeases(now);
    t.equal(await store.lease('one'), undefined);
    t.same(await store.lease('two'), lease('two'));
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
    await t.rejects(store.signingKeys());
  });
}
