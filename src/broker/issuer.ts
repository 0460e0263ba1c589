/**
 * The broker as an OIDC issuer: short-lived JWTs that clouds and token endpoints can verify by discovery and JWKS, without a
 * stored secret. Keys live in the store, which several brokers may share; when each one is published, signs and goes is arithmetic
 * (issuer/schedule.ts); the documents are served by issuer/serve.ts. Whoever runs it calls `rotate` at `nextRotationMs`.
 */
import assert from 'node:assert/strict';
import { type KeyObject, randomUUID } from 'node:crypto';
import { calculateJwkThumbprint, SignJWT } from 'jose';
import { limits } from '../core/limits.ts';
import { Secret } from '../core/secret.ts';
import type { Clock } from '../ops/clock.ts';
import type { BrokerSettings } from '../settings/broker.ts';
import { inOrder, nextRotationMs, planRotation, publishedKeys, signingKey } from './issuer/schedule.ts';
import { createSigningKey, loadSigningKey, type SigningKey, storable } from './issuer/signing-key.ts';
import type { KeyStore, StoredKey } from './store.ts';

export { type IssuerServer, type IssuerServerOptions, type ServingCertificate, startIssuerServer } from './issuer/serve.ts';

export type IssuerSettings = BrokerSettings['issuer'];

export interface MintOptions {
  readonly audience: string;
  readonly subject: string;
  /** Shortened to `limits.mintedTokenLifetimeMaxMs` and to the key overlap. */
  readonly lifetimeMs: number;
  /** Further claims; none of the registered ones. */
  readonly claims?: Readonly<Record<string, string>>;
  /** The public key whose holder alone may use the token (RFC 9449 section 6): `cnf.jkt`. */
  readonly boundTo?: KeyObject;
}

export interface MintedToken {
  readonly token: Secret;
  /** Exactly the token's `exp`. */
  readonly expiresAtMs: number;
}

export interface TokenIssuer {
  readonly mint: (options: MintOptions) => Promise<MintedToken>;
  /** RFC 7517 section 5: the keys to be published now, public parts only. */
  readonly jwks: () => object;
  /** OpenID Connect Discovery 1.0 section 3. */
  readonly discovery: () => object;
  /** Makes the next key, forgets old ones, and takes over what other brokers did, as far as there is any of that to do. Calls at the same time are one. */
  readonly rotate: () => Promise<void>;
  /** Wall clock: when `rotate` has something to do next. */
  readonly nextRotationMs: () => number;
  /** How many keys are published now. */
  readonly keyCount: () => number;
}

export interface IssuerOptions {
  readonly settings: Pick<IssuerSettings, 'url' | 'algorithm' | 'keyLifetimeMs' | 'keyOverlapMs'>;
  readonly store: Pick<KeyStore, 'changeSigningKeys'>;
  readonly clock: Clock;
}

/** RFC 7519 section 4.1: set by `mint` alone. */
const registeredClaims = new Set(['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti', 'cnf']);

/** RFC 9449 section 6.1, by the thumbprint of RFC 7638. */
const confirmationOf = async (key: KeyObject): Promise<{ readonly cnf: { readonly jkt: string } }> => ({
  cnf: { jkt: await calculateJwkThumbprint(key.export({ format: 'jwk' }), 'sha256') },
});

