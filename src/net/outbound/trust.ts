/**
 * What TLS connections to targets are made with: whom to trust, and the client certificate to show. Private keys of client certificates
 * are in memory only, here and where the grant is kept.
 */
import { createSecureContext, type SecureContext } from 'node:tls';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { ConnectionTerms } from '../outbound.ts';

/** Throws Fault credential_invalid for a client certificate that cannot be used. `trustPems`: for terms without a bundle of their own. */
export const createTrust = (trustPems: readonly string[]): ((terms: ConnectionTerms) => SecureContext) => {
  const contexts = new Map<string, SecureContext>();
  return (terms) => {
    const key = trustKey(terms);
    const known = contexts.get(key);
    // Most recently used last, so that the first is the one to give up.
    contexts.delete(key);
    const context = known ?? contextOf(terms, trustPems);
    if (contexts.size >= limits.targetTrustContextsMax) contexts.delete(contexts.keys().next().value as string);
    contexts.set(key, context);
    return context;
  };
};

/** Equal for terms that make the same context. */
export const trustKey = ({ trustBundlePem, clientCertificate, tlsVersionMin }: ConnectionTerms): string =>
  [tlsVersionMin, clientCertificate?.fingerprint ?? '', trustBundlePem].join('\n');

const contextOf = ({ trustBundlePem, clientCertificate, tlsVersionMin }: ConnectionTerms, trustPems: readonly string[]): SecureContext => {
  const trust = { ca: trustBundlePem === '' ? [...trustPems] : trustBundlePem, minVersion: tlsVersionMin };
  if (!clientCertificate) return createSecureContext(trust);
  const pem = clientCertificate.pem.reveal();
  try {
    return createSecureContext({ ...trust, cert: pem, key: pem });
  } catch (cause) {
    throw new Fault('credential_invalid', { detail: 'It is not a certificate and its private key in PEM.', cause });
  }
};
