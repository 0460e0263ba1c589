/**
 * What was attested, as an SVID carries it (pki/svid.ts): written by the replica that attested, read by whichever one is asked for a
 * grant. The trust domain's authority signed it with the certificate, and TLS has verified that; so it says what some broker of
 * this trust domain verified, no longer ago than an SVID lives. What it means today is the registry's to say, each time anew.
 */
import type { Attributes } from '../../core/evidence.ts';
import { Fault } from '../../core/fault.ts';
import { isJsonObject } from '../../core/json.ts';
import { limits } from '../../core/limits.ts';
import type { CallerIdentity } from '../../rpc/server.ts';
import type { Identity } from '../registry.ts';

export interface IssuedIdentity {
  /** Names this attestation in logs and access events. */
  readonly attestationId: string;
  readonly spiffeId: string;
  readonly identity: Identity;
}

const version = 1;

/** Throws Fault evidence_invalid when there is more to say than a certificate should carry. */
export const attestedText = (attestationId: string, { attestor, attributes }: Identity): string => {
  const text = JSON.stringify({ version, id: attestationId, attestor, attributes });
  if (Buffer.byteLength(text) > limits.attestedBytesMax) throw new Fault('evidence_invalid', { detail: 'It says too much.' });
  return text;
};

/** Faults: identity_refused when what the certificate says was attested cannot be read, identity_expired past its end. */
export const issuedTo = ({ spiffeId, attested, certificateExpiresAtMs }: CallerIdentity, nowMs: number): IssuedIdentity => {
  if (certificateExpiresAtMs <= nowMs) throw new Fault('identity_expired');
  const read = readAttested(attested);
  if (read === undefined) throw new Fault('identity_refused', { detail: 'The certificate does not say what was attested.' });
  return { ...read, spiffeId };
};

const readAttested = (text: string): Pick<IssuedIdentity, 'attestationId' | 'identity'> | undefined => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!isJsonObject(value) || value['version'] !== version) return undefined;
  const { id, attestor, attributes } = value;
  if (typeof id !== 'string' || typeof attestor !== 'string' || !isAttributes(attributes)) return undefined;
  return { attestationId: id, identity: { attestor, attributes } };
};

const isAttributes = (value: unknown): value is Attributes =>
  isJsonObject(value) && Object.values(value).every((one) => typeof one === 'string');
