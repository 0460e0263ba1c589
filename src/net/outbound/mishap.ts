/**
 * What sockets, TLS and HTTP parsers say went wrong, as a Fault. What our own connecting and the body threw comes through unchanged.
 */
import { errors } from 'undici';
import { Fault } from '../../core/fault.ts';
import { alertFault } from '../dial.ts';

const tooLarge = 'Its header block is too large.';

/** `hasHead`: whether the answer had begun. */
export const mishap = (error: unknown, hasHead: boolean): Fault => {
  if (error instanceof Fault) return error;
  if (error instanceof Error && error.cause instanceof Fault) return error.cause;
  const options = { cause: error };
  if (error instanceof errors.HeadersTimeoutError) return new Fault('target_timeout', options);
  if (error instanceof errors.RequestContentLengthMismatchError) return new Fault('framing_invalid', options);
  if (hasHead) return new Fault('target_truncated', options);
  const { code = '', message = '' } = (error ?? {}) as { code?: string; message?: string };
  if (error instanceof errors.HeadersOverflowError || code === 'HPE_HEADER_OVERFLOW') {
    return new Fault('target_malformed', { detail: tooLarge, ...options });
  }
  if (
    error instanceof errors.HTTPParserError ||
    error instanceof errors.ResponseContentLengthMismatchError ||
    (error instanceof errors.SocketError && message.startsWith('bad ')) ||
    code.startsWith('HPE_')
  ) {
    return new Fault('target_malformed', options);
  }
  // With TLS 1.3 a target says only after the handshake that it wants a client certificate, or another one (RFC 8446 section 4.4.2.4).
  const alert = alertFault(error) ?? alertFault((error as Error | undefined)?.cause);
  if (alert) return alert;
  return new Fault(code.startsWith('ERR_SSL_') ? 'target_tls_failed' : 'target_closed', options);
};
