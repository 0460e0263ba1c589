/**
 * The trust domain: its authority (kept in the store, made on the first start), its public bundle (a file for proxies and
 * collectors to mount), and the broker's own serving certificate. Private keys go to the store and to TLS, nowhere else.
 */
import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { limits } from '../core/limits.ts';
import { Secret } from '../core/secret.ts';
import { spiffeId } from '../core/spiffe-id.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import { type Authority, createAuthority, loadAuthority } from '../pki/authority.ts';
import { createKeyPair, type KeyPair } from '../pki/key.ts';
import { issueSvid } from '../pki/svid.ts';
import type { BrokerStore } from './store.ts';

export interface TrustDomain {
  readonly name: string;
  /** What signs from now on. */
  readonly authority: Authority;
  /** What is trusted, DER. */
  readonly bundle: readonly Buffer[];
  readonly bundlePem: string;
}

export interface TrustDomainOptions {
  readonly name: string;
  readonly store: Pick<BrokerStore, 'authority' | 'saveAuthority'>;
  readonly clock: Clock;
  readonly log: Log;
}

const pemOfKey = ({ privateKey }: KeyPair): Secret => new Secret(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);

/** From the store, or made and stored. Throws when what is stored belongs to another trust domain. */
export const openTrustDomain = async ({ name, store, clock, log }: TrustDomainOptions): Promise<TrustDomain> => {
  const stored = await store.authority();
  if (stored !== undefined) {
    const authority = loadAuthority(stored.certificatePem, stored.privateKeyPem.reveal());
    const { subjectAltName } = new X509Certificate(authority.certificateDer);
    if (subjectAltName !== `URI:${spiffeId(name)}`) {
      throw new Error(
        `the store holds the authority of another trust domain (${subjectAltName}), not of ${name}: give this broker a stateDir of its own`,
      );
    }
    if (authority.notAfterMs > clock.now()) return trustDomainOf(name, authority);
    log.warn(
      { expiredAtMs: authority.notAfterMs },
      "the trust domain's authority has expired and is replaced: every proxy and collector needs the new bundle",
    );
  }
  const key = createKeyPair();
  const lifetimeMs = limits.trustDomainAuthorityLifetimeMs;
  const authority = createAuthority({ commonName: `Outrider ${name}`, key, nowMs: clock.now(), lifetimeMs, spiffeTrustDomain: name });
  await store.saveAuthority({ certificatePem: authority.certificatePem, privateKeyPem: pemOfKey(key) });
  log.info({ trustDomain: name, expiresAtMs: authority.notAfterMs }, 'authority of the trust domain made');
  return trustDomainOf(name, authority);
};

const trustDomainOf = (name: string, authority: Authority): TrustDomain => ({
  name,
  authority,
  bundle: [authority.certificateDer],
  bundlePem: authority.certificatePem,
});

/** Whole or not at all: readers that mount the file never see half of it. Mode 0644 whatever the umask: it is public. */
export const writeBundle = (file: string, pem: string): void => {
  mkdirSync(dirname(file), { recursive: true });
  const temporary = join(dirname(file), `.${basename(file)}.${process.pid}`);
  writeFileSync(temporary, pem);
  chmodSync(temporary, 0o644);
  renameSync(temporary, file);
};

/** The broker's own certificate: its SPIFFE ID for proxies, host names for relying parties of the issuer. */
export interface ServingIdentity {
  readonly certificateChainPem: string;
  readonly key: KeyPair;
  readonly privateKeyPem: Secret;
  readonly notAfterMs: number;
}

export interface ServingOptions {
  readonly trustDomain: TrustDomain;
  /** Names and addresses it is called by. */
  readonly hosts: readonly string[];
  readonly clock: Clock;
}

export const issueServingIdentity = ({ trustDomain, hosts, clock }: ServingOptions): ServingIdentity => {
  const key = createKeyPair();
  const { pem, notAfterMs } = issueSvid(trustDomain.authority, {
    spiffeId: spiffeId(trustDomain.name, 'outrider', 'broker'),
    publicKey: key.publicKey,
    hosts,
    nowMs: clock.now(),
    lifetimeMs: limits.serverCertificateLifetimeMs,
  });
  return { certificateChainPem: pem, key, privateKeyPem: pemOfKey(key), notAfterMs };
};

/** A new one at half the life of the one before; connections that are open keep theirs. */
export const renewServingIdentity = (
  options: ServingOptions & { readonly current: ServingIdentity; readonly log: Log },
  use: (identity: ServingIdentity) => void,
): { readonly close: () => void } => {
  const { clock, log } = options;
  let { notAfterMs } = options.current;
  let cancel = (): void => undefined;
  const schedule = (): void => {
    // Never at once: an authority about to expire signs certificates that are over before they begin.
    const waitMs = Math.max((notAfterMs - clock.now()) / 2, limits.reconnectPauseMaxMs);
    cancel = clock.after(waitMs, () => {
      try {
        const identity = issueServingIdentity(options);
        use(identity);
        ({ notAfterMs } = identity);
        log.info({ expiresAtMs: notAfterMs }, 'serving certificate renewed');
      } catch (error) {
        log.error({ error }, 'the serving certificate could not be renewed');
      }
      schedule();
    });
  };
  schedule();
  return { close: () => cancel() };
};
