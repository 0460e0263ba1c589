/** A token-signing key in memory and in the store. The private part stays in this process: only `publicJwk` is published. */
import { createPrivateKey, createPublicKey, generateKeyPair, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';
import { calculateJwkThumbprint, type JWK } from 'jose';
import { Secret } from '../../core/secret.ts';
import { type SigningAlgorithm, StoreError, type StoredKey } from '../store.ts';
import type { ScheduledKey } from './schedule.ts';

export interface SigningKey extends ScheduledKey, StoredKey {
  readonly privateKey: KeyObject;
  /** With kid, alg and use; no private member. */
  readonly publicJwk: JWK;
}

const generate = promisify(generateKeyPair);

/** Off the event loop: an RSA pair takes 100 ms and more. */
export const createSigningKey = async (algorithm: SigningAlgorithm, publishedFromMs: number, signsFromMs: number): Promise<SigningKey> => {
  const { privateKey } =
    algorithm === 'ES256' ? await generate('ec', { namedCurve: 'P-256' }) : await generate('rsa', { modulusLength: 2048 });
  const kid = await calculateJwkThumbprint(publicPart(privateKey));
  const privateKeyPem = new Secret(privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
  return withKey({ kid, algorithm, privateKeyPem, publishedFromMs, signsFromMs }, privateKey);
};

/** Throws StoreError when the stored key cannot be read. */
export const loadSigningKey = (stored: StoredKey): SigningKey => {
  let privateKey: KeyObject;
  try {
    privateKey = createPrivateKey(stored.privateKeyPem.reveal());
  } catch {
    // Without the cause: what OpenSSL says of a key stays out of logs.
    throw new StoreError(`The stored signing key ${stored.kid} cannot be read: restore the broker's state from a copy, or delete the key.`);
  }
  return withKey(stored, privateKey);
};

export const storable = ({ kid, algorithm, privateKeyPem, publishedFromMs, signsFromMs }: SigningKey): StoredKey => ({
  kid,
  algorithm,
  privateKeyPem,
  publishedFromMs,
  signsFromMs,
});

const withKey = (stored: StoredKey, privateKey: KeyObject): SigningKey => ({
  ...stored,
  privateKey,
  publicJwk: { ...publicPart(privateKey), kid: stored.kid, alg: stored.algorithm, use: 'sig' },
});

const publicPart = (privateKey: KeyObject): JWK => createPublicKey(privateKey).export({ format: 'jwk' });
