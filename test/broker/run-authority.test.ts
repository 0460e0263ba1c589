import { X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import t from 'tap';
import {
  issueServingIdentity,
  openTrustDomain,
  renewServingIdentity,
  type ServingIdentity,
  writeBundle,
} from '../../src/broker/authority.ts';
import type { Decide, StoredAuthority } from '../../src/broker/store.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { spiffeIdOf } from '../../src/pki/svid.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { createLogLines } from '../support/broker.ts';
import { needs, run } from '../pki/external-program.ts';
import { directoryOf } from '../support/directory.ts';

const day = 24 * 3_600_000;

const memoryStore = () => {
  let stored: readonly StoredAuthority[] = [];
  let changes = 0;
  return {
    name: 'the memory',
    changeAuthorities: async (decide: Decide<StoredAuthority>) => {
      const next = await decide(stored);
      if (next !== undefined) changes += 1;
      return (stored = next ?? stored);
    },
    changes: () => changes,
    spoil: (change: (authority: StoredAuthority) => StoredAuthority) => (stored = stored.map(change)),
  };
};

const rig = () => {
  const clock = createFakeClock(Math.floor(Date.now() / 1000) * 1000);
  const { log, lines } = createLogLines();
  const store = memoryStore();
  return { clock, log, lines, store, open: (name = 'outrider.test') => openTrustDomain({ name, store, clock, log }) };
};

await t.test('the authority is made once, for a year, and kept', async (t) => {
  const { open, store, clock, lines } = rig();
  const first = await open();
  t.equal(first.authority().notAfterMs, clock.now() + 365 * day);
  t.match(new X509Certificate(first.authority().certificateDer), { ca: true, subjectAltName: 'URI:spiffe://outrider.test' });
  clock.advance(182 * day);
  const again = await open();
  t.strictSame(again.authority().certificateDer, first.authority().certificateDer);
  t.equal(store.changes(), 1);
  t.notMatch(lines.join(''), /PRIVATE KEY/);
});

await t.test('a successor is published at half of its life, signs thirty days later, and the old one stays until it expires', async (t) => {
  const { open, clock, lines } = rig();
  const trustDomain = await open();
  const [first] = trustDomain.bundle();
  const wake = async (): Promise<void> => {
    clock.advance(trustDomain.nextRotationMs() - clock.now());
    await trustDomain.rotate();
  };
  const begin = clock.now();
  await wake();
  t.equal(clock.now(), begin + 182.5 * day);
  t.equal(trustDomain.bundle().length, 2);
  t.strictSame(trustDomain.authority().certificateDer, first, 'published, and not signing');
  await wake();
  t.equal(clock.now(), begin + 212.5 * day);
  const second = trustDomain.authority().certificateDer;
  t.notSame(second, first);
  t.strictSame(trustDomain.bundle(), [first, second]);
  t.equal(trustDomain.bundlePem().match(/BEGIN CERTIFICATE/g)?.length, 2);
  await wake();
  t.equal(clock.now(), begin + 365 * day);
  t.strictSame(trustDomain.bundle()[0], second, 'the first is gone');
  t.equal(trustDomain.bundle().length, 2, 'and the third is announced');
  t.notMatch(lines.join(''), /"level":"(?:warn|error)"/);
});

await t.test(
  'OpenSSL takes certificates of either authority by the whole bundle, in which both have one name',
  needs('openssl', 'version'),
  async (t) => {
    const { open, clock } = rig();
    const trustDomain = await open();
    const issue = () => ({
      pem: issueServingIdentity({ trustDomain, hosts: ['localhost'], clock }).certificateChainPem,
      atMs: clock.now(),
    });
    const before = issue();
    clock.advance(182.5 * day);
    await trustDomain.rotate();
    clock.advance(30 * day);
    const authorities = trustDomain.bundle().map((der) => new X509Certificate(der));
    t.equal(new Set(authorities.map(({ subject }) => subject)).size, 1);
    const [oldPem = '', newPem = ''] = authorities.map(String);
    const bundles = { old: oldPem, new: newPem, both: trustDomain.bundlePem(), turned: newPem + oldPem };
    for (const [issued, own] of [
      [before, 'old'],
      [issue(), 'new'],
    ] as const) {
      const directory = directoryOf(t, { ...bundles, leaf: issued.pem });
      const at = String(Math.floor(issued.atMs / 1000) + 60);
      const judged = Object.keys(bundles).filter(
        (bundle) =>
          run('openssl', ['verify', '-x509_strict', '-attime', at, '-CAfile', join(directory, bundle), join(directory, 'leaf')]).ok,
      );
      t.strictSame(judged, [own, 'both', 'turned']);
    }
  },
);

await t.test(
  'what several brokers derive from the authority is the same, goes on over a change of authority, and differs by purpose',
  async (t) => {
    const { open, clock } = rig();
    const [one, other] = [await open(), await open()];
    const [key] = one.derivedKeys('grant ids');
    t.strictSame(other.derivedKeys('grant ids'), [key]);
    t.notSame(other.derivedKeys('fingerprints'), [key]);
    clock.advance(182.5 * day);
    for (const each of [one, other]) await each.rotate();
    t.strictSame(one.derivedKeys('grant ids')[0], key);
    clock.advance(30 * day);
    t.notSame(one.derivedKeys('grant ids')[0], key);
    t.strictSame(one.derivedKeys('grant ids')[1], key);
    t.strictSame(other.derivedKeys('grant ids'), one.derivedKeys('grant ids'));
  },
);

await t.test('an authority that expired while nobody ran is replaced, loudly where somebody has used it', async (t) => {
  const { open, store, clock, lines } = rig();
  const first = await open();
  clock.advance(limits.trustDomainAuthorityLifetimeMs);
  const next = await open();
  t.notSame(next.authority().certificateDer, first.authority().certificateDer);
  t.equal(next.bundle().length, 1);
  t.equal(store.changes(), 2);
  t.match(lines.join(''), /"level":"warn".*has expired and is replaced/);
});

await t.test('the authority of another trust domain is not used, nor one that cannot be read', async (t) => {
  const { open, store } = rig();
  await open('outrider.test');
  const message = /the memory holds the authority of another trust domain \(URI:spiffe:\/\/outrider\.test\), not of outrider\.tes/;
  await t.rejects(open('outrider.tes'), { name: 'StoreError', message });
  t.equal(store.changes(), 1);
  store.spoil((authority) => ({ ...authority, privateKeyPem: new Secret('canary') }));
  const error: unknown = await open().catch((thrown: unknown) => thrown);
  t.match(error, { name: 'StoreError', message: 'An authority in the memory cannot be read: restore it from a copy.' });
  t.notMatch(inspect(error, { depth: 10 }), 'canary');
});

await t.test('a bundle is replaced whole, readable by all, with nothing left beside it', (t) => {
  const directory = directoryOf(t);
  const file = join(directory, 'deeper', 'ca.pem');
  const umask = process.umask(0o077);
  t.teardown(() => process.umask(umask));
  writeBundle(file, 'first');
  writeBundle(file, 'second');
  t.equal(readFileSync(file, 'utf8'), 'second');
  t.equal(statSync(file).mode & 0o777, 0o644);
  t.strictSame(readdirSync(join(directory, 'deeper')), ['ca.pem']);
  t.end();
});

await t.test("the broker's certificate has its SPIFFE ID and its names, and is signed by the authority", async (t) => {
  const { open, clock } = rig();
  const trustDomain = await open();
  const identity = issueServingIdentity({ trustDomain, hosts: ['broker.outrider.svc', '127.0.0.1'], clock });
  const certificate = new X509Certificate(identity.certificateChainPem);
  t.equal(spiffeIdOf(certificate.raw), 'spiffe://outrider.test/outrider/broker');
  t.ok(certificate.checkHost('broker.outrider.svc'));
  t.ok(certificate.checkIP('127.0.0.1'));
  t.ok(certificate.verify(trustDomain.authority().key.publicKey));
  t.ok(certificate.checkPrivateKey(identity.key.privateKey));
});

await t.test('renewal comes at half of each life, goes on after a failure, and ends when closed', async (t) => {
  const { open, clock, log, lines } = rig();
  const serving = { trustDomain: await open(), hosts: ['localhost'], clock };
  const used: ServingIdentity[] = [];
  let isFailing = false;
  const renewal = renewServingIdentity({ ...serving, current: issueServingIdentity(serving), log }, (identity) => {
    if (isFailing) throw new Error('not now');
    used.push(identity);
  });
  const halfMs = limits.serverCertificateLifetimeMs / 2;
  clock.advance(halfMs - 1);
  t.equal(used.length, 0);
  clock.advance(1);
  t.equal(used.length, 1);
  t.equal(used[0]?.notAfterMs, clock.now() + limits.serverCertificateLifetimeMs);
  isFailing = true;
  clock.advance(halfMs);
  t.match(lines.join(''), /could not be renewed/);
  isFailing = false;
  clock.advance(halfMs / 2);
  t.equal(used.length, 2, 'tried again at half of what remained');
  renewal.renew();
  t.equal(used.length, 3, 'and at once when it is asked');
  clock.advance(halfMs);
  t.equal(used.length, 4, 'from where half a life is counted');
  renewal.close();
  clock.advance(limits.serverCertificateLifetimeMs);
  t.equal(used.length, 4);
});