/** Loads the stored keys and makes what is due, so that it can sign when the promise resolves. */
export const createIssuer = async ({ settings, store, clock }: IssuerOptions): Promise<TokenIssuer> => {
  let keys: readonly SigningKey[] = [];
  /** At the start alone: while brokers with another algorithm still run, each would else replace the other's key for ever. */
  let isStarting = true;
  let rotating: Promise<void> | undefined;

  const load = (stored: StoredKey): SigningKey =>
    keys.find(({ kid, signsFromMs }) => kid === stored.kid && signsFromMs === stored.signsFromMs) ?? loadSigningKey(stored);
  /**
   * A store that was emptied under a running broker gets back what verifiers know. A key that another broker has made there meanwhile
   * signs when verifiers can have learned of it.
   */
  const putBack = (found: readonly StoredKey[], nowMs: number): readonly StoredKey[] => {
    const { keyLifetimeMs, keyOverlapMs } = settings;
    // One that slept for longer does not bring back what the others have forgotten in good order.
    const gone = keys.filter(({ signsFromMs }) => found.length === 0 || nowMs < signsFromMs + keyLifetimeMs + keyOverlapMs);
    if (gone.length === 0 || found.some(({ kid }) => keys.some((one) => one.kid === kid))) return found;
    const late = found.map((one) => ({ ...one, signsFromMs: Math.max(one.signsFromMs, nowMs + keyOverlapMs) }));
    return [...gone.map(storable), ...late];
  };
  const decide = async (found: readonly StoredKey[]): Promise<readonly StoredKey[] | undefined> => {
    const before = putBack(found, clock.now());
    const isOutdated = isStarting && before.at(-1)?.algorithm !== settings.algorithm;
    const { create, forget } = planRotation(inOrder(before), clock.now(), settings, isOutdated);
    if (create === undefined && forget.length === 0 && before === found) return undefined;
    const made = create === undefined ? [] : [storable(await createSigningKey(settings.algorithm, clock.now(), create.signsFromMs))];
    return [...before.filter(({ kid }) => !forget.includes(kid)), ...made];
  };
  const rotate = async (): Promise<void> => {
    // Stored before it is published: a key that a restart forgets must never have been seen.
    keys = inOrder((await store.changeSigningKeys(decide)).map(load));
    isStarting = false;
  };
  const rotateOnce = async (): Promise<void> => {
    rotating ??= rotate().finally(() => {
      rotating = undefined;
    });
    await rotating;
  };
  await rotateOnce();

  const published = (): readonly SigningKey[] => publishedKeys(keys, clock.now(), settings);
  return {
    mint: async ({ audience, subject, lifetimeMs, claims = {}, boundTo }) => {
      assert(!Object.keys(claims).some((name) => registeredClaims.has(name)), 'registered claims are set by the issuer');
      assert(lifetimeMs >= 1000, 'a token lives for a second at least');
      const nowMs = clock.now();
      const key = signingKey(keys, nowMs);
      assert(key, 'a key is made before the first token');
      const issuedAt = Math.floor(nowMs / 1000);
      const expiresAt = issuedAt + Math.floor(Math.min(lifetimeMs, tokenLifetimeMaxMs(settings)) / 1000);
      const token = await new SignJWT({ ...claims, ...(boundTo && (await confirmationOf(boundTo))) })
        .setProtectedHeader({ alg: key.algorithm, kid: key.kid, typ: 'JWT' })
        .setIssuer(settings.url)
        .setSubject(subject)
        .setAudience(audience)
        .setIssuedAt(issuedAt)
        .setNotBefore(issuedAt)
        .setExpirationTime(expiresAt)
        .setJti(randomUUID())
        .sign(key.privateKey);
      return { token: new Secret(token), expiresAtMs: expiresAt * 1000 };
    },
    jwks: () => ({ keys: published().map(({ publicJwk }) => publicJwk) }),
    discovery: () => ({
      issuer: settings.url,
      jwks_uri: `${settings.url.replace(/\/$/, '')}/jwks`,
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: [...new Set(published().map(({ algorithm }) => algorithm))],
    }),
    rotate: rotateOnce,
    nextRotationMs: () => nextRotationMs(keys, settings),
    keyCount: () => published().length,
  };
};

/** No token outlives the publication of its key (see issuer/schedule.ts). */
const tokenLifetimeMaxMs = ({ keyOverlapMs }: IssuerOptions['settings']): number => Math.min(limits.mintedTokenLifetimeMaxMs, keyOverlapMs);
