/**
 * Serving certificates for one host: what the proxy shows a program in the target's place. Never a wildcard, never past its
 * authority's end, and without a subject, so that the host is named in one place.
 */
import { strict as assert } from 'node:assert';
import type { KeyObject } from 'node:crypto';
import { limits } from '../core/limits.ts';
import { type Authority, issuerOf, wholeSeconds } from './authority.ts';
import { emptyName, signCertificate } from './certificate.ts';
import {
  authorityKeyIdentifier,
  basicConstraints,
  extendedKeyUsage,
  keyIdentifier,
  keyUsage,
  subjectAltName,
  subjectKeyIdentifier,
} from './extension.ts';
import { pemOf } from './pem.ts';

export interface IssuedCertificate {
  readonly der: Buffer;
  readonly pem: string;
  readonly notAfterMs: number;
}

export interface LeafOptions {
  /** Canonical host name or address. */
  readonly host: string;
  readonly publicKey: KeyObject;
  readonly nowMs: number;
  readonly lifetimeMs: number;
}

export const issueLeaf = (authority: Authority, { host, publicKey, nowMs, lifetimeMs }: LeafOptions): IssuedCertificate =>
  issueEndEntity(authority, {
    publicKey,
    nowMs,
    lifetimeMs,
    extensions: [extendedKeyUsage('serverAuth'), subjectAltName(true, { hosts: [host] })],
  });

/** What leaves and SVIDs have in common; `extensions` says which it is. */
export const issueEndEntity = (
  authority: Authority,
  o: { readonly publicKey: KeyObject; readonly nowMs: number; readonly lifetimeMs: number; readonly extensions: readonly Buffer[] },
): IssuedCertificate => {
  const notAfterMs = wholeSeconds(Math.min(o.nowMs + o.lifetimeMs, authority.notAfterMs));
  assert(notAfterMs > o.nowMs, 'the authority has expired, or the lifetime is not positive');
  const issuer = issuerOf(authority);
  const der = signCertificate(
    {
      issuer: issuer.name,
      subject: emptyName,
      publicKey: o.publicKey,
      notBeforeMs: o.nowMs - limits.certificateBackdateMs,
      notAfterMs,
      extensions: [
        basicConstraints('leaf'),
        keyUsage('digitalSignature'),
        subjectKeyIdentifier(keyIdentifier(o.publicKey)),
        authorityKeyIdentifier(issuer.keyIdentifier),
        ...o.extensions,
      ],
    },
    authority.key,
  );
  return { der, pem: pemOf(der), notAfterMs };
};
