/**
 * Bytes that call themselves a token → header and claims, still unverified. Everything here is refused before a cryptographic
 * library sees it, because libraries differ in what they forgive (THREATS P-6): spaces, padding, bits left over in base64,
 * names given twice, headers that name their own key. Says nothing about whether the token is genuine.
 */
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { Secret } from '../../core/secret.ts';
import { type JsonObject } from '../../core/json.ts';
import { parseStrictJson } from './strict-json.ts';

/** What Kubernetes signs with; asymmetric all of them, so no published key can serve as a shared secret. */
const tokenAlgorithms = ['RS256', 'ES256', 'ES384', 'ES512'] as const;
export type TokenAlgorithm = (typeof tokenAlgorithms)[number];

export interface UnverifiedToken {
  /** RFC 7515 section 7.1, exactly as received. */
  readonly compact: Secret;
  readonly algorithm: TokenAlgorithm;
  readonly keyId: string;
  readonly claims: JsonObject;
}

/** Parameters that bring a key along, point to one, or change what is signed (RFC 7515 section 4.1, RFC 7797). */
const refusedParameters = ['crit', 'b64', 'jku', 'jwk', 'x5u', 'x5c', 'zip', 'enc'];

const invalid = (detail: string): Fault => new Fault('evidence_invalid', { detail });

/** Throws Fault evidence_missing for nothing at all, evidence_invalid for anything that is not a strict compact JWS. */
export const readCompactToken = (compact: Secret): UnverifiedToken => {
  const raw = compact.reveal();
  if (raw === '') throw new Fault('evidence_missing');
  if (raw.length > limits.evidenceBytesMax) throw invalid(`The token is longer than ${limits.evidenceBytesMax} bytes.`);
  const parts = raw.split('.');
  if (parts.length !== 3) throw invalid('The token is not three parts joined by dots.');
  const [headerBytes, payloadBytes, signature] = parts.map(decodeCanonical);
  if (headerBytes === undefined || payloadBytes === undefined || signature === undefined) {
    throw invalid('A part of the token is empty or not canonical base64url.');
  }
  const header = parseStrictJson(decodeUtf8(headerBytes), limits.tokenDepthMax);
  if (header === undefined) throw invalid("The token's header is not a plain JSON object.");
  const claims = parseStrictJson(decodeUtf8(payloadBytes), limits.tokenDepthMax);
  if (claims === undefined) throw invalid("The token's claims are not a plain JSON object.");
  return { compact, ...readHeader(header), claims };
};

const readHeader = (header: JsonObject): { algorithm: TokenAlgorithm; keyId: string } => {
  const refused = refusedParameters.find((name) => Object.hasOwn(header, name));
  if (refused !== undefined) throw invalid(`The token's header has "${refused}".`);
  const { alg, kid, typ } = header as { alg?: unknown; kid?: unknown; typ?: unknown };
  const algorithm = tokenAlgorithms.find((known) => known === alg);
  if (algorithm === undefined) throw invalid(`The token's algorithm is not one of ${tokenAlgorithms.join(', ')}.`);
  // Kubernetes writes none or JWT; another type is a token made for something else (RFC 8725 section 3.11).
  if (typ !== undefined && !(typeof typ === 'string' && typ.toUpperCase() === 'JWT')) throw invalid("The token's type is not JWT.");
  if (typeof kid !== 'string' || kid === '' || kid.length > 256) throw invalid("The token's header does not name its key.");
  return { algorithm, keyId: kid };
};

/** Base64url without padding, and the only spelling of its bytes: what is left over in the last character is zero. */
const decodeCanonical = (part: string): Buffer | undefined => {
  if (!/^[A-Za-z0-9_-]+$/.test(part)) return undefined;
  const bytes = Buffer.from(part, 'base64url');
  return bytes.toString('base64url') === part ? bytes : undefined;
};

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** '' for bytes that are not UTF-8: no JSON object, so refused by the caller. */
const decodeUtf8 = (bytes: Buffer): string => {
  try {
    return utf8.decode(bytes);
  } catch {
    return '';
  }
};
