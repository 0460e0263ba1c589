/**
 * `npm run lockfile`, after every `npm install` that changed package-lock.json. npm leaves a platform's optional package out
 * of the lockfile when the registry in use does not offer it, and `npm ci` then refuses that lockfile everywhere. This adds
 * such packages by the name and exact version that their parent asks for, with the platform read from the name, so that they are
 * installed only there. They have no integrity hash until someone runs `npm install` against a registry that has them.
 * It also drops `resolved` addresses, so that the lockfile names no registry.
 */
import { readFileSync, writeFileSync } from 'node:fs';

interface LockEntry {
  readonly version?: string;
  readonly dev?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

export interface Lockfile {
  packages: Record<string, LockEntry>;
}

/** `@oxlint/binding-linux-x64-musl` → os, cpu and libc as npm's lockfile spells them; undefined when the name tells no platform. */
export const platformOf = (name: string): { os: string[]; cpu: string[]; libc?: string[] } | undefined => {
  const match =
    /(aix|android|darwin|freebsd|linux|netbsd|openbsd|openharmony|sunos|win32)-(arm64|aarch64|armv7|arm|ia32|loong64|mips64el|ppc64|riscv64|s390x|x64)(?:-(gnu|musl|gnueabihf|musleabihf|eabi|msvc))?$/.exec(
      name,
    );
  if (!match) return undefined;
  const [, os = '', architecture = '', abi = ''] = match;
  const cpu = { aarch64: 'arm64', armv7: 'arm' }[architecture] ?? architecture;
  const libc = os !== 'linux' || abi === '' ? undefined : abi.startsWith('musl') ? 'musl' : 'glibc';
  return { os: [os], cpu: [cpu], ...(libc === undefined ? {} : { libc: [libc] }) };
};

/** What `npm ci` would miss: `node_modules/…` keys with the version asked for. */
export const missingOptionals = (lock: Lockfile): Map<string, { version: string; dev: boolean }> => {
  const missing = new Map<string, { version: string; dev: boolean }>();
  for (const [at, entry] of Object.entries(lock.packages)) {
    for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
      const hasIt = [`${at}/node_modules/${name}`, `node_modules/${name}`].some((key) => key in lock.packages);
      if (!hasIt) missing.set(`node_modules/${name}`, { version, dev: entry.dev === true });
    }
  }
  return missing;
};

export const complete = (lock: Lockfile): Lockfile => {
  const added = [...missingOptionals(lock)].map(([at, { version, dev }]) => {
    const platform = platformOf(at);
    if (!platform) throw new Error(`${at}: cannot tell its platform from its name; add it to platformOf`);
    if (!/^\d+\.\d+\.\d+[\w.-]*$/.test(version)) throw new Error(`${at}: ${version} is not an exact version`);
    return [at, { version, ...platform, ...(dev ? { dev } : {}), optional: true }] as const;
  });
  const all = [...Object.entries(lock.packages), ...added].map(([at, entry]) => {
    const { resolved: _, ...rest } = entry as LockEntry & { resolved?: string };
    return [at, rest] as const;
  });
  return { ...lock, packages: Object.fromEntries(all.toSorted(([a], [b]) => (a === b ? 0 : a.localeCompare(b, 'en') < 0 ? -1 : 1))) };
};

if (import.meta.main) {
  const file = 'package-lock.json';
  const lock = JSON.parse(readFileSync(file, 'utf8')) as Lockfile;
  writeFileSync(file, `${JSON.stringify(complete(lock), null, 2)}\n`);
  console.log(`${file}: ${missingOptionals(lock).size} platform packages added`);
}
