/** Certificates made at run time by our own authority code, for servers that tests start. */
import { type Authority, createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueLeaf } from '../../src/pki/leaf.ts';

export interface ServerFiles {
  /** Leaf first. */
  readonly cert: string;
  readonly key: string;
}

/** A trust domain's, as the broker makes it. */
export const createSpiffeAuthority = (nowMs = Date.now(), lifetimeMs = 30 * 24 * 3_600_000): Authority =>
  createAuthority({ commonName: 'Outrider outrider.test', key: createKeyPair(), nowMs, lifetimeMs, spiffeTrustDomain: 'outrider.test' });

export interface TestAuthority {
  readonly pem: string;
  /** For `node:https` and `node:tls`. */
  readonly serverFor: (host: string) => ServerFiles;
}

export const createTestAuthority = (commonName = 'Outrider test authority'): TestAuthority => {
  const authority = createAuthority({ commonName, key: createKeyPair(), nowMs: Date.now(), lifetimeMs: 3_600_000 });
  return {
    pem: authority.certificatePem,
    serverFor: (host) => {
      const key = createKeyPair();
      const leaf = issueLeaf(authority, { host, publicKey: key.publicKey, nowMs: Date.now(), lifetimeMs: 3_600_000 });
      return { cert: leaf.pem, key: key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string };
    },
  };
};
