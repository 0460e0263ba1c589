/**
 * Reads what a token endpoint answered (RFC 6749 sections 5.1 and 5.2), as if it were hostile. The library's own reader is not
 * used: it loses the error code of a 401 that carries a challenge, verifies ID tokens that nobody asked for, and puts the whole
 * response, token included, in the causes of its errors. Pure; no error from here repeats anything the endpoint said, except an
 * error code that is a registered one.
 */
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import type { Obtained } from './credential.ts';

export interface ReceivedToken {
  readonly status: number;
  readonly body: string;
  /** Wall clock when the request was sent: the token's life is counted from there, so never too long. */
  readonly requestedAtMs: number;
  /** What was asked for: another could not be used as it must be (RFC 9449 section 5: no downgrade). */
  readonly tokenType: 'Bearer' | 'DPoP';
}

export type TokenProblem = { readonly problem: string };

/** IANA "OAuth Extensions Error" registry, token endpoint. An unregistered code is not repeated: it could be an echo of the request. */
const registeredErrors = new Set([
  'invalid_request',
  'invalid_client',
  'invalid_grant',
  'unauthorized_client',
  'unsupported_grant_type',
  'invalid_scope',
  'invalid_target',
  'access_denied',
  'server_error',
  'temporarily_unavailable',
  'invalid_dpop_proof',
  'use_dpop_nonce',
]);

const parseObject = (body: string): Record<string, unknown> | undefined => {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    // The parser's message quotes the text.
    return undefined;
  }
};

const own = (object: Record<string, unknown>, name: string): unknown => (Object.hasOwn(object, name) ? object[name] : undefined);

const refused = (status: number, body: string): TokenProblem => {
  const answer = parseObject(body);
  const code = answer && own(answer, 'error');
  const known = typeof code === 'string' && registeredErrors.has(code);
  if (known) return { problem: `refused the request with status ${status} and error ${code}` };
  return {
    problem:
      status >= 300 && status < 400 ? `answered with a redirect (${status}), which is never followed` : `answered with status ${status}`,
  };
};

/** Seconds, or undefined when it is neither a positive number nor one written in digits (some servers quote it). */
const secondsOf = (expiresIn: unknown): number | undefined => {
  const seconds = typeof expiresIn === 'string' && /^[0-9]{1,10}$/.test(expiresIn) ? Number(expiresIn) : expiresIn;
  return typeof seconds === 'number' && Number.isFinite(seconds) && seconds > 0 ? seconds : undefined;
};

/** Whether it only wants to see a nonce of its own in the proof (RFC 9449 section 8). */
export const asksForNonce = ({ status, body }: Pick<ReceivedToken, 'status' | 'body'>): boolean => {
  const answer = status === 400 || status === 401 ? parseObject(body) : undefined;
  return answer !== undefined && own(answer, 'error') === 'use_dpop_nonce';
};

export const readTokenResponse = ({ status, body, requestedAtMs, tokenType: wanted }: ReceivedToken): Obtained | TokenProblem => {
  if (status !== 200) return refused(status, body);
  const answer = parseObject(body);
  if (answer === undefined) return { problem: 'answered with something other than a JSON object' };
  const token = own(answer, 'access_token');
  if (typeof token !== 'string' || token === '') return { problem: 'answered without an access_token' };
  const tokenType = own(answer, 'token_type');
  if (typeof tokenType !== 'string' || tokenType.toLowerCase() !== wanted.toLowerCase())
    return { problem: `answered with a token_type other than ${wanted}` };
  const expiresIn = own(answer, 'expires_in');
  const seconds = expiresIn === undefined ? limits.tokenLifetimeDefaultMs / 1000 : secondsOf(expiresIn);
  if (seconds === undefined) return { problem: 'answered with an expires_in that is not a positive number of seconds' };
  return { value: new Secret(token), expiresAtMs: requestedAtMs + Math.min(Math.floor(seconds * 1000), limits.tokenLifetimeMaxMs) };
};
