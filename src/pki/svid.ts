/**
 * X.509-SVIDs: a workload's identity as a certificate, with its SPIFFE ID as the one URI in it (X509-SVID specification,
 * sections 2 and 3). Good for both sides of mTLS.
 */
import type { KeyObject } from 'node:crypto';
import { parseSpiffeId, type SpiffeId } from '../core/spiffe-id.ts';
import type { Authority } from './authority.ts';
import { readCertificate } from './certificate.ts';
import { DerError, elementsOf, onlyElement, tags } from './der.ts';
import { attestation, extendedKeyUsage, nameTags, subjectAltName } from './extension.ts';
import { type IssuedCertificate, issueEndEntity } from './leaf.ts';

export interface SvidOptions {
  readonly spiffeId: SpiffeId;
  readonly publicKey: KeyObject;
  /** Names and addresses for clients that know nothing of SPIFFE. */
  readonly hosts?: readonly string[];
  /** What it is good for; both unless given. */
  readonly usages?: readonly ('serverAuth' | 'clientAuth')[];
  /** What was attested, for the broker to read again when it is shown; without it the certificate is no identity there. */
  readonly attested?: string;
  readonly nowMs: number;
  readonly lifetimeMs: number;
}

export const issueSvid = (
  authority: Authority,
  { spiffeId, hosts = [], usages = ['serverAuth', 'clientAuth'], attested, ...rest }: SvidOptions,
): IssuedCertificate =>
  issueEndEntity(authority, {
    ...rest,
    extensions: [
      extendedKeyUsage(...usages),
      subjectAltName(true, { uris: [spiffeId], hosts }),
      ...(attested === undefined ? [] : [attestation(attested)]),
    ],
  });

/**
 * The SPIFFE ID of a leaf whose chain has been verified. Undefined unless it has exactly one URI, that is a SPIFFE ID, and the
 * certificate is not an authority's (X509-SVID specification, section 5.2).
 */
export const spiffeIdOf = (certificateDer: Buffer): string | undefined => {
  try {
    const { extension } = readCertificate(certificateDer);
    const constraints = extension('basicConstraints');
    const isAuthority = constraints !== undefined && onlyElement(constraints, tags.sequence, 'the constraints').content.length > 0;
    const names = extension('subjectAltName');
    if (names === undefined || isAuthority) return undefined;
    const uris = elementsOf(onlyElement(names, tags.sequence, 'the names').content).filter(({ tag }) => tag === (0x80 | nameTags.uri));
    const id = uris[0]?.content.toString('latin1');
    return uris.length === 1 && id !== undefined && parseSpiffeId(id) !== undefined ? id : undefined;
  } catch (error) {
    if (error instanceof DerError) return undefined;
    throw error;
  }
};

/** What was attested, as it was given to `issueSvid`: of a leaf whose chain has been verified. Undefined when it does not say. */
export const attestedOf = (certificateDer: Buffer): string | undefined => {
  try {
    const value = readCertificate(certificateDer).extension('attestation');
    return value === undefined ? undefined : onlyElement(value, tags.utf8String, 'the attestation').content.toString('utf8');
  } catch (error) {
    if (error instanceof DerError) return undefined;
    throw error;
  }
};
