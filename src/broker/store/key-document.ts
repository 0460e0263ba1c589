/**
 * The keys that several brokers share, as one JSON document in a Secret: readable by people, told apart by `version`, and strict, so
 * that what somebody damaged is refused whole rather than used in part. Says nothing of what it read in an error.
 */
import { isJsonObject, type JsonObject } from '../../core/json.ts';
import { Secret } from '../../core/secret.ts';
import type { SigningAlgorithm, StoredAuthority, StoredKey } from '../store.ts';
import { StoreError } from './store-error.ts';

export interface KeyDocument {
  readonly authorities: readonly StoredAuthority[];
  readonly signingKeys: readonly StoredKey[];
}

const version = 1;
const algorithms: readonly SigningAlgorithm[] = ['ES256', 'RS256'];

/** Throws StoreError when it would not be read again. */
export const keyDocumentText = (document: KeyDocument, place: string): string => {
  const plain = <K extends StoredAuthority | StoredKey>(key: K) => ({ ...key, privateKeyPem: key.privateKeyPem.reveal() });
  const text = JSON.stringify({ version, authorities: document.authorities.map(plain), signingKeys: document.signingKeys.map(plain) });
  readKeyDocument(text, place);
  return text;
};

/** Throws StoreError. `place` is what it is called in the message. */
export const readKeyDocument = (text: string, place: string): KeyDocument => {
  const refuse = (why: string): never => {
    throw new StoreError(
      `${place} ${why}: put back a copy, or empty its data (a broker that runs puts back the keys it has; where none does, there is a new authority and every proxy needs the new trust bundle).`,
    );
  };
  const document = parsed(text) ?? refuse('is not JSON');
  const { version: written, authorities, signingKeys } = document;
  if (typeof written === 'number' && written > version) {
    throw new StoreError(`${place} was written by a newer Outrider (version ${written}; this one knows ${version}): run that version.`);
  }
  if (written !== version || !isList(authorities) || !isList(signingKeys)) return refuse('is not a list of keys that Outrider wrote');
  if (!authorities.every(isAuthority)) return refuse('holds an authority that is not whole');
  if (!signingKeys.every(isSigningKey)) return refuse('holds a signing key that is not whole');
  if (!isUnique(authorities.map(({ certificatePem }) => certificatePem))) return refuse('holds an authority twice');
  if (!isUnique(signingKeys.map(({ kid }) => kid))) return refuse('holds a signing key twice');
  const secret = <K extends { readonly privateKeyPem: string }>(key: K) => ({ ...key, privateKeyPem: new Secret(key.privateKeyPem) });
  return {
    authorities: authorities.map(secret).toSorted((a, b) => a.signsFromMs - b.signsFromMs),
    signingKeys: signingKeys.map(secret).toSorted((a, b) => a.signsFromMs - b.signsFromMs || (a.kid < b.kid ? -1 : 1)),
  };
};

type Plain<K> = Omit<K, 'privateKeyPem'> & { readonly privateKeyPem: string };

const parsed = (text: string): JsonObject | undefined => {
  try {
    const value: unknown = JSON.parse(text);
    return isJsonObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
};

const isList = (value: unknown): value is readonly unknown[] => Array.isArray(value);
const isUnique = (values: readonly string[]): boolean => new Set(values).size === values.length;

const has = (value: unknown, texts: readonly string[], times: readonly string[]): value is JsonObject =>
  isJsonObject(value) &&
  texts.every((name) => typeof value[name] === 'string' && value[name] !== '') &&
  times.every((name) => Number.isFinite(value[name]));

const isAuthority = (value: unknown): value is Plain<StoredAuthority> => has(value, ['certificatePem', 'privateKeyPem'], ['signsFromMs']);
const isSigningKey = (value: unknown): value is Plain<StoredKey> =>
  has(value, ['kid', 'algorithm', 'privateKeyPem'], ['publishedFromMs', 'signsFromMs']) &&
  algorithms.includes(value['algorithm'] as SigningAlgorithm);
