/**
 * The files whose content is part of a configuration: trust bundles of targets and the issuer's serving certificate. All
 * problems are collected, as with settings.
 */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import { dersOf, pemOf } from '../../pki/pem.ts';
import type { BrokerSettings } from '../../settings/broker.ts';
import type { ServingCertificate } from '../issuer.ts';

/** A configuration that cannot be put in force, though it is well-formed. One problem a line. */
export class ConfigurationError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.name = 'ConfigurationError';
    this.problems = problems;
  }
}

/** Every file that is compiled in: when one changes, the configuration has. */
export const compiledFiles = ({ targets, issuer }: BrokerSettings): readonly string[] => [
  ...new Set([
    ...targets.flatMap(({ caFile }) => (caFile === undefined ? [] : [caFile])),
    ...(issuer.tls === undefined ? [] : [issuer.tls.certFile, issuer.tls.keyFile]),
  ]),
];

const reasonOf = (error: unknown): string => (error as { code?: string }).code ?? (error as Error).message;

/** The certificates in a PEM file and nothing else of it: what proxies are told must never be a key that stood beside them. */
const readCertificates = (file: string): string => {
  const pem = readFileSync(file, 'utf8');
  if (pem.length > limits.configurationBytesMax) throw new Error(`it is larger than ${limits.configurationBytesMax} bytes`);
  const certificates = dersOf(pem);
  if (certificates.length === 0) throw new Error('it has no PEM certificate');
  return certificates.map((der) => pemOf(new X509Certificate(der).raw)).join('');
};

/** PEM by file. Throws ConfigurationError. */
export const readTrustBundles = ({ targets }: BrokerSettings): ReadonlyMap<string, string> => {
  const bundles = new Map<string, string>();
  const problems: string[] = [];
  for (const { name, caFile } of targets) {
    if (caFile === undefined || bundles.has(caFile)) continue;
    try {
      bundles.set(caFile, readCertificates(caFile));
    } catch (error) {
      problems.push(`target ${name}: caFile ${caFile} cannot be used (${reasonOf(error)})`);
    }
  }
  if (problems.length > 0) throw new ConfigurationError(problems);
  return bundles;
};

/** The operator's certificate for the issuer, if there is one. Throws ConfigurationError. */
export const readIssuerCertificate = ({ issuer: { tls } }: BrokerSettings): ServingCertificate | undefined => {
  if (tls === undefined) return undefined;
  try {
    return { certificateChainPem: readFileSync(tls.certFile, 'utf8'), privateKeyPem: new Secret(readFileSync(tls.keyFile, 'utf8')) };
  } catch (error) {
    throw new ConfigurationError([`issuer.tls: ${tls.certFile} or ${tls.keyFile} cannot be read (${reasonOf(error)})`]);
  }
};

/**
 * What a running broker cannot change: it holds a lock on the store, is known by its trust domain and issuer, and listens
 * where it listens. Empty when `after` may follow `before`.
 */
export const needsRestart = (before: BrokerSettings, after: BrokerSettings): readonly string[] => {
  const fixed = ['trustDomain', 'stateDir', 'sharedKeys', 'bundleFile', 'listen', 'admin', 'issuer', 'log'] as const;
  return fixed
    .filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]))
    .map((name) => `${name}: cannot change while the broker runs; restart it, or put back what was there`);
};
