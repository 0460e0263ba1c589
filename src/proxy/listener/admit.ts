/**
 * What is let in: the request head as bytes on the wire allow it, checked before anything is built from it. Pure; knows HTTP/1.1
 * syntax, not policy. Node's parser has rejected much already (bare LF, obs-fold, CL with TE); this refuses what it accepts
 * (LESSONS section 5, THREATS F-1 to F-9).
 */
import { Fault } from '../../core/fault.ts';
import { badNomination, blockBytes, type HeaderList, nominatedBy, sameNameKey, tokenPattern, valuesOf } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { Scheme } from '../../core/destination.ts';

export interface RequestHead {
  readonly method: string;
  /** The request target as received. */
  readonly target: string;
  readonly httpVersion: string;
  readonly headers: HeaderList;
}

export interface Admitted {
  readonly hasBody: boolean;
  /** The value of Expect was 100-continue. */
  readonly expectsContinue: boolean;
  readonly host: string | undefined;
  /** The protocols that are asked for, as received; undefined for an ordinary request. */
  readonly upgrade: string | undefined;
}

const malformed = (detail: string): Fault => new Fault('request_malformed', { detail });
const badFraming = (detail: string): Fault => new Fault('framing_invalid', { detail });

/** Throws the Fault that a head deserves, or says what it holds. */
export const admit = ({ method, target, httpVersion, headers }: RequestHead): Admitted => {
  if (httpVersion !== '1.1' && httpVersion !== '1.0') throw malformed('Only HTTP/1.1 and HTTP/1.0 are spoken here.');
  if (
    headers.length > limits.headerCountMax ||
    blockBytes(headers) > limits.headerBytesMax ||
    target.length > limits.requestTargetBytesMax
  ) {
    throw new Fault('headers_too_large');
  }
  if (method === 'TRACE') throw new Fault('method_refused');
  // Methods differ by case (RFC 9110 section 9.1), and node:http writes capitals whatever it is given: another than was judged.
  if (method !== method.toUpperCase()) throw new Fault('method_refused', { detail: 'Write the method in capitals.' });
  const framing = admitFraming(httpVersion, headers);
  if (method === 'CONNECT' && framing.hasBody) throw badFraming('CONNECT has no body.');

  const hosts = valuesOf(headers, 'host');
  if (hosts.length > 1) throw new Fault('authority_invalid', { detail: 'There is more than one Host.' });
  if (hosts.length === 0 && httpVersion === '1.1') throw new Fault('authority_invalid', { detail: 'There is no Host.' });

  const nominated = badNomination(headers);
  if (nominated !== undefined) throw malformed('Connection names a field that must not be removed.');
  const expectations = valuesOf(headers, 'expect');
  if (expectations.length > 1 || expectations.some((value) => value.toLowerCase() !== '100-continue'))
    throw new Fault('expectation_failed');
  // HTTP/1.0 has no 100, so the expectation is ignored (RFC 9110 section 10.1.1).
  const expectsContinue = expectations.length === 1 && httpVersion === '1.1';
  return { hasBody: framing.hasBody, expectsContinue, host: hosts[0], upgrade: upgradeAsked(httpVersion, headers) };
};

/**
 * The protocols to change to (RFC 9110 section 7.8). HTTP/2 by upgrade is deprecated (RFC 9113 section 3.1) and is not one of them:
 * such a request is answered over HTTP/1.1. Anything that is not a plain list of protocol names is ignored, as the RFC allows, and so is
 * the wish of a request with a body: where that ends, the new protocol would have to begin.
 */
export const upgradeAsked = (httpVersion: string, headers: HeaderList): string | undefined => {
  const asked = valuesOf(headers, 'upgrade');
  if (asked.length !== 1 || httpVersion !== '1.1' || !nominatedBy(headers).has('upgrade')) return undefined;
  const hasBody = valuesOf(headers, 'transfer-encoding').length > 0 || valuesOf(headers, 'content-length').some((length) => length !== '0');
  if (hasBody) return undefined;
  const protocols = (asked[0] as string).split(',').map((protocol) => protocol.trim());
  const isPlain = protocols.every((protocol) => /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:\/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?$/.test(protocol));
  return isPlain && !protocols.some((protocol) => /^h2c?$/i.test(protocol)) ? protocols.join(', ') : undefined;
};

export interface AdmittedH2 {
  readonly method: string;
  readonly authority: string | undefined;
  readonly path: string;
  /** The fields without pseudo-header fields and Host. */
  readonly headers: HeaderList;
  readonly expectsContinue: boolean;
  /** Content-Length says that nothing follows, whatever the stream's end says. */
  readonly isEmpty: boolean;
}

/**
 * The same for a stream of HTTP/2 (RFC 9113 section 8.3), so that what follows cannot tell the difference. nghttp2 has seen to
 * lower case, connection-specific fields, the order of pseudo-header fields and a Content-Length that is true.
 */
