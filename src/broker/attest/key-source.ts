/**
 * An issuer's public keys: found by discovery, kept, and read again when they are old or one is missing. One read at a time,
 * and not more often than `limits.jwksCooldownMs` however many tokens name unknown keys. While the issuer is away the keys
 * serve on until they are `limits.jwksStaleMaxMs` old. Keys come from here alone, never from a token.
 */
import { createPublicKey, type KeyObject } from 'node:crypto';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { type OutboundFetch, outboundFetch } from '../../net/fetch.ts';
import type { ProjectedTokenAttestorSettings } from '../../settings/broker.ts';
import type { AttestorDeps } from './attestor.ts';
import type { TokenAlgorithm } from './compact-token.ts';
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { readBearerFile, readCaFile } from '../../net/trust-files.ts';

export interface KeySource {
  /** Throws evidence_invalid when the issuer has no such key, evidence_unverifiable when that cannot be known. */
  readonly keyFor: (keyId: string, algorithm: TokenAlgorithm) => Promise<KeyObject>;
}

export interface PublishedKey {
  readonly keyId: string;
  readonly algorithm: TokenAlgorithm;
  readonly key: KeyObject;
}

type KeySourceSettings = Pick<ProjectedTokenAttestorSettings, 'name' | 'issuer' | 'caFile' | 'authorizationTokenFile'>;

export const createKeySource = (settings: KeySourceSettings, { clock, log }: AttestorDeps): KeySource => {
  let current: { readonly keys: readonly PublishedKey[]; readonly readAtMs: number } | undefined;
  let attemptedAtMs = Number.NEGATIVE_INFINITY;
  let hasFailed = false;
  let reading: Promise<void> | undefined;

  const read = async (): Promise<void> => {
    const readAtMs = clock.monotonic();
    try {
      current = { keys: await readKeys(settings), readAtMs };
      hasFailed = false;
    } catch (error) {
      hasFailed = true;
      log.warn({ attestor: settings.name, issuer: settings.issuer, error }, "the issuer's keys could not be read");
    } finally {
      attemptedAtMs = clock.monotonic();
      reading = undefined;
    }
  };
  const readUnlessCooling = async (): Promise<void> => {
    if (reading === undefined && clock.monotonic() - attemptedAtMs < limits.jwksCooldownMs) return;
    reading ??= read();
    await reading;
  };
  const ageMs = (): number => (current === undefined ? Number.POSITIVE_INFINITY : clock.monotonic() - current.readAtMs);
  const find = (keyId: string, algorithm: TokenAlgorithm): KeyObject | undefined =>
    current?.keys.find((known) => known.keyId === keyId && known.algorithm === algorithm)?.key;

  return {
    keyFor: async (keyId, algorithm) => {
      if (ageMs() >= limits.jwksLifetimeMs) await readUnlessCooling();
      if (ageMs() >= limits.jwksStaleMaxMs) throw new Fault('evidence_unverifiable', { detail: "The issuer's keys cannot be read." });
      const known = find(keyId, algorithm);
      if (known) return known;
      await readUnlessCooling();
      const found = find(keyId, algorithm);
      if (found) return found;
      if (hasFailed)
        throw new Fault('evidence_unverifiable', { detail: "The token names a new key, and the issuer's keys cannot be read." });
      throw new Fault('evidence_invalid', { detail: 'The issuer publishes no key of the name and algorithm in the token.' });
    },
  };
};

/** Discovery, then JWKS (OpenID Connect Discovery 1.0 section 4), both within one deadline. */
const readKeys = async (settings: KeySourceSettings): Promise<readonly PublishedKey[]> => {
  const { issuer, authorizationTokenFile } = settings;
  const caPem = await readCaFile(settings.caFile);
  const bearer = authorizationTokenFile === undefined ? undefined : await readBearerFile(authorizationTokenFile);
  const fetch = outboundFetch({ caPem, timeoutMs: limits.outboundTimeoutMs, bodyBytesMax: limits.outboundBodyBytesMax });
  const signal = AbortSignal.timeout(limits.outboundTimeoutMs);
  const get = (url: URL, withBearer: boolean): Promise<JsonObject> =>
    getJson(
      fetch,
      url,
      // A real API server has its keys as a JWK set alone, and answers 406 to who takes plain JSON only (RFC 7517 section 8.5.2).
      {
        accept: 'application/jwk-set+json, application/json',
        ...(bearer && withBearer ? { authorization: `Bearer ${bearer.reveal()}` } : {}),
      },
      signal,
    );

  const discoveryUrl = new URL(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`);
  const { issuer: named, jwks_uri: jwksUri } = (await get(discoveryUrl, true)) as { issuer?: unknown; jwks_uri?: unknown };
  if (named !== issuer) throw new Error('the discovery document is for another issuer');
  const jwksUrl = typeof jwksUri === 'string' && URL.canParse(jwksUri) ? new URL(jwksUri) : undefined;
  if (jwksUrl?.protocol !== 'https:') throw new Error('jwks_uri in the discovery document is not an https URL');
  // API servers often name themselves by another address. A host that the configured CA vouches for may be shown the broker's
  // token; one that any public authority vouches for may not.
  const keySet = await get(jwksUrl, jwksUrl.origin === discoveryUrl.origin || caPem !== undefined);
  const keys = publishedKeys(keySet['keys']);
  if (keys.length === 0) throw new Error('the issuer publishes no key that can verify tokens');
  return keys;
};

const getJson = async (fetch: OutboundFetch, url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<JsonObject> => {
  const response = await fetch(url, { headers, signal });
  if (response.status !== 200) throw new Error(`${url.origin} answered ${response.status}`);
  // Not response.json(): its errors quote what was received.
  const value = parseOrUndefined(await response.text());
  if (!isJsonObject(value)) throw new Error(`${url.origin} did not answer with a JSON object`);
  return value;
};

const parseOrUndefined = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};

/** The keys that may verify tokens; others in the set are none of our business (RFC 7517 section 5). */
export const publishedKeys = (keys: unknown): readonly PublishedKey[] => {
  const all: readonly unknown[] = Array.isArray(keys) ? keys.slice(0, limits.jwksKeysMax) : [];
  return all.map(publishedKey).filter((key) => key !== undefined);
};

const curves: Readonly<Record<string, TokenAlgorithm>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' };

const publishedKey = (jwk: unknown): PublishedKey | undefined => {
  if (!isJsonObject(jwk)) return undefined;
  const { kid, kty, alg, use, d } = jwk as { kid?: unknown; kty?: unknown; alg?: unknown; use?: unknown; d?: unknown };
  // A private key in a public place is anyone's: what it signs proves nothing.
  if (typeof kid !== 'string' || (kty !== 'RSA' && kty !== 'EC') || (use !== undefined && use !== 'sig') || d !== undefined)
    return undefined;
  const key = importOrUndefined(jwk);
  const details = key?.asymmetricKeyDetails;
  // RFC 7518 section 3.3: at least 2048 bits.
  const algorithm = kty === 'EC' ? curves[details?.namedCurve ?? ''] : (details?.modulusLength ?? 0) >= 2048 ? 'RS256' : undefined;
  if (key === undefined || algorithm === undefined || (alg !== undefined && alg !== algorithm)) return undefined;
  return { keyId: kid, algorithm, key };
};

const importOrUndefined = (jwk: JsonObject): KeyObject | undefined => {
  try {
    return createPublicKey({ key: jwk, format: 'jwk' });
  } catch {
    return undefined;
  }
};
