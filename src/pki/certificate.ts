/**
 * X.509 v3 certificates (RFC 5280), P-256 and ecdsa-with-SHA256 only: signing one from its parts, and reading the parts that
 * this project asks of one. Verification is OpenSSL's (node:tls), never ours.
 */
import { type KeyObject, randomBytes, sign } from 'node:crypto';
import {
  bitString,
  DerError,
  type Element,
  elementsOf,
  expectTag,
  explicit,
  objectIdentifier,
  onlyElement,
  sequence,
  tags,
  time,
  tlv,
  unsignedInteger,
} from './der.ts';
import { extensionIds } from './extension.ts';
import type { KeyPair } from './key.ts';

/** ecdsa-with-SHA256, without parameters (RFC 5758 section 3.2). */
export const signatureAlgorithm = sequence(objectIdentifier('1.2.840.10045.4.3.2'));

export const emptyName = sequence();

/** At most 64 characters (RFC 5280 appendix A.1, ub-common-name); the rest is cut. */
export const commonName = (value: string): Buffer =>
  sequence(tlv(tags.set, sequence(objectIdentifier('2.5.4.3'), tlv(tags.utf8String, Buffer.from(value.slice(0, 64))))));

/**
 * 16 octets, 126 of the bits random. The first octet is 0x40 to 0x7f: positive and in its shortest form whatever comes out, which
 * the first zero or high bit of plain random octets is not, once in some hundred certificates.
 */
export const createSerial = (random: (size: number) => Buffer = randomBytes): Buffer => {
  const serial = random(16);
  serial[0] = ((serial[0] as number) & 0x3f) | 0x40;
  return serial;
};

export const signWith = (key: KeyPair, bytes: Buffer): Buffer => sign('sha256', bytes, { key: key.privateKey, dsaEncoding: 'der' });

export interface CertificateParts {
  /** DER names. */
  readonly issuer: Buffer;
  readonly subject: Buffer;
  readonly publicKey: KeyObject;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly extensions: readonly Buffer[];
}

export const signCertificate = (parts: CertificateParts, signer: KeyPair): Buffer => {
  const version3 = explicit(0, tlv(tags.integer, Buffer.of(2)));
  const toBeSigned = sequence(
    version3,
    unsignedInteger(createSerial()),
    signatureAlgorithm,
    parts.issuer,
    sequence(time(parts.notBeforeMs), time(parts.notAfterMs)),
    parts.subject,
    parts.publicKey.export({ type: 'spki', format: 'der' }),
    explicit(3, sequence(...parts.extensions)),
  );
  return sequence(toBeSigned, signatureAlgorithm, bitString(signWith(signer, toBeSigned)));
};

export interface CertificateView {
  /** DER name. */
  readonly subject: Buffer;
  /** The value of an extension that is there. */
  readonly extension: (id: keyof typeof extensionIds) => Buffer | undefined;
}

/** Of a certificate that has been verified or is our own. Throws DerError. */
export const readCertificate = (der: Buffer): CertificateView => {
  const certificate = onlyElement(der, tags.sequence, 'the certificate');
  const toBeSigned = elementsOf(expectTag(elementsOf(certificate.content)[0], tags.sequence, 'the certificate').content);
  expectTag(toBeSigned[0], 0xa0, 'version 3');
  const subject = expectTag(toBeSigned[5], tags.sequence, 'the subject').whole;
  const wrapper = toBeSigned.find(({ tag }) => tag === 0xa3);
  const list = wrapper === undefined ? [] : elementsOf(onlyElement(wrapper.content, tags.sequence, 'the extensions').content);
  const extensions = new Map<string, Buffer>(list.map(readExtension));
  if (extensions.size !== list.length) throw new DerError('an extension is there twice');
  return { subject, extension: (id) => extensions.get(objectIdentifier(extensionIds[id]).toString('hex')) };
};

const readExtension = (element: Element): [id: string, value: Buffer] => {
  const parts = elementsOf(expectTag(element, tags.sequence, 'an extension').content);
  const id = expectTag(parts[0], tags.objectIdentifier, 'the id of an extension').whole.toString('hex');
  return [id, expectTag(parts.at(-1), tags.octetString, 'the value of an extension').content];
};
