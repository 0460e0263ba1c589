import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { createAuthority } from '../../src/pki/authority.ts';
import { octetString, setOf } from '../../src/pki/der.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { dersOf } from '../../src/pki/pem.ts';
import { createTrustStore, type TrustedCertificate, trustStorePassword } from '../../src/pki/pkcs12.ts';
import { directoryOf } from '../support/directory.ts';
import { needs, run } from './external-program.ts';

const certificate = (alias: string): TrustedCertificate => ({
  alias,
  der: createAuthority({ commonName: alias, key: createKeyPair(), nowMs: Date.now(), lifetimeMs: 3_600_000 }).certificateDer,
});
/** Enough for lengths of three octets. */
const certificates = [
  'plain',
  'with spaces, commas = and "quotes"',
  'ümlaut 漢字',
  ...Array.from({ length: 200 }, (_, i) => `root ${i}`),
].map(certificate);

t.test('keytool lists every certificate as one that is trusted, by its name', needs('keytool', '-help'), async (t) => {
  const file = join(directoryOf(t), 'store.p12');
  writeFileSync(file, createTrustStore(certificates));
  const list = (...more: string[]): ReturnType<typeof run> =>
    run('keytool', ['-J-Dfile.encoding=UTF-8', '-J-Dstdout.encoding=UTF-8', '-list', '-keystore', file, '-storepass', ...more]);
  const { ok, output } = list(trustStorePassword);
  t.ok(ok, output);
  t.equal(output.match(/trustedCertEntry/g)?.length, certificates.length);
  t.match(output, `${certificates.length} entries`);
  t.match(output, 'with spaces, commas = and "quotes", ');
  t.match(list(trustStorePassword, '-alias', 'ROOT 7', '-rfc').output, 'BEGIN CERTIFICATE');
  const pem = list(trustStorePassword, '-rfc').output;
  t.strictSame(
    new Set(dersOf(pem).map((der) => der.toString('base64'))),
    new Set(certificates.map(({ der }) => der.toString('base64'))),
    'they are what was put in',
  );
  t.match(list('another one'), { ok: false, output: /password was incorrect|integrity/i });
});

t.test('a store that was changed on the way is refused', needs('keytool', '-help'), async (t) => {
  const file = join(directoryOf(t), 'store.p12');
  const store = createTrustStore(certificates.slice(0, 2));
  const inCertificate = store.indexOf(certificates[1]?.der as Buffer) + 200;
  store[inCertificate] = (store[inCertificate] as number) ^ 1;
  writeFileSync(file, store);
  t.match(run('keytool', ['-list', '-keystore', file, '-storepass', trustStorePassword]), { ok: false, output: /integrity/i });
});

t.test('openssl reads it and finds its check right', needs('openssl', 'version'), async (t) => {
  const file = join(directoryOf(t), 'store.p12');
  writeFileSync(file, createTrustStore(certificates));
  const read = (password: string): ReturnType<typeof run> =>
    run('openssl', ['pkcs12', '-info', '-nokeys', '-in', file, '-passin', `pass:${password}`]);
  const { ok, output } = read(trustStorePassword);
  t.ok(ok);
  t.match(output, /MAC: sha256, Iteration 2048/);
  t.equal(dersOf(output).length, certificates.length);
  t.match(output, 'friendlyName: root 199');
  t.match(read('another one'), { ok: false, output: /Mac verify error/ });
});

t.test('two certificates under one name, as Java reads names, are never written', async (t) => {
  t.throws(() => createTrustStore([certificate('Root'), certificate('root')]), /one name/);
  t.ok(createTrustStore([]).length > 0, 'an empty store is one');
});

t.test('the parts of a set stand in the order of their bytes, whatever order they are given in', async (t) => {
  const parts = [octetString(Buffer.of(2)), octetString(Buffer.of(1, 0)), octetString(Buffer.of(1))];
  t.equal(setOf(...parts).toString('hex'), '310a04010104010204020100');
  t.ok(setOf(...parts.toReversed()).equals(setOf(...parts)));
});
