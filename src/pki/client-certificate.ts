/**
 * Client certificates as credentials: one PEM text with the certificate chain, leaf first, and the leaf's private key. Read where one
 * is received, so that what is wrong with it is said there and not by a handshake that fails later. Whether a target takes it is
 * the target's to say.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import type { KeyPair } from './key.ts';
import { dersOf, pemOf } from './pem.ts';

export interface ClientCertificate {
  /** The chain and the key, and nothing else that stood beside them. */
  readonly pem: string;
  /** Of the leaf. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** Its message completes "the value …" and holds nothing of the value. */
export class ClientCertificateError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ClientCertificateError';
  }
}

/** Encrypted ones too, whose headers have hyphens (RFC 1421 section 4.6): so that they can be told from none. */
const keyBlock = /-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----[^]*?-----END \1-----/g;

/** Throws ClientCertificateError. */
export const readClientCertificate = (pem: string): ClientCertificate => {
  const chain = chainOf(pem);
  const leaf = chain[0] as X509Certificate;
  const key = keyOf(pem);
  if (!leaf.checkPrivateKey(key)) throw new ClientCertificateError('has a private key that is not that of its first certificate');
  const chainPem = chain.map(({ raw }) => pemOf(raw)).join('');
  const keyPem = key.export({ type: 'pkcs8', format: 'pem' }) as string;
  try {
    // What TLS itself refuses: keys that are too short, signatures by broken hashes.
    createSecureContext({ cert: chainPem, key: keyPem, ca: [] });
  } catch (cause) {
    throw new ClientCertificateError('has a certificate or a key that is too weak for TLS', { cause });
  }
  return { pem: chainPem + keyPem, notBeforeMs: leaf.validFromDate.getTime(), notAfterMs: leaf.validToDate.getTime() };
};

const chainOf = (pem: string): readonly X509Certificate[] => {
  const ders = dersOf(pem);
  if (ders.length === 0) throw new ClientCertificateError('has no certificate in it');
  try {
    return ders.map((der) => new X509Certificate(der));
  } catch (cause) {
    throw new ClientCertificateError('has a certificate that cannot be read', { cause });
  }
};

const keyOf = (pem: string): KeyObject => {
  const [block, ...others] = pem.matchAll(keyBlock);
  if (block === undefined) throw new ClientCertificateError('has no private key in it');
  if (others.length > 0) throw new ClientCertificateError('has more than one private key in it');
  try {
    return createPrivateKey(block[0]);
  } catch (cause) {
    throw new ClientCertificateError('has a private key that is encrypted or cannot be read', { cause });
  }
};

/** One of our own making. `chainPem`: leaf first. */
export const clientCertificatePem = (chainPem: string, { privateKey }: KeyPair): string =>
  chainPem + (privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);
