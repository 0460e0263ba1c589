/** The broker's own certificate: its SPIFFE ID for proxies, host names for relying parties of the issuer. */
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import { spiffeId } from '../../core/spiffe-id.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import type { Authority } from '../../pki/authority.ts';
import { createKeyPair, type KeyPair } from '../../pki/key.ts';
import { issueSvid } from '../../pki/svid.ts';

export interface ServingIdentity {
  readonly certificateChainPem: string;
  readonly key: KeyPair;
  readonly privateKeyPem: Secret;
  readonly notAfterMs: number;
}

export interface ServingOptions {
  readonly trustDomain: { readonly name: string; readonly authority: () => Authority };
  /** Names and addresses it is called by. */
  readonly hosts: readonly string[];
  readonly clock: Clock;
}

export const pemOfKey = ({ privateKey }: KeyPair): Secret => new Secret(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);

/** By the authority that signs now. */
export const issueServingIdentity = ({ trustDomain, hosts, clock }: ServingOptions): ServingIdentity => {
  const key = createKeyPair();
  const { pem, notAfterMs } = issueSvid(trustDomain.authority(), {
    spiffeId: spiffeId(trustDomain.name, 'outrider', 'broker'),
    publicKey: key.publicKey,
    hosts,
    nowMs: clock.now(),
    lifetimeMs: limits.serverCertificateLifetimeMs,
  });
  return { certificateChainPem: pem, key, privateKeyPem: pemOfKey(key), notAfterMs };
};

export interface ServingRenewal {
  /** At once: who signs, or whom the broker trusts, has changed. */
  readonly renew: () => void;
  readonly close: () => void;
}

/** A new one at half the life of the one before; connections that are open keep theirs. */
export const renewServingIdentity = (
  options: ServingOptions & { readonly current: ServingIdentity; readonly log: Log },
  use: (identity: ServingIdentity) => void,
): ServingRenewal => {
  const { clock, log } = options;
  let { notAfterMs } = options.current;
  let cancel = (): void => undefined;
  const renew = (): void => {
    cancel();
    try {
      const identity = issueServingIdentity(options);
      use(identity);
      ({ notAfterMs } = identity);
      log.info({ expiresAtMs: notAfterMs }, 'serving certificate renewed');
    } catch (error) {
      log.error({ error }, 'the serving certificate could not be renewed');
    }
    schedule();
  };
  const schedule = (): void => {
    // Never at once: an authority about to expire signs certificates that are over before they begin.
    const waitMs = Math.max((notAfterMs - clock.now()) / 2, limits.reconnectPauseMaxMs);
    cancel = clock.after(waitMs, renew);
  };
  schedule();
  return { renew, close: () => cancel() };
};
