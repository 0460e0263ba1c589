/** The roots of the system, read as text: the same ones that Node finds, whatever lies beside them. */
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { getCACertificates } from 'node:tls';
import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import { dersOf } from '../../src/pki/pem.ts';
import { readSystemRoots, textsIn } from '../../src/proxy/listener/interception/system-roots.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';

const fingerprints = (pems: readonly string[]): string[] =>
  [...new Set(pems.flatMap(dersOf).map((der) => new X509Certificate(der).fingerprint256))].toSorted();

t.test('they are the ones that Node finds', { skip: process.platform !== 'linux' && 'the places are those of Linux' }, async (t) => {
  t.same(fingerprints(readSystemRoots()), fingerprints(getCACertificates('system')));
});

t.test('each file is read once, and what is none of them is passed over', async (t) => {
  const [first, second] = [createTestAuthority('first'), createTestAuthority('second')];
  const directory = join(directoryOf(t), 'certs');
  mkdirSync(join(directory, 'below'), { recursive: true });
  const at = (name: string): string => join(directory, name);
  writeFileSync(at('first.pem'), first.pem);
  symlinkSync('first.pem', at('0a1b2c3d.0'));
  symlinkSync('nowhere', at('dangling.0'));
  writeFileSync(at('README'), 'no certificate');
  writeFileSync(at('binary.der'), Buffer.from([0x30, 0x82, 0xff]));
  writeFileSync(at('huge.pem'), first.pem + ' '.repeat(limits.trustFileBytesMax));
  writeFileSync(at('below/third.pem'), createTestAuthority('third').pem);
  writeFileSync(at('closed.pem'), 'closed');
  chmodSync(at('closed.pem'), 0o000);
  const file = join(directory, '..', 'bundle.pem');
  writeFileSync(file, `# a comment\n${second.pem}`);
  const texts = textsIn({ file, directory });
  t.equal(texts.length, 2);
  t.same(fingerprints(texts), fingerprints([first.pem, second.pem]));
  t.same(textsIn({ file: at('missing'), directory: at('missing') }), []);
});
