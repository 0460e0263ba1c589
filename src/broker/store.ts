/**
 * What the broker must not forget. Two parts: keys, the trust domain's authorities and the token-signing keys, which several brokers
 * may share; and leases, which each broker has for itself. Embedded SQLite holds both (store/sqlite.ts); with `sharedKeys` the
 * keys are in a Secret instead (store/shared-keys.ts). Private keys leave here as `Secret` and are never logged.
 * test/conformance/stores.test.ts is the contract.
 */
import type { Secret } from '../core/secret.ts';

export { createSharedKeys } from './store/shared-keys.ts';
export { openStore } from './store/sqlite.ts';
export { StoreError } from './store/store-error.ts';

export type SigningAlgorithm = 'ES256' | 'RS256';

export interface StoredAuthority {
  readonly certificatePem: string;
  /** PKCS #8 PEM. */
  readonly privateKeyPem: Secret;
  readonly signsFromMs: number;
}

export interface StoredKey {
  /** RFC 7638 thumbprint of the public key. */
  readonly kid: string;
  readonly algorithm: SigningAlgorithm;
  /** PKCS #8 PEM. */
  readonly privateKeyPem: Secret;
  readonly publishedFromMs: number;
  readonly signsFromMs: number;
}

/**
 * What is to be there instead of what is; undefined for no change. Asked again, with what is there by then, when another broker wrote in
 * between: what it gave before was never stored, and nobody has seen it.
 */
export type Decide<K> = (stored: readonly K[]) => Promise<readonly K[] | undefined>;

/** Lists come oldest first by `signsFromMs`. Two authorities of one certificate, or keys of one kid, are an error. */
export interface KeyStore {
  /** What an operator knows it by. */
  readonly name: string;
  readonly authorities: () => Promise<readonly StoredAuthority[]>;
  readonly signingKeys: () => Promise<readonly StoredKey[]>;
  /** What is there then, on disk when it resolves. Whole or not at all. */
  readonly changeAuthorities: (decide: Decide<StoredAuthority>) => Promise<readonly StoredAuthority[]>;
  readonly changeSigningKeys: (decide: Decide<StoredKey>) => Promise<readonly StoredKey[]>;
}

/** A grant that is out. */
export interface Lease {
  readonly grantId: string;
  /** SPIFFE ID. */
  readonly workload: string;
  readonly target: string;
  readonly policy: string;
  readonly policyVersion: string;
  readonly rule: string;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
}

export interface LeaseFilter {
  readonly workload?: string;
  readonly target?: string;
}

export interface LeaseStore {
  /** Survives the end of the process; a power cut may take the last ones. */
  readonly saveLease: (lease: Lease) => Promise<void>;
  /** How many went. */
  readonly deleteExpiredLeases: (nowMs: number) => Promise<number>;
  /** Leases not expired at `nowMs`. */
  readonly countLeases: (nowMs: number) => Promise<number>;
  /** Leases not expired at `nowMs`, oldest first, at most `limits.leasesListMax`. */
  readonly leases: (nowMs: number, filter?: LeaseFilter) => Promise<readonly Lease[]>;
}

export interface BrokerStore extends KeyStore, LeaseStore {
  readonly close: () => Promise<void>;
}

/** Leases where they were, keys elsewhere. */
export const withKeysFrom = (keys: KeyStore, store: BrokerStore): BrokerStore => ({ ...store, ...keys });
