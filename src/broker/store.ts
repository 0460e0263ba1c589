/**
 * What the broker must not forget: the trust domain's authority, the token-signing keys and the leases. Embedded SQLite today
 * (store/sqlite.ts); every method answers with a promise so that a database over the network fits the same type. Private keys
 * leave here as `Secret` and are never logged. test/conformance/stores.test.ts is the contract.
 */
import type { Secret } from '../core/secret.ts';

export { openStore } from './store/sqlite.ts';
export { StoreError } from './store/store-error.ts';

export type SigningAlgorithm = 'ES256' | 'RS256';

export interface StoredAuthority {
  readonly certificatePem: string;
  /** PKCS #8 PEM. */
  readonly privateKeyPem: Secret;
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

export interface BrokerStore {
  readonly authority: () => Promise<StoredAuthority | undefined>;
  /** Replaces the one before. On disk when it resolves. */
  readonly saveAuthority: (authority: StoredAuthority) => Promise<void>;
  /** Oldest first by `signsFromMs`. */
  readonly signingKeys: () => Promise<readonly StoredKey[]>;
  /** On disk when it resolves. A kid that is there already is an error. */
  readonly saveSigningKey: (key: StoredKey) => Promise<void>;
  readonly deleteSigningKey: (kid: string) => Promise<void>;
  /** Survives the end of the process; a power cut may take the last ones. */
  readonly saveLease: (lease: Lease) => Promise<void>;
  /** Expired ones too, as long as they are not deleted. */
  readonly lease: (grantId: string) => Promise<Lease | undefined>;
  /** How many went. */
  readonly deleteExpiredLeases: (nowMs: number) => Promise<number>;
  /** Leases not expired at `nowMs`. */
  readonly countLeases: (nowMs: number) => Promise<number>;
  /** Leases not expired at `nowMs`, oldest first, at most `limits.leasesListMax`. */
  readonly leases: (nowMs: number, filter?: LeaseFilter) => Promise<readonly Lease[]>;
  readonly close: () => Promise<void>;
}
