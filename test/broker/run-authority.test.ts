import { X509Certificate } from 'node:crypto';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import {
  issueServingIdentity,
  openTrustDomain,
  renewServingIdentity,
  type ServingIdentity,
  writeBundle,
} from '../../src/broker/authority.ts';
import type { StoredAuthority } from '../../src/broker/store.ts';
import { limits } from '../../src/core/limits.ts';
import { spiffeIdOf } from '../../src/pki/svid.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { createLogLines } from '../support/broker.ts';
import { directoryOf } from '../support/directory.ts';

const memoryStore = () => {
  let stored: StoredAuthority | undefined;
  let saves = 0;
  return {
    authority: async () => stored,
    saveAuthority: async (authority: StoredAuthority) => {
      stored = authority;
      saves += 1;
    },
    saves: () => saves,
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
  t.equal(first.authority.notAfterMs, clock.now() + 365 * 24 * 3_600_000);
  t.match(new X509Certificate(first.authority.certificateDer), { ca: true, subjectAltName: 'URI:spiffe://outrider.test' });
  clock.advance(364 * 24 * 3_600_000);
  const again = await open();
  t.strictSame(again.authority.certificateDer, first.authority.certificateDer);
  t.equal(store.saves(), 1);
  t.notMatch(lines.join(''), /PRIVATE KEY/);
});

await t.test('an expired authority is replaced, loudly', async (t) => {
  const { open, store, clock, lines } = rig();
  const first = await open();
  clock.advance(limits.trustDomainAuthorityLifetimeMs);
  const next = await open();
  t.notSame(next.authority.certificateDer, first.authority.certificateDer);
  t.equal(store.saves(), 2);
  t.match(lines.join(''), /"level":"warn".*has expired and is replaced/);
});

await t.test('the authority of another trust domain is not used', async (t) => {
  const { open, store } = rig();
  await open('outrider.test');
  await t.rejects(open('outrider.tes'), /authority of another trust domain \(URI:spiffe:\/\/outrider\.test\), not of outrider\.tes/);
  t.equal(store.saves(), 1);
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
  t.ok(certificate.verify(trustDomain.authority.key.publicKey));
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
  renewal.close();
  clock.advance(limits.serverCertificateLifetimeMs);
  t.equal(used.length, 2);
});
