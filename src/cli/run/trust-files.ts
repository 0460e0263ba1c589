/**
 * Roots that the user chose by a variable, and the proxy's authority beside them: one copy for each file, in the run's own directory,
 * made again when the authority's certificate changes. Only certificates are copied, whatever else a file holds.
 */
import { X509Certificate } from 'node:crypto';
import { readFileSync, renameSync, statSync, watch, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { limits } from '../../core/limits.ts';

export interface TrustFiles {
  /** Variable → the copy to name in it. A file that is missing here could not be read. */
  readonly files: Readonly<Record<string, string>>;
  readonly close: () => void;
}

const certificate = /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*-----END (?:X509 |TRUSTED )?CERTIFICATE-----/g;

const certificatesIn = (file: string): string[] => {
  if (statSync(file).size > limits.trustFileBytesMax) return [];
  return readFileSync(file, 'utf8').match(certificate) ?? [];
};

/** The authority is what the bundle ends with: the roots stand before it. */
const authorityIn = (bundleFile: string): string | undefined => {
  const last = certificatesIn(bundleFile).at(-1);
  return last !== undefined && new X509Certificate(last).subject.includes('CN=Outrider interception') ? last : undefined;
};

const certificatesOr = <T>(file: string, otherwise: T): string[] | T => {
  try {
    const found = certificatesIn(file);
    return found.length === 0 ? otherwise : found;
  } catch {
    return otherwise;
  }
};

/** Copies are made below the directory of `bundleFile`, which is the run's own. */
export const mergeTrustFiles = (bundleFile: string, toMerge: readonly { readonly name: string; readonly file: string }[]): TrustFiles => {
  const directory = dirname(bundleFile);
  const copies = new Map<string, { readonly copy: string; readonly roots: readonly string[] }>();
  for (const { file } of toMerge) {
    const roots = copies.has(file) ? undefined : certificatesOr(file, undefined);
    if (roots) copies.set(file, { copy: join(directory, `ca-bundle-of-yours-${copies.size + 1}.pem`), roots });
  }
  const write = (): boolean => {
    const authority = authorityIn(bundleFile);
    if (authority === undefined) return false;
    for (const { copy, roots } of copies.values()) {
      writeFileSync(`${copy}.new`, `${[...roots, authority].join('\n')}\n`, { mode: 0o644 });
      renameSync(`${copy}.new`, copy);
    }
    return true;
  };
  if (copies.size === 0 || !write()) return { files: {}, close: () => undefined };
  const close = follow(bundleFile, write);
  const files = toMerge.flatMap(({ name, file }) => {
    const made = copies.get(file);
    return made ? [[name, made.copy] as const] : [];
  });
  return { files: Object.fromEntries(files), close };
};

/**
 * Calls back when the file has been replaced. Where the system has no watches left, the copies stay as they are: programs trust
 * through them the hosts that were targets when the command was started.
 */
const follow = (file: string, changed: () => void): (() => void) => {
  try {
    const watcher = watch(dirname(file), (_event, name) => {
      try {
        if (name === basename(file)) changed();
      } catch {
        // The directory goes at the end of the run.
      }
    });
    watcher.on('error', () => watcher.close());
    return () => watcher.close();
  } catch {
    return () => undefined;
  }
};
