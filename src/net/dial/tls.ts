/** TLS over a connected socket: the peer proves its name, or there is no connection. Decides no trust: it is given a context. */
import { isIP, type Socket } from 'node:net';
import { connect as connectTls, type SecureContext, type TLSSocket } from 'node:tls';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { TlsVersion } from '../../core/target.ts';

export type Alpn = 'h2' | 'http/1.1';

export interface TlsTerms {
  /** Whom to trust, and the client certificate to show, if there is one. */
  readonly secureContext: SecureContext;
  /** What to offer, best first. */
  readonly alpn: readonly Alpn[];
  readonly versionMin: TlsVersion;
  /**
   * To resume. Only ever one of the same host, trust and client certificate: a resumed session is not checked against the name
   * again, neither by Node nor by the protocol.
   */
  readonly session?: Buffer | undefined;
  /** Each session that the peer hands out, for the next connection. */
  readonly onSession?: ((session: Buffer) => void) | undefined;
}

/**
 * TLS to `host`. Throws target_certificate_invalid when the peer does not prove that name, target_protocol when it speaks none of
 * what was offered, target_tls_failed when there is no handshake. The socket is destroyed then.
 */
export const secure = (
  socket: Socket,
  host: string,
  terms: TlsTerms,
  timeoutMs: number = limits.targetHandshakeTimeoutMs,
): Promise<TLSSocket> =>
  new Promise((resolve, reject) => {
    const secured = connectTls({
      socket,
      // SNI carries names only (RFC 6066 section 3); an IP literal is checked against the certificate's IP entries.
      ...(isIP(host) === 0 ? { servername: host } : { host }),
      secureContext: terms.secureContext,
      ALPNProtocols: [...terms.alpn],
      ...(terms.session ? { session: terms.session } : {}),
    });
    const { onSession } = terms;
    if (onSession) secured.on('session', onSession);
    let verdict: NodeJS.Timeout | undefined;
    const settle = (how: () => void): void => {
      clearTimeout(timer);
      clearTimeout(verdict);
      secured.off('close', closed).off('error', failed);
      how();
    };
    const failed = (cause: Error): void =>
      settle(() => {
        const isCertificateMissing = isHandshakeRefused(cause) && wantsCertificate(secured);
        // Late errors of a connection that was given up are nobody's.
        secured.on('error', () => undefined);
        secured.destroy();
        socket.destroy();
        reject(tlsFault(cause, secured, isCertificateMissing));
      });
    const closed = (): void => failed(new Error('closed during the handshake'));
    const accepted = (): void => settle(() => resolve(secured));
    const timer = setTimeout(() => failed(new Error(`no handshake within ${timeoutMs} ms`)), timeoutMs);
    secured.once('error', failed);
    secured.once('close', closed);
    secured.once('secureConnect', () => {
      // The context has a minimum of its own; Node ignores one that is given beside it.
      if (isBelow(secured.getProtocol(), terms.versionMin)) return failed(new VersionError());
      if (secured.getProtocol() !== 'TLSv1.3' || !wantsCertificate(secured)) return accepted();
      // TLS 1.3: whether the target does without is only heard after the handshake, as a session or as an alert (RFC 8446 section 4.4.2).
      // Not at once: the session is handed out in the middle of OpenSSL's reading, where nothing may be written yet.
      secured.once('session', () => setImmediate(accepted));
      verdict = setTimeout(accepted, limits.clientCertificateVerdictMs);
    });
  });

const isBelow = (version: string | null, minimum: TlsVersion): boolean => minimum === 'TLSv1.3' && version !== 'TLSv1.3';

class VersionError extends Error {}

/** Asked for in the handshake and not shown: only a request for a certificate carries signature algorithms to the client's side. */
const wantsCertificate = (secured: TLSSocket): boolean => (secured.getSharedSigalgs()?.length ?? 0) > 0 && !hasCertificate(secured);

/** What TLS 1.2 has to say to a client without a certificate (RFC 5246 section 7.4.6), and to many others. */
const isHandshakeRefused = (cause: Error): boolean => 'code' in cause && cause.code === 'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE';

const hasCertificate = (secured: TLSSocket): boolean => Object.keys(secured.getCertificate() ?? {}).length > 0;

const tlsFault = (cause: Error, secured: TLSSocket, isCertificateMissing: boolean): Fault => {
  // Node sets authorizationError only when the handshake went through and the certificate did not.
  if (secured.authorizationError)
    return new Fault('target_certificate_invalid', { detail: certificateDetail(secured.authorizationError), cause });
  const detail = cause instanceof VersionError ? versionTooLow : isCertificateMissing ? certificateRequired : undefined;
  return detail === undefined
    ? (alertFault(cause) ?? new Fault('target_tls_failed', { cause }))
    : new Fault('target_tls_failed', { detail, cause });
};

const versionTooLow = 'It offers only TLS versions below the configured minimum.';
const certificateRequired = 'It requires a client certificate, and none is configured for it.';
const certificateRefused = 'It does not accept the client certificate.';

/** OpenSSL's errors by the end of Node's code for them: alerts that the target sent, and what we found in its first bytes. */
const tlsDetails: Readonly<Record<string, string>> = {
  ALERT_PROTOCOL_VERSION: versionTooLow,
  UNSUPPORTED_PROTOCOL: versionTooLow,
  WRONG_VERSION_NUMBER: 'It did not answer with TLS.',
  PACKET_LENGTH_TOO_LONG: 'It did not answer with TLS.',
  ALERT_CERTIFICATE_REQUIRED: certificateRequired,
  ALERT_BAD_CERTIFICATE: certificateRefused,
  ALERT_UNSUPPORTED_CERTIFICATE: certificateRefused,
  ALERT_CERTIFICATE_REVOKED: certificateRefused,
  ALERT_CERTIFICATE_EXPIRED: certificateRefused,
  ALERT_CERTIFICATE_UNKNOWN: certificateRefused,
  ALERT_UNKNOWN_CA: certificateRefused,
  ALERT_ACCESS_DENIED: certificateRefused,
};

/**
 * What an error on a TLS connection says about its terms, whenever it arrives: under TLS 1.3 a refused client certificate is heard
 * of after the handshake. Undefined for every other error.
 */
export const alertFault = (cause: unknown): Fault | undefined => {
  const { code } = (cause ?? {}) as { code?: unknown };
  const name = /^ERR_SSL_(?:(?:SSL\/TLS|SSLV3|TLSV1|TLSV13)_(?=ALERT_))?([A-Z_]+)$/.exec(String(code))?.[1] ?? '';
  if (name === 'ALERT_NO_APPLICATION_PROTOCOL') return new Fault('target_protocol', { cause });
  const detail = tlsDetails[name];
  return detail === undefined ? undefined : new Fault('target_tls_failed', { detail, cause });
};

/** OpenSSL's name for what is wrong (CERT_HAS_EXPIRED, …): nothing that the target chose. */
const certificateDetail = (error: unknown): string => {
  const text = String(error);
  return /^[A-Z_0-9]{3,60}$/.test(text) ? `The check failed with ${text}.` : '';
};
