/**
 * The interception authority: constrained to the hosts that targets name, its key in memory, and in a file of the proxy's own when
 * it is to survive a restart. Written for programs to trust is its certificate alone, never to the proxy's own trust store.
 *
 * A program reads the bundle once. What it read then stays good for the hosts that were permitted then: a new certificate, for other
 * hosts or after a restart, has the same name and key. A host that came later, and is under none of the domains that were permitted
 * from the start, needs a program that reads the bundle again.
 */
import { createSecureContext, type SecureContext } from 'node:tls';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import { type Authority, createAuthority } from '../../pki/authority.ts';
import { readCertificate } from '../../pki/certificate.ts';
import { nameConstraints } from '../../pki/extension.ts';
import { createKeyPair } from '../../pki/key.ts';
import { issueLeaf } from '../../pki/leaf.ts';
import { pemOf } from '../../pki/pem.ts';
import { createTrustStore, type TrustedCertificate } from '../../pki/pkcs12.ts';
import { replaceFile } from './interception/replace-file.ts';
import { aliasOf, authorityNamePrefix, publicRoots } from './interception/roots.ts';
import { isMemoryBacked, readState, valueOf, writeState } from './interception/state.ts';

export { publicRoots } from './interception/roots.ts';

export interface Interception {
  /** Names the hosts that may be intercepted from now on; rewrites what programs trust when they changed. */
  readonly permit: (hosts: readonly string[]) => void;
  /** TLS context with a leaf for a permitted host. */
  readonly contextFor: (host: string) => SecureContext;
}

export interface InterceptionOptions {
  /** Public roots and the authority, PEM: replaces a program's roots. */
  readonly bundleFile: string;
  /** The same for Java, PKCS #12. */
  readonly trustStoreFile?: string | undefined;
  /** Key and certificate, for the next process of this pod: in a memory-backed volume of the proxy's alone. */
  readonly stateFile?: string | undefined;
  /** Domains, with all below them, that its certificate permits from the start; what no target names is still never intercepted. */
  readonly domains?: readonly string[];
  /** Tells this authority from those of other pods; it is named `Outrider interception <id>`. */
  readonly id: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly roots?: readonly TrustedCertificate[];
  readonly onMint?: () => void;
}

interface CachedLeaf {
  readonly context: SecureContext;
  readonly mintedAtMs: number;
  readonly renewAtMs: number;
}

/** Throws when what programs are to trust cannot be written: a proxy whose interception nobody trusts only breaks them. */
export const createInterception = (options: InterceptionOptions): Interception => {
  const { domains = [], clock, log, onMint } = options;
  const { create, ...first } = openAuthority(options);
  const publish = createPublisher(options);
  // One key for all leaves: making one is the dear part, and they live in the same memory.
  const leafKey = createKeyPair();
  const leafKeyPem = leafKey.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const leaves = new Map<string, CachedLeaf>();
  let permitted: ReadonlySet<string> = new Set();
  const constrainedTo = (): ReadonlySet<string> => new Set([...permitted, ...domains]);
  let authority = first.authority;
  // Before anything is heard from the broker too: what the last process permitted stands meanwhile.
  publish(authority);
  let isPublished = true;
  const { stateFile } = options;
  if (stateFile !== undefined && !isMemoryBacked(stateFile))
    log.warn({ file: stateFile }, 'the interception authority is stored on a disk: mount a memory-backed volume there');

  const isCurrent = (): boolean => authority.notAfterMs - clock.now() > limits.interceptionAuthorityLifetimeMs / 2;

  const renew = (): void => {
    authority = create([...constrainedTo()].toSorted());
    leaves.clear();
    try {
      isPublished = false;
      publish(authority);
      isPublished = true;
    } catch (error) {
      // Programs that have read the old files go on; the next permit tries again.
      log.error({ error }, 'what programs are to trust could not be written');
    }
  };

  const mint = (host: string): CachedLeaf => {
    if (!permitted.has(host)) throw new TypeError(`no leaf may be made for ${host}`);
    if (!isCurrent()) renew();
    const leaf = issueLeaf(authority, { host, publicKey: leafKey.publicKey, nowMs: clock.now(), lifetimeMs: limits.leafLifetimeMs });
    onMint?.();
    const isSent = authority.certificateDer.length <= limits.interceptionAuthoritySentBytesMax;
    const cert = isSent ? leaf.pem + authority.certificatePem : leaf.pem;
    const context = createSecureContext({ cert, key: leafKeyPem, minVersion: 'TLSv1.2' });
    return { context, mintedAtMs: clock.now(), renewAtMs: clock.now() + limits.leafLifetimeMs / 2 };
  };

  return {
    permit: (hosts) => {
      permitted = new Set(hosts);
      if (!isPublished || !isCurrent() || !isFor(authority, constrainedTo())) renew();
    },
    contextFor: (host) => {
      const known = leaves.get(host);
      // A clock that was set back would make it one of the future to programs.
      if (known && clock.now() >= known.mintedAtMs && clock.now() < known.renewAtMs) return known.context;
      leaves.delete(host);
      if (leaves.size >= limits.leafCacheMax) leaves.delete(leaves.keys().next().value as string);
      const fresh = mint(host);
      leaves.set(host, fresh);
      return fresh.context;
    },
  };
};

