/** Client certificates as the world's tools write them. */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { readClientCertificate } from '../../src/pki/client-certificate.ts';
import { directoryOf } from '../support/directory.ts';
import { needs, run } from './external-program.ts';

const kinds: Readonly<Record<string, readonly string[]>> = {
  'RSA, PKCS #8': ['-newkey', 'rsa:2048'],
  'P-256': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'],
  'P-384': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:secp384r1'],
  Ed25519: ['-newkey', 'ed25519'],
};

for (const [kind, args] of Object.entries(kinds)) {
  t.test(
    `${kind}: a key and a certificate that OpenSSL made are taken, whatever stands beside them`,
    needs('openssl', 'version'),
    async (t) => {
      const directory = directoryOf(t);
      const at = (name: string): string => join(directory, name);
      const made = run('openssl', [
        'req',
        '-x509',
        ...args,
        '-nodes',
        '-days',
        '2',
        '-subj',
        '/CN=client',
        '-keyout',
        at('key'),
        '-out',
        at('leaf'),
      ]);
      t.match(made, { ok: true });
      const [leaf, key] = [readFileSync(at('leaf'), 'utf8'), readFileSync(at('key'), 'utf8')];
      const plain = readClientCertificate(leaf + key);
      t.ok(new X509Certificate(plain.pem).raw.equals(new X509Certificate(leaf).raw));
      t.equal(readClientCertificate(`${key}\n# a comment\n${run('openssl', ['x509', '-text', '-in', at('leaf')]).output}`).pem, plain.pem);
      t.equal(plain.notAfterMs, new X509Certificate(leaf).validToDate.getTime());
      t.ok(plain.notBeforeMs <= Date.now());
      // The older form of the key, with what OpenSSL writes before one on a curve.
      const older = kind.startsWith('RSA') ? ['rsa', '-traditional'] : ['ec', '-param_enc', 'named_curve'];
      if (kind === 'Ed25519') return;
      const traditional = run('openssl', [...older, '-in', at('key')]);
      t.match(traditional, { ok: true });
      t.equal(readClientCertificate(leaf + traditional.output).pem, plain.pem, 'one spelling for both forms');
    },
  );
}
