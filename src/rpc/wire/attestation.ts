/** Attestation as messages: evidence and a certificate request one way, an SVID the other. */
import type { Evidence } from '../../core/evidence.ts';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import { parseSpiffeId } from '../../core/spiffe-id.ts';
import { AttestRequestSchema, AttestResponseSchema } from '../../proto/gen/outrider/v1/broker_pb.js';
import { decode, encode, someList, someText, timestampMs, timestampOf, WireError } from './field.ts';

/** The broker's answer, before the client has looked at the certificates. */
export interface Attestation {
  /** DER, leaf first. */
  readonly certificateChain: readonly Buffer[];
  /** The trust domain's authorities, DER. */
  readonly trustBundle: readonly Buffer[];
  readonly spiffeId: string;
  readonly expiresAtMs: number;
  readonly attestationId: string;
}

export const attestRequestBytes = (evidence: Evidence, certificateRequest: Buffer): Buffer =>
  encode(AttestRequestSchema, { evidence: { kind: { case: 'projectedToken', value: evidence.token.reveal() } }, certificateRequest });

/** Faults: evidence_missing, evidence_invalid, certificate_request_invalid. */
export const attestRequestOf = (bytes: Uint8Array): { evidence: Evidence; certificateRequest: Buffer } => {
  const { evidence, certificateRequest } = decode(AttestRequestSchema, bytes);
  const kind = evidence?.kind;
  if (kind?.case !== 'projectedToken' || kind.value === '')
    throw new Fault('evidence_missing', { detail: 'There is none of a kind that this broker knows.' });
  if (kind.value.length > limits.evidenceBytesMax) throw new Fault('evidence_invalid', { detail: 'It is too long.' });
  const token = new Secret(kind.value);
  if (certificateRequest.length === 0 || certificateRequest.length > limits.certificateRequestBytesMax) {
    throw new Fault('certificate_request_invalid', { detail: 'It is empty or too large.' });
  }
  return { evidence: { kind: 'projected_token', token }, certificateRequest: Buffer.from(certificateRequest) };
};

export const attestationBytes = (attestation: Attestation): Buffer =>
  encode(AttestResponseSchema, {
    certificateChain: [...attestation.certificateChain],
    trustBundle: [...attestation.trustBundle],
    spiffeId: attestation.spiffeId,
    expiresAt: timestampOf(attestation.expiresAtMs),
    attestationId: attestation.attestationId,
  });

export const attestationOf = (bytes: Uint8Array): Attestation => {
  const message = decode(AttestResponseSchema, bytes);
  if (parseSpiffeId(message.spiffeId) === undefined) throw new WireError('spiffe_id is not a SPIFFE ID');
  return {
    certificateChain: someList(message.certificateChain, 'certificate_chain').map((der) => Buffer.from(der)),
    trustBundle: someList(message.trustBundle, 'trust_bundle').map((der) => Buffer.from(der)),
    spiffeId: message.spiffeId,
    expiresAtMs: timestampMs(message.expiresAt, 'expires_at'),
    attestationId: someText(message.attestationId, 'attestation_id'),
  };
};