interface OpenedAuthority {
  readonly authority: Authority;
  /** The same authority, name and key, for these hosts and from now. */
  readonly create: (hosts: readonly string[]) => Authority;
}

/** The one that the last process of this pod left, or a new one that permits nothing. */
const openAuthority = ({ stateFile, domains = [], id, clock, log }: InterceptionOptions): OpenedAuthority => {
  const stored = stateFile === undefined ? undefined : readState(stateFile, clock.now());
  if (stored?.kind === 'refused') {
    const { reason, cause } = stored;
    log.warn(
      { file: stateFile, reason, error: cause },
      'the stored interception authority is not used: programs that trust it have to be restarted',
    );
  }
  const found = stored?.kind === 'found' ? stored : undefined;
  const key = found?.authority.key ?? createKeyPair();
  const commonName = found?.commonName ?? `${authorityNamePrefix} ${id}`;
  const create = (permittedHosts: readonly string[]): Authority =>
    createAuthority({
      commonName,
      key,
      nowMs: clock.now() - limits.interceptionAuthorityBackdateMs,
      lifetimeMs: limits.interceptionAuthorityLifetimeMs + limits.interceptionAuthorityBackdateMs,
      permittedHosts,
    });
  return { authority: found?.authority ?? create([...domains].toSorted()), create };
};

const isFor = ({ certificateDer }: Authority, hosts: ReadonlySet<string>): boolean =>
  readCertificate(certificateDer)
    .extension('nameConstraints')
    ?.equals(valueOf(nameConstraints({ hosts: [...hosts].toSorted() }))) === true;

/**
 * Variables such as SSL_CERT_FILE replace a program's roots, and so does Java's javax.net.ssl.trustStore: what is written holds the
 * public roots too (LESSONS 5).
 */
const createPublisher = ({ bundleFile, trustStoreFile, stateFile, log, roots = publicRoots(log) }: InterceptionOptions) => {
  // Written anew each time, which is seldom: 300 KiB that nothing else needs.
  const rootPems = (): string => roots.map(({ der }) => pemOf(der)).join('');
  return (authority: Authority): void => {
    // First, so that nobody trusts what the next process will not know.
    if (stateFile !== undefined) store(stateFile, authority, log);
    replaceFile(bundleFile, rootPems() + authority.certificatePem, 0o644);
    if (trustStoreFile === undefined) return;
    const der = authority.certificateDer;
    replaceFile(trustStoreFile, createTrustStore([...roots, { der, alias: aliasOf(authorityNamePrefix, der) }]), 0o644);
  };
};

const store = (file: string, authority: Authority, log: Log): void => {
  try {
    writeState(file, authority);
  } catch (error) {
    log.error({ file, error }, 'the interception authority could not be stored: programs have to be restarted when the proxy is');
  }
};
