/** Who calls: the SVID that the connection was opened with, verified by TLS, and still good at the time of the call. */
import { X509Certificate } from 'node:crypto';
import { Fault } from '../../core/fault.ts';
import { parseSpiffeId } from '../../core/spiffe-id.ts';
import { attestedOf, spiffeIdOf } from '../../pki/svid.ts';

export interface CallerIdentity {
  readonly spiffeId: string;
  /** What its certificate says was attested, signed with it. Only the broker can read it. */
  readonly attested: string;
  readonly certificateExpiresAtMs: number;
}

/** What grpc-js knows of a connection: the peer's certificate if, and only if, TLS verified it. */
export interface Authenticated {
  getAuthContext(): { readonly sslPeerCertificate?: { readonly raw: Buffer } };
}

/**
 * Faults: identity_refused without a verified SVID of the trust domain, identity_expired past its end. Certificates of the same authority that
 * nobody attested, the roles' own and those that targets are shown (broker/provider/x509.ts), call nobody.
 */
export const callerOf = (call: Authenticated, trustDomain: string, nowMs: number): CallerIdentity => {
  const raw = call.getAuthContext().sslPeerCertificate?.raw;
  if (raw === undefined) throw new Fault('identity_refused', { detail: 'No certificate was shown.' });
  const spiffeId = spiffeIdOf(raw);
  const parsed = spiffeId === undefined ? undefined : parseSpiffeId(spiffeId);
  if (spiffeId === undefined || parsed?.trustDomain !== trustDomain || parsed.path === '') {
    throw new Fault('identity_refused', { detail: 'It is not one of a workload of this trust domain.' });
  }
  const attested = attestedOf(raw);
  if (attested === undefined) throw new Fault('identity_refused', { detail: 'The certificate does not say what was attested.' });
  const { validToDate } = new X509Certificate(raw);
  const caller = { spiffeId, attested, certificateExpiresAtMs: validToDate.getTime() };
  checkStillValid(caller, nowMs);
  return caller;
};

/** For streams, that outlive the moment they were opened in. */
export const checkStillValid = ({ certificateExpiresAtMs }: CallerIdentity, nowMs: number): void => {
  if (certificateExpiresAtMs <= nowMs) throw new Fault('identity_expired');
};
