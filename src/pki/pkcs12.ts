/**
 * A PKCS #12 trust store (RFC 7292): certificates that Java programs trust, and no key. Nothing in it is secret, so nothing in it
 * is encrypted, and the password is one that everybody knows.
 */
import { strict as assert } from 'node:assert';
import { createHmac, hash, randomBytes } from 'node:crypto';
import { explicit, objectIdentifier, octetString, sequence, setOf, tags, tlv, unsignedInteger } from './der.ts';

export interface TrustedCertificate {
  readonly der: Buffer;
  /** What the entry is called; Java compares aliases without case. */
  readonly alias: string;
}

/**
 * Java's own for its trust store, which programs and scripts assume. It protects nothing: the store is checked for damage with it,
 * and opens without it too, so that `javax.net.ssl.trustStore` alone is enough.
 */
export const trustStorePassword = 'changeit';

/** What OpenSSL writes. With a password that is no secret the number is of no use; some readers refuse a very small one. */
const macIterations = 2048;
const macSaltBytes = 20;

const id = {
  data: objectIdentifier('1.2.840.113549.1.7.1'),
  certificateBag: objectIdentifier('1.2.840.113549.1.12.10.1.3'),
  x509Certificate: objectIdentifier('1.2.840.113549.1.9.22.1'),
  friendlyName: objectIdentifier('1.2.840.113549.1.9.20'),
  /** Oracle's: without it Java takes the certificate for part of some key's chain, and trusts nothing. */
  trustedKeyUsage: objectIdentifier('2.16.840.1.113894.746875.1.1'),
  anyExtendedKeyUsage: objectIdentifier('2.5.29.37.0'),
  sha256: objectIdentifier('2.16.840.1.101.3.4.2.1'),
} as const;

export const createTrustStore = (certificates: readonly TrustedCertificate[], random: (size: number) => Buffer = randomBytes): Buffer => {
  const aliases = new Set(certificates.map(({ alias }) => alias.toLowerCase()));
  assert.equal(aliases.size, certificates.length, 'two entries of a trust store have one name');
  const bags = sequence(...certificates.map(bagOf));
  const safe = sequence(contentInfo(bags));
  return sequence(unsignedInteger(Buffer.of(3)), contentInfo(safe), macOf(safe, random(macSaltBytes)));
};

const contentInfo = (content: Buffer): Buffer => sequence(id.data, explicit(0, octetString(content)));

const bagOf = ({ der, alias }: TrustedCertificate): Buffer =>
  sequence(
    id.certificateBag,
    explicit(0, sequence(id.x509Certificate, explicit(0, octetString(der)))),
    setOf(sequence(id.friendlyName, setOf(tlv(tags.bmpString, utf16(alias)))), sequence(id.trustedKeyUsage, setOf(id.anyExtendedKeyUsage))),
  );

const utf16 = (text: string): Buffer => Buffer.from(text, 'utf16le').swap16();

const macOf = (safe: Buffer, salt: Buffer): Buffer => {
  const mac = createHmac('sha256', macKey(salt)).update(safe).digest();
  const iterations = Buffer.alloc(4);
  iterations.writeUInt32BE(macIterations);
  return sequence(sequence(sequence(id.sha256, tlv(tags.null)), octetString(mac)), octetString(salt), unsignedInteger(iterations));
};

/** RFC 7292 appendix B.2 for 32 octets with SHA-256, which are one round: the purpose (3, a MAC), salt and password, hashed over and over. */
const macKey = (salt: Buffer): Buffer => {
  const block = 64;
  const filling = (bytes: Buffer): Buffer => Buffer.alloc(Math.ceil(bytes.length / block) * block, bytes);
  let key: Buffer = Buffer.concat([Buffer.alloc(block, 3), filling(salt), filling(utf16(`${trustStorePassword}\0`))]);
  for (let round = 0; round < macIterations; round += 1) key = hash('sha256', key, 'buffer');
  return key;
};
