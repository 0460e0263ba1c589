/**
 * Certificate requests, PKCS #10 (RFC 2986): how a workload proves that it holds the key it wants a certificate for. The names and
 * attributes in a request are ignored: who somebody is comes from evidence alone.
 */
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { Fault } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import { emptyName, signatureAlgorithm, signWith } from './certificate.ts';
import {
  bitString,
  bitsOf,
  DerError,
  type Element,
  elementsOf,
  expectTag,
  explicit,
  objectIdentifier,
  onlyElement,
  sequence,
  tags,
  tlv,
} from './der.ts';
import type { KeyPair } from './key.ts';

const version1 = tlv(tags.integer, Buffer.of(0));

export const createCertificateRequest = (key: KeyPair): Buffer => {
  const info = sequence(version1, emptyName, key.publicKey.export({ type: 'spki', format: 'der' }), explicit(0));
  return sequence(info, signatureAlgorithm, bitString(signWith(key, info)));
};

/** id-ecPublicKey on prime256v1 (RFC 5480 section 2.1.1). */
const p256 = sequence(objectIdentifier('1.2.840.10045.2.1'), objectIdentifier('1.2.840.10045.3.1.7'));
/** 0x04 and two coordinates. */
const uncompressedPointBytes = 65;

/** The key that signed the request. Anything else is the fault certificate_request_invalid. */
export const readCertificateRequest = (der: Buffer): KeyObject => {
  const refuse = (detail: string, cause?: unknown): Fault => new Fault('certificate_request_invalid', { detail, cause });
  if (der.length > limits.certificateRequestBytesMax) throw refuse('The request is too large.');
  try {
    const { info, publicKeyInfo, signature } = partsOf(der);
    const publicKey = publicKeyOf(publicKeyInfo);
    if (!verify('sha256', info, { key: publicKey, dsaEncoding: 'der' }, signature)) throw new DerError('its signature is wrong');
    return publicKey;
  } catch (error) {
    throw error instanceof DerError ? refuse(`The request is refused: ${error.message}.`, error) : error;
  }
};

const partsOf = (der: Buffer): { info: Buffer; publicKeyInfo: Element; signature: Buffer } => {
  const request = elementsOf(onlyElement(der, tags.sequence, 'the request').content);
  const info = expectTag(request[0], tags.sequence, 'the information');
  if (request.length !== 3 || request[1]?.whole.equals(signatureAlgorithm) !== true)
    throw new DerError('it is not signed by ecdsa-with-SHA256');
  const signature = bitsOf(expectTag(request[2], tags.bitString, 'the signature'));
  const [version, subject, publicKeyInfo, attributes, ...others] = elementsOf(info.content);
  if (version?.whole.equals(version1) !== true) throw new DerError('its version is not 1');
  expectTag(subject, tags.sequence, 'the subject');
  expectTag(attributes, 0xa0, 'the list of attributes');
  if (others.length > 0) throw new DerError('bytes follow the attributes');
  return { info: info.whole, publicKeyInfo: expectTag(publicKeyInfo, tags.sequence, 'the key'), signature };
};

const publicKeyOf = (info: Element): KeyObject => {
  const [algorithm, bits, ...others] = elementsOf(info.content);
  if (algorithm?.whole.equals(p256) !== true) throw new DerError('its key is not on P-256');
  const point = bitsOf(expectTag(bits, tags.bitString, 'the key'));
  if (others.length > 0 || point.length !== uncompressedPointBytes || point[0] !== 4)
    throw new DerError('its key is not an uncompressed point');
  try {
    return createPublicKey({ key: info.whole, format: 'der', type: 'spki' });
  } catch {
    throw new DerError('its key is not a point of the curve');
  }
};
