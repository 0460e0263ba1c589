/**
 * The public roots that stand beside our authority in what programs are given to trust: those of the system and those that Node
 * brings, each once. Never our own authority, whatever the environment says.
 */
import { createHash, X509Certificate } from 'node:crypto';
import { getCACertificates } from 'node:tls';
import type { Log } from '../../../ops/log.ts';
import { readCertificate } from '../../../pki/certificate.ts';
import { dersOf } from '../../../pki/pem.ts';
import type { TrustedCertificate } from '../../../pki/pkcs12.ts';
import { readSystemRoots } from './system-roots.ts';

/** With this the names of all our interception authorities begin. */
export const authorityNamePrefix = 'Outrider interception';

export type ReadRoots = (kind: 'system' | 'bundled') => readonly string[];

const readRoots: ReadRoots = (kind) => (kind === 'system' ? readSystemRoots() : getCACertificates('bundled'));

/**
 * "The system's" are, for Node, whatever SSL_CERT_FILE and SSL_CERT_DIR name. In a pod where these were set for every container
 * that is the bundle we wrote ourselves, so our own authority is taken out again (THREATS D-4).
 */
export const publicRoots = (log: Log, read: ReadRoots = readRoots): readonly TrustedCertificate[] => {
  const system = new Map(systemRoots(log, read).flatMap(dersOf).map(keyed));
  const bundled = new Map(read('bundled').flatMap(dersOf).map(keyed));
  // Those that Node brings are roots, whoever names them too: looking into each of them would be a tenth of the start.
  const others = [...system].flatMap(([key, der]) => (bundled.has(key) ? [] : (rootOf(der) ?? [])));
  return [...others, ...[...bundled.values()].map(namedOnDemand)];
};

const keyed = (der: Buffer): readonly [string, Buffer] => [der.toString('latin1'), der];

/** Names are for trust stores alone, which few pods have. */
const namedOnDemand = (der: Buffer): TrustedCertificate => ({
  der,
  get alias() {
    return aliasOf(nameOf(new X509Certificate(der).subject), der);
  },
});

const systemRoots = (log: Log, read: ReadRoots): readonly string[] => {
  let error: unknown;
  try {
    const roots = read('system');
    if (roots.length > 0) return roots;
  } catch (thrown) {
    error = thrown;
  }
  log.warn({ error }, 'the system has no roots that can be read: programs are given those that come with Node');
  return [];
};

const rootOf = (der: Buffer): TrustedCertificate | undefined => {
  try {
    const certificate = new X509Certificate(der);
    const name = nameOf(certificate.subject);
    return isNoAuthority(certificate, der) || name.startsWith(authorityNamePrefix) ? undefined : { der, alias: aliasOf(name, der) };
  } catch {
    // Others cannot read it either.
    return undefined;
  }
};

/**
 * One that says so itself. Node reads every file in the system's directory, such as a server's own certificate, which the system
 * does not trust as a root. Certificates too old to say anything (X.509 v1) may be a company's root.
 */
const isNoAuthority = ({ ca }: X509Certificate, der: Buffer): boolean => {
  if (ca) return false;
  try {
    return readCertificate(der).extension('basicConstraints') !== undefined;
  } catch {
    return false;
  }
};

/** The common name, or the last part of the name. */
const nameOf = (subject: string | undefined): string => {
  const lines = (subject ?? '').split('\n');
  const line = lines.findLast((part) => part.startsWith('CN=')) ?? lines.at(-1) ?? '';
  return line.slice(line.indexOf('=') + 1);
};

/** Readable, and unique by the fingerprint: several roots share a name, and Java compares aliases without case. */
export const aliasOf = (name: string, der: Buffer): string =>
  `${name.replaceAll(/[^\x20-\x7e]+/g, '?').slice(0, 64)} ${createHash('sha256').update(der).digest('hex').slice(0, 16)}`.toLowerCase();
