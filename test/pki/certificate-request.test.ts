import { Buffer } from 'node:buffer';
import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { emptyName, signatureAlgorithm } from '../../src/pki/certificate.ts';
import { createCertificateRequest, readCertificateRequest } from '../../src/pki/certificate-request.ts';
import { bitString, explicit, sequence, tags, tlv } from '../../src/pki/der.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { needs, run } from './external-program.ts';

const seed = Date.now() & 0x7fffffff;
t.comment(`seed ${seed}`);

const key = createKeyPair();
const spki = (publicKey: KeyObject): Buffer => publicKey.export({ type: 'spki', format: 'der' });
const version = tlv(tags.integer, Buffer.of(0));

/** A request put together by hand, sound unless told otherwise. */
const request = (o: { info?: Buffer; publicKeyInfo?: Buffer; signer?: KeyObject; algorithm?: Buffer; after?: Buffer } = {}): Buffer => {
  const info = o.info ?? sequence(version, emptyName, o.publicKeyInfo ?? spki(key.publicKey), explicit(0));
  const signature = sign('sha256', info, o.signer ?? key.privateKey);
  return sequence(info, o.algorithm ?? signatureAlgorithm, bitString(signature), o.after ?? Buffer.alloc(0));
};

t.test('a request yields the key that signed it', async (t) => {
  t.ok(readCertificateRequest(createCertificateRequest(key)).equals(key.publicKey));
  t.ok(readCertificateRequest(request()).equals(key.publicKey), 'the one by hand is sound');
});

t.test('openssl verifies our request', needs('openssl', 'version'), async (t) => {
  const dir = t.testdir({ 'request.der': createCertificateRequest(key) });
  const { ok, output } = run('openssl', ['req', '-inform', 'DER', '-in', join(dir, 'request.der'), '-verify', '-noout', '-text']);
  t.ok(ok, output);
  t.match(output, /verify OK/);
});

t.test('a request by openssl is accepted, names, attributes and all', needs('openssl', 'version'), async (t) => {
  const dir = t.testdir({ 'key.pem': key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string });
  const out = join(dir, 'request.der');
  const subject = ['-subj', '/CN=somebody/O=else', '-addext', 'subjectAltName=DNS:claimed.test'];
  const { ok, output } = run('openssl', [
    'req',
    '-new',
    '-sha256',
    '-key',
    join(dir, 'key.pem'),
    ...subject,
    '-outform',
    'DER',
    '-out',
    out,
  ]);
  t.ok(ok, output);
  t.ok(readCertificateRequest(readFileSync(out)).equals(key.publicKey));
});

t.test('every other request is refused as certificate_request_invalid', async (t) => {
  const sound = createCertificateRequest(key);
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const ed25519 = generateKeyPairSync('ed25519');
  const offCurve = Buffer.from(spki(key.publicKey));
  offCurve[offCurve.length - 1] = (offCurve.at(-1) as number) ^ 1;
  const compressed = Buffer.from(
    `3039301306072a8648ce3d020106082a8648ce3d030107032200${spki(key.publicKey).subarray(26, 59).toString('hex')}`,
    'hex',
  );
  const flipped = Buffer.from(sound);
  flipped[30] = (flipped[30] as number) ^ 1;
  const refused: Record<string, Buffer> = {
    'signed by another key': request({ signer: createKeyPair().privateKey }),
    'with a bit flipped': flipped,
    'with an RSA key': request({ publicKeyInfo: spki(rsa.publicKey), signer: rsa.privateKey }),
    'with a P-384 key': request({ publicKeyInfo: spki(p384.publicKey), signer: p384.privateKey }),
    'with an Ed25519 key': request({ publicKeyInfo: spki(ed25519.publicKey) }),
    'with a point off the curve': request({ publicKeyInfo: offCurve }),
    'with a compressed point': request({ publicKeyInfo: compressed }),
    'of another version': request({ info: sequence(tlv(tags.integer, Buffer.of(1)), emptyName, spki(key.publicKey), explicit(0)) }),
    'without attributes': request({ info: sequence(version, emptyName, spki(key.publicKey)) }),
    'with more in its information': request({ info: sequence(version, emptyName, spki(key.publicKey), explicit(0), version) }),
    'without a key': request({ info: sequence(version, emptyName) }),
    'that names another algorithm': request({ algorithm: sequence(tlv(tags.objectIdentifier, Buffer.from('2a8648ce3d040303', 'hex'))) }),
    'with an element too many': request({ after: version }),
    empty: Buffer.alloc(0),
    'followed by a byte': Buffer.concat([sound, Buffer.of(0)]),
    'with an indefinite length': Buffer.concat([Buffer.of(0x30, 0x80), sound.subarray(3), Buffer.of(0, 0)]),
    'over the limit': Buffer.concat([sound, Buffer.alloc(limits.certificateRequestBytesMax)]),
  };
  for (const [name, bytes] of Object.entries(refused)) {
    t.throws(() => readCertificateRequest(bytes), { name: 'Fault', code: 'certificate_request_invalid' }, name);
  }
  const accepted = sound.findIndex((_, length) => {
    try {
      return readCertificateRequest(sound.subarray(0, length)) !== undefined;
    } catch (error) {
      return !(error instanceof Fault && error.code === 'certificate_request_invalid');
    }
  });
  t.equal(accepted, -1, 'cut to any length');
});

t.test('no input makes the reader throw anything but the fault', async () => {
  const sound = createCertificateRequest(key);
  const mutated = fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 4 }).map((changes) => {
    const bytes = Buffer.from(sound);
    for (const [at, value] of changes) bytes[at] = value;
    return bytes;
  });
  const spliced = fc.tuple(fc.nat(sound.length), fc.nat(sound.length), fc.uint8Array({ maxLength: 20 })).map(([from, to, middle]) => {
    return Buffer.concat([sound.subarray(0, from), middle, sound.subarray(to)]);
  });
  const anything = fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.oneof(mutated, spliced, anything), (bytes) => {
      try {
        // Only the very bytes that were signed, or another spelling of the signature itself, may pass.
        return readCertificateRequest(bytes).equals(key.publicKey);
      } catch (error) {
        return error instanceof Fault && error.code === 'certificate_request_invalid';
      }
    }),
    { seed, numRuns: 5_000 },
  );
});