export const admitH2 = (raw: HeaderList): AdmittedH2 => {
  const pseudo = (name: string): string | undefined => {
    const [value, ...more] = valuesOf(raw, name);
    if (more.length > 0) throw malformed(`There is more than one ${name}.`);
    return value;
  };
  const [method, path, authority] = [pseudo(':method'), pseudo(':path'), pseudo(':authority')];
  if (method === 'CONNECT' || method === 'TRACE') throw new Fault('method_refused');
  if (method === undefined || path === undefined || !tokenPattern.test(method))
    throw malformed('A pseudo-header field is missing or not valid.');
  // RFC 9113 section 8.3.1: an absolute URL would be one more claim, which nobody makes honestly.
  if (!path.startsWith('/')) throw malformed(':path is not a path.');
  const fields = raw.filter(([name]) => !name.startsWith(':'));
  for (const [name, value] of fields) {
    if (!tokenPattern.test(name) || !/^[\t\x20-\x7e\x80-\xff]*$/.test(value)) throw malformed('A field could not be written as HTTP/1.1.');
  }
  // As HTTP/1.1 would have it: one set of rules for both.
  const hosts = valuesOf(fields, 'host');
  if (authority !== undefined && hosts.some((host) => host.toLowerCase() !== authority.toLowerCase()))
    throw new Fault('authority_mismatch');
  const host: HeaderList = authority === undefined || hosts.length > 0 ? [] : [['host', authority]];
  const admitted = admit({ method, target: path, httpVersion: '1.1', headers: [...host, ...fields] });
  const headers = withJoinedCookie(fields.filter(([name]) => name !== 'host'));
  const isEmpty = valuesOf(fields, 'content-length')[0] === '0';
  return { method, authority: admitted.host, path, headers, expectsContinue: admitted.expectsContinue, isEmpty };
};

/** HTTP/2 may split Cookie; elsewhere it is one field (RFC 9113 section 8.2.3). */
const withJoinedCookie = (headers: HeaderList): HeaderList => {
  const crumbs = valuesOf(headers, 'cookie');
  if (crumbs.length < 2) return headers;
  const first = headers.findIndex(([name]) => name === 'cookie');
  return headers.flatMap((field, i) => (field[0] !== 'cookie' ? [field] : i === first ? [['cookie', crumbs.join('; ')] as const] : []));
};

/** RFC 9112 section 6: exactly one Content-Length in its canonical form, or exactly one "chunked", or no body. */
const admitFraming = (httpVersion: string, headers: HeaderList): { hasBody: boolean } => {
  const codings = valuesOf(headers, 'transfer-encoding');
  const lengths = valuesOf(headers, 'content-length');
  const twin = headers.find(([name]) => name.includes('_') && ['transfer-encoding', 'content-length', 'host'].includes(sameNameKey(name)));
  if (twin) throw badFraming('A field is named like a framing field, with an underscore.');
  if (codings.length > 0) {
    if (httpVersion !== '1.1') throw badFraming('HTTP/1.0 has no Transfer-Encoding.');
    if (lengths.length > 0) throw badFraming('There are both Content-Length and Transfer-Encoding.');
    if (codings.length > 1 || codings[0]?.toLowerCase() !== 'chunked') throw badFraming('Transfer-Encoding is not exactly "chunked".');
    return { hasBody: true };
  }
  if (lengths.length > 1) throw badFraming('There is more than one Content-Length.');
  const [length] = lengths;
  if (length === undefined) return { hasBody: false };
  if (!/^(?:0|[1-9][0-9]{0,15})$/.test(length)) throw badFraming('Content-Length is not a plain decimal number.');
  return { hasBody: length !== '0' };
};

export interface RequestTarget {
  readonly scheme: Scheme;
  /** Authority of the absolute form; undefined for origin-form. */
  readonly absolute: string | undefined;
  /** Origin-form: path and query as received. */
  readonly rawTarget: string;
}

/**
 * Splits a request target in absolute-form or origin-form (RFC 9112 section 3.2). `tunnelScheme` is the scheme inside a tunnel;
 * undefined outside, where only the absolute form names a destination.
 */
export const readRequestTarget = (target: string, tunnelScheme: Scheme | undefined): RequestTarget => {
  if (target.startsWith('/') && tunnelScheme !== undefined) return { scheme: tunnelScheme, absolute: undefined, rawTarget: target };
  const match = /^(https?):\/\/([^/?#\\]*)([/?][^#]*)?$/i.exec(target);
  if (!match) {
    if (tunnelScheme !== undefined || target === '*')
      throw malformed('The request target is neither a path nor an absolute http or https URL.');
    throw new Fault('authority_invalid', {
      detail: 'This is a forward proxy: send CONNECT or an absolute URL (set HTTP_PROXY and HTTPS_PROXY).',
    });
  }
  const [, scheme = '', authority = '', rest = '/'] = match;
  if (authority.includes('@')) throw new Fault('authority_invalid', { detail: 'The URL has user information.' });
  const named = scheme.toLowerCase() as Scheme;
  if (tunnelScheme !== undefined && named !== tunnelScheme)
    throw new Fault('authority_mismatch', { detail: 'The URL has another scheme than the tunnel.' });
  return { scheme: named, absolute: authority, rawTarget: rest.startsWith('?') ? `/${rest}` : rest };
};
