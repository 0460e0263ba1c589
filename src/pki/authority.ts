/**
 * Certificate authorities: the trust domain's, which signs SVIDs, and the proxy's for interception, which signs leaves for the
 * hosts it was made for and for no others. Neither can have an authority below it.
 */
import { strict as assert } from 'node:assert';
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import { canonicalHost } from '../core/destination.ts';
import { limits } from '../core/limits.ts';
import { spiffeId } from '../core/spiffe-id.ts';
import { commonName, readCertificate, signCertificate } from './certificate.ts';
import { onlyElement, tags } from './der.ts';
import {
  authorityKeyIdentifier,
  basicConstraints,
  extendedKeyUsage,
  keyIdentifier,
  keyUsage,
  nameConstraints,
  subjectAltName,
  subjectKeyIdentifier,
} from './extension.ts';
import type { KeyPair } from './key.ts';
import { dersOf, pemOf } from './pem.ts';

export interface Authority {
  readonly certificateDer: Buffer;
  readonly certificatePem: string;
  readonly key: KeyPair;
  readonly notAfterMs: number;
}

export interface AuthorityOptions {
  readonly commonName: string;
  readonly key: KeyPair;
  readonly nowMs: number;
  readonly lifetimeMs: number;
  /**
   * Makes it a SPIFFE authority: named `spiffe://<trust domain>`, for IDs of that trust domain alone. The constraint is a second
   * line: who verifies compares trust domains too (Go lets trust domains below this one through, OpenSSL does not).
   */
  readonly spiffeTrustDomain?: string;
  /**
   * Canonical host names and addresses that its leaves may be for; [] for none, undefined for any. A DNS name lets through the
   * names below it as well, which name constraints cannot avoid.
   */
  readonly permittedHosts?: readonly string[];
}

/** Whole seconds, as certificates count. */
export const wholeSeconds = (ms: number): number => Math.floor(ms / 1000) * 1000;

/** What a URI constraint may be: Go cannot even parse an authority whose constraint is an address. A trust domain may be one. */
const isHostName = (value: string): boolean => isIP(value) === 0 && canonicalHost(value) === value;

export const createAuthority = (options: AuthorityOptions): Authority => {
  const { key, nowMs, lifetimeMs, spiffeTrustDomain, permittedHosts } = options;
  const name = commonName(options.commonName);
  const identifier = keyIdentifier(key.publicKey);
  const notAfterMs = wholeSeconds(nowMs + lifetimeMs);
  const uriHost = spiffeTrustDomain !== undefined && isHostName(spiffeTrustDomain) ? spiffeTrustDomain : undefined;
  const der = signCertificate(
    {
      issuer: name,
      subject: name,
      publicKey: key.publicKey,
      notBeforeMs: nowMs - limits.certificateBackdateMs,
      notAfterMs,
      extensions: [
        basicConstraints('authority'),
        keyUsage('keyCertSign'),
        // On an authority this bounds what its leaves are good for; SVIDs are for both sides.
        spiffeTrustDomain === undefined ? extendedKeyUsage('serverAuth') : extendedKeyUsage('serverAuth', 'clientAuth'),
        subjectKeyIdentifier(identifier),
        authorityKeyIdentifier(identifier),
        ...(spiffeTrustDomain === undefined ? [] : [subjectAltName(false, { uris: [spiffeId(spiffeTrustDomain)] })]),
        ...(permittedHosts === undefined && uriHost === undefined ? [] : [nameConstraints({ hosts: permittedHosts, uriHost })]),
      ],
    },
    key,
  );
  return { certificateDer: der, certificatePem: pemOf(der), key, notAfterMs };
};

/** One that `createAuthority` made. What does not fit together is a damaged store, not a bad exchange: it throws. */
export const loadAuthority = (certificatePem: string, privateKeyPem: string): Authority => {
  const [der, ...others] = dersOf(certificatePem);
  assert(der !== undefined && others.length === 0, 'an authority is one certificate');
  const certificate = new X509Certificate(der);
  const privateKey = createPrivateKey(privateKeyPem);
  assert(certificate.ca && certificate.checkPrivateKey(privateKey), 'the certificate is not an authority with this key');
  assert.equal(privateKey.asymmetricKeyDetails?.namedCurve, 'prime256v1', "an authority's key is on P-256");
  const key = { privateKey, publicKey: createPublicKey(privateKey) };
  return { certificateDer: der, certificatePem: pemOf(der), key, notAfterMs: certificate.validToDate.getTime() };
};

/** How the authority is named in what it signs. */
export const issuerOf = ({ certificateDer }: Authority): { readonly name: Buffer; readonly keyIdentifier: Buffer } => {
  const { subject, extension } = readCertificate(certificateDer);
  const identifier = extension('subjectKeyIdentifier');
  assert(identifier, 'our authorities have a key identifier');
  return { name: subject, keyIdentifier: onlyElement(identifier, tags.octetString, 'the key identifier').content };
};
