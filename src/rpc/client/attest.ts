/**
 * Attestation: evidence and a certificate request to the broker, an SVID for the key back. The one call without a client certificate;
 * the evidence leaves only once the broker has shown its own.
 */
import { X509Certificate } from 'node:crypto';
import type { Evidence } from '../../core/evidence.ts';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { parseSpiffeId } from '../../core/spiffe-id.ts';
import type { Clock } from '../../ops/clock.ts';
import { createCertificateRequest } from '../../pki/certificate-request.ts';
import type { KeyPair } from '../../pki/key.ts';
import { pemOf } from '../../pki/pem.ts';
import { spiffeIdOf } from '../../pki/svid.ts';
import { brokerService } from '../service.ts';
import type { Svid } from '../svid.ts';
import { type Attestation, attestationOf, attestRequestBytes, WireError } from '../wire.ts';
import { openConnection } from './connection.ts';
import type { Peer } from './peer.ts';

export interface AttestOptions {
  readonly broker: Peer;
  /** PEM of the trust domain's authorities. */
  readonly brokerCaPem: string;
  readonly evidence: Evidence;
  readonly key: KeyPair;
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** Gives up early. */
  readonly signal?: AbortSignal;
}

/** Faults: those of the broker, and broker_unavailable, broker_timeout, broker_untrusted, broker_error. */
export const attest = async ({ broker, brokerCaPem, evidence, key, timeoutMs, clock, signal }: AttestOptions): Promise<Svid> => {
  const connection = openConnection({ ...broker, trustBundlePem: brokerCaPem, identity: undefined });
  try {
    const request = attestRequestBytes(evidence, createCertificateRequest(key));
    const response = await connection.unary(brokerService.methods.attest, request, timeoutMs, signal);
    return svidOf(attestationOf(response), key, broker, clock.now());
  } catch (error) {
    if (error instanceof WireError) throw new Fault('broker_error', { cause: error });
    throw error;
  } finally {
    connection.close();
  }
};

/**
 * What the broker sent, once it holds together: our key, the ID it says, signed by an authority it says. How long it is good for is counted
 * from now: its beginning and its end are told by the broker's clock, and ours may be hours away from that.
 */
const svidOf = (attestation: Attestation, key: KeyPair, broker: Peer, nowMs: number): Svid => {
  const [leaf, ...intermediates] = attestation.certificateChain.map(certificateOf);
  const authorities = attestation.trustBundle.map(certificateOf);
  const issuers = [...intermediates, ...authorities].filter(({ ca }) => ca);
  const isSound =
    leaf !== undefined &&
    leaf.checkPrivateKey(key.privateKey) &&
    spiffeIdOf(leaf.raw) === attestation.spiffeId &&
    parseSpiffeId(attestation.spiffeId)?.trustDomain === parseSpiffeId(broker.spiffeId)?.trustDomain &&
    issuers.some((issuer) => leaf.checkIssued(issuer) && leaf.verify(issuer.publicKey));
  if (!isSound) throw new WireError('the SVID does not hold together');
  const endMs = Math.min(attestation.expiresAtMs, leaf.validToDate.getTime());
  const lifeMs = endMs - leaf.validFromDate.getTime() - limits.certificateBackdateMs;
  if (lifeMs <= 0) throw new WireError('the SVID was over when it was made');
  return {
    spiffeId: attestation.spiffeId,
    attestationId: attestation.attestationId,
    certificateChainPem: attestation.certificateChain.map(pemOf).join(''),
    privateKey: key.privateKey,
    trustBundlePem: attestation.trustBundle.map(pemOf).join(''),
    expiresAtMs: nowMs + lifeMs,
    issuedAtMs: nowMs,
  };
};

const certificateOf = (der: Buffer): X509Certificate => {
  try {
    return new X509Certificate(der);
  } catch {
    throw new WireError('a certificate cannot be read');
  }
};
