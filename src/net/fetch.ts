/**
 * Outbound HTTP for the broker: token endpoints, discovery, JWKS, TokenReview. A function with the part of fetch's signature
 * that jose and oauth4webapi use, with bounds they lack: one deadline for the whole call, a bound on the body while it
 * arrives, redirects returned as they are and never followed. One connection per call: these calls are rare, and a kept
 * connection could be closed by the peer under a POST that must not be repeated. Never used on a workload's path.
 * Owns undici together with net/outbound.ts.
 */
import { lookup } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import { Client } from 'undici';
import { limits } from '../core/limits.ts';
import { classifyAddress, operatorDialProblem } from './guard.ts';

export interface OutboundInit {
  readonly method?: string;
  readonly headers?: Headers | Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array | URLSearchParams | null | undefined;
  /** Accepted because callers pass it; whatever it says, no redirect is followed. */
  readonly redirect?: string;
  readonly signal?: AbortSignal | undefined;
}

/** Throws OutboundError, and nothing else, when there is no whole answer; any status is an answer. */
export type OutboundFetch = (url: string | URL, init?: OutboundInit) => Promise<Response>;

export interface OutboundFetchOptions {
  /** PEM to trust instead of the system's roots. */
  readonly caPem?: string | undefined;
  /** From the call to the last byte of the answer. */
  readonly timeoutMs: number;
  readonly bodyBytesMax: number;
}

export type OutboundReason = 'url_refused' | 'timeout' | 'aborted' | 'unreachable' | 'untrusted' | 'too_large' | 'malformed';

/**
 * Why there is no answer. Holds the origin and the name of what failed; never a path, a header, a body, or the error it came
 * from, which may carry received bytes.
 */
export class OutboundError extends Error {
  readonly reason: OutboundReason;
  /** Node's or OpenSSL's name for it, or ''. */
  readonly code: string;

  constructor(reason: OutboundReason, origin: string, code = '') {
    super(`${origin}: ${reason}${code === '' ? '' : ` (${code})`}`);
    this.name = 'OutboundError';
    this.reason = reason;
    this.code = code;
  }
}

export const outboundFetch = ({ caPem, timeoutMs, bodyBytesMax }: OutboundFetchOptions): OutboundFetch => {
  return async (target, init = {}) => {
    const url = permittedUrl(target);
    // An empty CA file must not turn into trust in every public authority.
    if (caPem !== undefined && !caPem.includes('-----BEGIN CERTIFICATE-----'))
      throw new OutboundError('untrusted', url.origin, 'NO_CERTIFICATE_IN_CA');
    const deadline = AbortSignal.timeout(timeoutMs);
    const signal = init.signal ? AbortSignal.any([deadline, init.signal]) : deadline;
    const client = new Client(url.origin, {
      allowH2: false,
      pipelining: 1,
      maxHeaderSize: limits.headerBytesMax,
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      connect: {
        timeout: timeoutMs,
        minVersion: 'TLSv1.2',
        lookup: guardedLookup(url.origin),
        ...(caPem === undefined ? {} : { ca: caPem }),
      },
    });
    try {
      return await exchange(client, url, init, signal, bodyBytesMax);
    } catch (error) {
      if (deadline.aborted) throw new OutboundError('timeout', url.origin);
      if (signal.aborted) throw new OutboundError('aborted', url.origin);
      throw describe(error, url.origin);
    } finally {
      await client.destroy();
    }
  };
};

/** https anywhere; http only to a loopback address written as one, since a name may lead elsewhere. */
const permittedUrl = (target: string | URL): URL => {
  const url = URL.canParse(String(target)) ? new URL(target) : undefined;
  if (url === undefined) throw new OutboundError('url_refused', 'an unreadable URL');
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const isLoopback = classifyAddress(host) === 'loopback';
  const isPermitted = url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback);
  if (!isPermitted || url.username !== '' || url.password !== '') throw new OutboundError('url_refused', url.origin);
  if (isIP(host) !== 0 && operatorDialProblem(host) !== undefined) throw new OutboundError('url_refused', url.origin, 'ADDRESS_PROHIBITED');
  return url;
};

/** An issuer names its keys' place, and a name may come to mean a metadata service: every address is judged before it is dialled. */
const guardedLookup =
  (origin: string): LookupFunction =>
  (hostname, options, callback) =>
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, '', 0);
      const isProhibited = addresses.some(({ address }) => operatorDialProblem(address) !== undefined);
      if (isProhibited) return callback(new OutboundError('url_refused', origin, 'ADDRESS_PROHIBITED'), '', 0);
      const [first] = addresses;
      return options.all === true ? callback(null, addresses) : callback(null, first?.address ?? '', first?.family);
    });

const exchange = async (client: Client, url: URL, init: OutboundInit, signal: AbortSignal, bodyBytesMax: number): Promise<Response> => {
  const sent = new Headers(init.headers);
  // Bounds on decoded bytes would need a decoder with a bound: ask for none, and refuse what is encoded all the same.
  sent.set('accept-encoding', 'identity');
  if (init.body instanceof URLSearchParams && !sent.has('content-type'))
    sent.set('content-type', 'application/x-www-form-urlencoded;charset=UTF-8');
  const answer = await client.request({
    path: `${url.pathname}${url.search}`,
    method: init.method ?? 'GET',
    headers: Object.fromEntries(sent),
    body: init.body instanceof URLSearchParams ? String(init.body) : (init.body ?? null),
    reset: true,
    signal,
  });
  const headers = new Headers();
  for (const [name, value] of Object.entries(answer.headers)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined) headers.append(name, one);
  }
  if ((headers.get('content-encoding') ?? 'identity') !== 'identity') throw new OutboundError('malformed', url.origin, 'CONTENT_ENCODING');
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer.body as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > bodyBytesMax) throw new OutboundError('too_large', url.origin);
    chunks.push(chunk);
  }
  const { statusCode: status } = answer;
  const hasNoBody = status === 204 || status === 205 || status === 304;
  return new Response(hasNoBody ? null : Buffer.concat(chunks), { status, headers });
};

const certificateCodes =
  /^(?:CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH|PATH_LENGTH|ERR_TLS_CERT|CRL_)/;
const protocolCodes = /^(?:HPE_|UND_ERR_(?:HEADERS_OVERFLOW|INVALID|NOT_SUPPORTED))/;

const describe = (error: unknown, origin: string): OutboundError => {
  if (error instanceof OutboundError) return error;
  const { code: raw } = (error ?? {}) as { code?: unknown };
  const code = typeof raw === 'string' && /^[A-Z0-9_]{1,80}$/.test(raw) ? raw : '';
  if (certificateCodes.test(code)) return new OutboundError('untrusted', origin, code);
  if (code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_BODY_TIMEOUT' || code === 'UND_ERR_CONNECT_TIMEOUT')
    return new OutboundError('timeout', origin, code);
  if (protocolCodes.test(code) || code === '') return new OutboundError('malformed', origin, code);
  return new OutboundError('unreachable', origin, code);
};
