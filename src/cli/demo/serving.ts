/** A throw-away authority and one serving certificate by it, for the demo's HTTPS stand-ins. Both keys end with the process. */
import type { Clock } from '../../ops/clock.ts';
import { createAuthority } from '../../pki/authority.ts';
import { createKeyPair } from '../../pki/key.ts';
import { issueLeaf } from '../../pki/leaf.ts';

/** Outlives any demo. */
const lifetimeMs = 30 * 24 * 3_600_000;

export interface Serving {
  /** What clients must trust. */
  readonly caPem: string;
  readonly certPem: string;
  readonly keyPem: string;
}

/** `host` is a DNS name or an address. */
export const createServing = (commonName: string, host: string, clock: Clock): Serving => {
  const nowMs = clock.now();
  const authority = createAuthority({ commonName, key: createKeyPair(), nowMs, lifetimeMs, permittedHosts: [host] });
  const key = createKeyPair();
  const leaf = issueLeaf(authority, { host, publicKey: key.publicKey, nowMs, lifetimeMs });
  const keyPem = key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  return { caPem: authority.certificatePem, certPem: leaf.pem, keyPem };
};
