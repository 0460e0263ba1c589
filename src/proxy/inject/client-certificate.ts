/**
 * The client certificate of a grant. It is shown in the TLS handshake, so it is a term of the connection and has no place in the
 * request: nothing here touches a draft, and the rules for what a field may hold are not for it. Connections are kept apart by it
 * (net/outbound.ts).
 */
import type { Scheme } from '../../core/destination.ts';
import { Fault } from '../../core/fault.ts';
import { formOf, type PlacedCredential } from '../../core/grant.ts';
import type { ClientCertificate } from '../../net/outbound.ts';

export const isShown = ({ placement }: PlacedCredential): boolean => formOf(placement) === 'certificate';

/**
 * Undefined when the grant has none. Throws credential_invalid when it has two, and cleartext_refused when there is no handshake to
 * show it in: the request would go out without the credential it is recorded with.
 */
export const clientCertificateOf = (credentials: readonly PlacedCredential[], scheme: Scheme): ClientCertificate | undefined => {
  const [shown, ...others] = credentials.filter(isShown);
  if (shown === undefined) return undefined;
  if (others.length > 0) throw new Fault('credential_invalid', { detail: 'There are two client certificates for one handshake.' });
  if (scheme !== 'https') throw new Fault('cleartext_refused');
  return { pem: shown.value, fingerprint: shown.fingerprint };
};
