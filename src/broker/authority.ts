/**
 * The trust domain: its authorities (kept in the store, made when they are due), its public bundle (a file for proxies and collectors
 * to mount), and the broker's own serving certificate. When each authority is made, signs and goes is arithmetic
 * (pki/authority-schedule.ts). Private keys go to the store and to TLS, nowhere else. Whoever runs it calls `rotate` at `nextRotationMs`.
 */
import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { limits } from '../core/limits.ts';
import { spiffeId } from '../core/spiffe-id.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import { type Authority, createAuthority, loadAuthority } from '../pki/authority.ts';
import { createKeyPair } from '../pki/key.ts';
import { derivedKey } from './authority/derived-key.ts';
import {
  type AuthoritySchedule,
  announcedMs,
  inOrder,
  nextChangeMs,
  planAuthorities,
  signingAuthority,
} from '../pki/authority-schedule.ts';
import { type KeyStore, type StoredAuthority, StoreError } from './store.ts';
import { pemOfKey } from './authority/serving.ts';

export {
  issueServingIdentity,
  renewServingIdentity,
  type ServingIdentity,
  type ServingOptions,
  type ServingRenewal,
} from './authority/serving.ts';

export interface TrustDomain {
  readonly name: string;
  /** What signs now. */
  readonly authority: () => Authority;
  /** What is trusted, DER. */
  readonly bundle: () => readonly Buffer[];
  readonly bundlePem: () => string;
  /** Keys for one purpose that all brokers of the trust domain have; the one to use now first, and then those of before. */
  readonly derivedKeys: (purpose: string) => readonly [Buffer, ...Buffer[]];
  /** Makes the next authority, drops expired ones, and takes over what other brokers made, as far as there is any of that to do. */
  readonly rotate: () => Promise<void>;
  /** Wall clock: when `rotate` has something to do next. */
  readonly nextRotationMs: () => number;
}

export interface TrustDomainOptions {
  readonly name: string;
  readonly store: Pick<KeyStore, 'name' | 'changeAuthorities'>;
  readonly clock: Clock;
  readonly log: Log;
}

export const authoritySchedule: AuthoritySchedule = {
  lifetimeMs: limits.trustDomainAuthorityLifetimeMs,
  announcementMs: limits.trustDomainAuthorityAnnouncementMs,
  signedLifetimeMaxMs: limits.serverCertificateLifetimeMs,
};

const expired = "the trust domain's authority has expired and is replaced: every proxy and collector needs the new bundle";

interface Known extends Authority {
  readonly signsFromMs: number;
  readonly stored: StoredAuthority;
}

/** From the store, or made and stored. Throws StoreError when what is stored belongs to another trust domain or cannot be read. */
export const openTrustDomain = async ({ name, store, clock, log }: TrustDomainOptions): Promise<TrustDomain> => {
  let known: readonly Known[] = [];
  let hasExpired = false;

  const load = (stored: StoredAuthority): Known =>
    known.find((one) => one.certificatePem === stored.certificatePem && one.signsFromMs === stored.signsFromMs) ??
    loadStored(stored, name, store.name);

  /**
   * A store that was emptied under a running broker (a tool that puts objects back as they were made) gets back what everybody trusts. What
   * another broker has made there meanwhile, which knew of nothing, signs when everybody can have learned of it.
   */
  const putBack = (found: readonly StoredAuthority[], nowMs: number): readonly StoredAuthority[] => {
    const gone = known.filter(({ notAfterMs }) => notAfterMs > nowMs);
    const latest = gone.at(-1);
    if (latest === undefined || found.some(({ certificatePem }) => known.some((one) => one.certificatePem === certificatePem)))
      return found;
    log.warn({ trustDomain: name }, `the authorities are gone from ${store.name} and are put back`);
    const fromMs = announcedMs(latest, nowMs, authoritySchedule);
    const late = found.map((one) => ({ ...one, signsFromMs: Math.max(one.signsFromMs, fromMs) }));
    return [...gone.map(({ stored }) => stored), ...late];
  };

  const decide = async (found: readonly StoredAuthority[]): Promise<readonly StoredAuthority[] | undefined> => {
    const nowMs = clock.now();
    const before = putBack(found, nowMs);
    const { create, keep } = planAuthorities(inOrder(before.map(load)), nowMs, authoritySchedule);
    hasExpired = keep.length === 0 && before.length + known.length > 0;
    if (create === undefined && keep.length === found.length && before === found) return undefined;
    const kept = keep.map(({ stored }) => stored);
    return create === undefined ? kept : [...kept, makeAuthority(name, nowMs, create.signsFromMs)];
  };

  const rotate = async (): Promise<void> => {
    const before = known;
    known = inOrder((await store.changeAuthorities(decide)).map(load));
    for (const one of known.filter((each) => !before.includes(each))) {
      const { signsFromMs, notAfterMs } = one;
      log.info({ trustDomain: name, signsFromMs, expiresAtMs: notAfterMs }, 'authority of the trust domain in the bundle');
    }
    if (hasExpired) log.warn({ trustDomain: name }, expired);
  };

  await rotate();
  const signing = (): Known => signingAuthority(known, clock.now()) as Known;
  return {
    name,
    authority: signing,
    bundle: () => known.map(({ certificateDer }) => certificateDer),
    bundlePem: () => known.map(({ certificatePem }) => certificatePem).join(''),
    derivedKeys: (purpose) => {
      const first = signing();
      return [derivedKey(first, purpose), ...known.filter((one) => one !== first).map((one) => derivedKey(one, purpose))];
    },
    rotate,
    nextRotationMs: () => nextChangeMs(known, clock.now(), authoritySchedule),
  };
};

const loadStored = (stored: StoredAuthority, name: string, place: string): Known => {
  let authority: Authority;
  try {
    authority = loadAuthority(stored.certificatePem, stored.privateKeyPem.reveal());
  } catch {
    // Without the cause: what OpenSSL says of a key stays out of logs.
    throw new StoreError(`An authority in ${place} cannot be read: restore it from a copy.`);
  }
  const { subjectAltName } = new X509Certificate(authority.certificateDer);
  if (subjectAltName === `URI:${spiffeId(name)}`) return { ...authority, signsFromMs: stored.signsFromMs, stored };
  throw new StoreError(
    `${place} holds the authority of another trust domain (${subjectAltName}), not of ${name}: each trust domain needs a place of its own.`,
  );
};

const makeAuthority = (name: string, nowMs: number, signsFromMs: number): StoredAuthority => {
  const key = createKeyPair();
  const lifetimeMs = limits.trustDomainAuthorityLifetimeMs;
  const { certificatePem } = createAuthority({ commonName: `Outrider ${name}`, key, nowMs, lifetimeMs, spiffeTrustDomain: name });
  return { certificatePem, privateKeyPem: pemOfKey(key), signsFromMs };
};

/** Whole or not at all: readers that mount the file never see half of it. Mode 0644 whatever the umask: it is public. */
export const writeBundle = (file: string, pem: string): void => {
  mkdirSync(dirname(file), { recursive: true });
  const temporary = join(dirname(file), `.${basename(file)}.${process.pid}`);
  writeFileSync(temporary, pem);
  chmodSync(temporary, 0o644);
  renameSync(temporary, file);
};
