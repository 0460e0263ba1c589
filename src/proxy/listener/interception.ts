/**
 * The interception authority: made at start, its key in memory only, constrained to the hosts that targets name. It is written
 * (certificate only) to the bundle that programs trust, and never to the proxy's own trust store.
 */
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';
import { type Authority, createAuthority } from '../../pki/authority.ts';
import { createKeyPair } from '../../pki/key.ts';
import { issueLeaf } from '../../pki/leaf.ts';

export interface Interception {
  /** Names the hosts that may be intercepted from now on; rewrites the bundle when they changed. */
  readonly permit: (hosts: readonly string[]) => void;
  /** TLS context with a leaf for a permitted host. */
  readonly contextFor: (host: string) => SecureContext;
}

export interface InterceptionOptions {
  readonly bundleFile: string;
  readonly commonName: string;
  readonly clock: Clock;
  readonly onMint?: () => void;
}

interface CachedLeaf {
  readonly context: SecureContext;
  readonly renewAtMs: number;
}

export const createInterception = ({ bundleFile, commonName, clock, onMint }: InterceptionOptions): Interception => {
  const authorityKey = createKeyPair();
  // One key for all leaves: making one is the dear part, and they live in the same memory.
  const leafKey = createKeyPair();
  const leafKeyPem = leafKey.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const leaves = new Map<string, CachedLeaf>();
  let authority: Authority | undefined;
  let permitted = new Set<string>();

  const mint = (host: string): CachedLeaf => {
    if (!authority || !permitted.has(host)) throw new TypeError(`no leaf may be made for ${host}`);
    const leaf = issueLeaf(authority, { host, publicKey: leafKey.publicKey, nowMs: clock.now(), lifetimeMs: limits.leafLifetimeMs });
    onMint?.();
    // The authority goes along: a program may trust it by a copy whose constraints have since changed.
    const context = createSecureContext({ cert: leaf.pem + authority.certificatePem, key: leafKeyPem, minVersion: 'TLSv1.2' });
    return { context, renewAtMs: clock.now() + limits.leafLifetimeMs / 2 };
  };

  return {
    permit: (hosts) => {
      const wanted = new Set(hosts);
      if (authority && wanted.size === permitted.size && hosts.every((host) => permitted.has(host))) return;
      permitted = wanted;
      authority = createAuthority({
        commonName,
        key: authorityKey,
        nowMs: clock.now(),
        lifetimeMs: limits.interceptionAuthorityLifetimeMs,
        permittedHosts: [...wanted].toSorted(),
      });
      leaves.clear();
      writeBundle(bundleFile, authority.certificatePem);
    },
    contextFor: (host) => {
      const known = leaves.get(host);
      if (known && clock.now() < known.renewAtMs) return known.context;
      leaves.delete(host);
      if (leaves.size >= limits.leafCacheMax) leaves.delete(leaves.keys().next().value as string);
      const fresh = mint(host);
      leaves.set(host, fresh);
      return fresh.context;
    },
  };
};

/**
 * The system's roots and our authority, whole or not at all: variables such as SSL_CERT_FILE replace a program's roots, so the
 * bundle must hold them too (LESSONS 5).
 */
const writeBundle = (file: string, authorityPem: string): void => {
  mkdirSync(dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, [...rootCertificates.map((pem) => `${pem.trim()}\n`), authorityPem].join(''), { mode: 0o644 });
  renameSync(temporary, file);
};
