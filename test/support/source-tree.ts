/** The repository as text, for tests that hold it to its own rules. */
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** What is made rather than written, or not ours. */
const skipped = new Set(['node_modules', '.git', 'dist', '.outrider', '.tap', 'gen']);

/** Paths below `directory`, relative to the repository, with "/" on every system. */
export const filesIn = (directory: string): string[] =>
  readdirSync(join(root, directory), { withFileTypes: true }).flatMap((entry) => {
    if (skipped.has(entry.name)) return [];
    const path = posix.join(directory, entry.name);
    if (entry.isDirectory()) return entry.name.startsWith('tap-testdir') ? [] : filesIn(path);
    return entry.isFile() ? [path] : [];
  });

export const textOf = (path: string): string => readFileSync(join(root, path), 'utf8');

export interface Import {
  /** As written. */
  readonly specifier: string;
  /** Path of the imported file relative to the repository; undefined for packages and built-ins. */
  readonly file: string | undefined;
  /** Erased before the program runs. */
  readonly isType: boolean;
}

const importPattern = /^(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|\bimport\('([^']+)'\)/gm;

/** Static and dynamic imports and re-exports of a module. */
export const importsOf = (path: string): Import[] =>
  [...textOf(path).matchAll(importPattern)].map(([, type, named, dynamic]) => {
    const specifier = (named ?? dynamic) as string;
    const file = specifier.startsWith('.') ? posix.join(posix.dirname(path), specifier) : undefined;
    return { specifier, file, isType: type !== undefined };
  });

/** `@scope/name/part` → `@scope/name`. */
export const packageOf = (specifier: string): string => /^(?:@[^/]+\/)?[^/]+/.exec(specifier)?.[0] ?? specifier;

/** Where a path of the repository stands, from here: for messages. */
export const shown = (path: string): string => relative(root, join(root, path));
