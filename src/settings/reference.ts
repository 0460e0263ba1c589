/**
 * Checks between parts of one configuration. They read the document as it was written, not the parsed settings, so that a
 * mistake in one part does not hide those between others ("all problems at once"); what has the wrong shape is passed over
 * here, since its schema says so.
 */
import { limits } from '../core/limits.ts';
import { either, nearest } from './nearest.ts';
import { type Path, pathText } from './path.ts';
import { namePattern } from './text.ts';

export interface Problem {
  readonly path: Path;
  readonly at: 'key' | 'value';
  readonly message: string;
}

export interface Entry {
  readonly path: Path;
  readonly value: unknown;
}

/** What stands at `path`; undefined when there is no such thing. */
export const valueAt = (document: unknown, ...path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>(
    (value, key) => (typeof value === 'object' && value !== null ? (value as Record<PropertyKey, unknown>)[key] : undefined),
    document,
  );

/** The items of the list at `path`; none when there is no list. */
export const itemsAt = (document: unknown, ...path: readonly PropertyKey[]): readonly Entry[] => {
  const value = valueAt(document, ...path);
  return Array.isArray(value) ? value.map((item: unknown, index) => ({ path: [...path, index], value: item })) : [];
};

/** The member `key` of each entry that has it as text. */
export const textsOf = (entries: readonly Entry[], key: string): readonly (Entry & { readonly value: string })[] =>
  entries.flatMap(({ path, value }) => {
    const member = valueAt(value, key);
    return typeof member === 'string' ? [{ path: [...path, key], value: member }] : [];
  });

/** A problem for every entry whose key an earlier one has; `message` is told the earlier one. */
export const repeated = <T extends Entry>(entries: readonly T[], keyOf: (entry: T) => string, message: (first: T) => string): Problem[] => {
  const first = new Map<string, T>();
  return entries.flatMap((entry) => {
    const key = keyOf(entry);
    const earlier = first.get(key);
    if (!earlier) first.set(key, entry);
    return earlier ? [{ path: entry.path, at: 'value' as const, message: message(earlier) }] : [];
  });
};

type NameCheck = (references: readonly Entry[], known: readonly string[], kind: string, section: string) => Problem[];

/** Finds references to names that nothing has. One for a document: it bounds the work of looking for what was meant. */
export const createNameCheck = (): NameCheck => {
  let suggestions = 0;
  return (references, known, kind, section) => {
    const names = new Set(known);
    // What is not a name is not shown as one: its own problem says so.
    const shown = known.filter((name) => namePattern.test(name));
    return references.flatMap(({ path, value }) => {
      if (typeof value !== 'string' || names.has(value)) return [];
      const meant = suggestions++ < limits.configurationProblemsShownMax ? nearest(value, shown) : undefined;
      const advice = meant === undefined ? adviceFrom(shown, section) : `did you mean ${meant}?`;
      return [{ path, at: 'value' as const, message: `names no ${kind}, ${advice}` }];
    });
  };
};

const adviceFrom = (names: readonly string[], section: string): string => {
  if (names.length === 0) return `add it under ${section}, where none is yet`;
  return `write ${names.length <= 5 ? either(names) : `one of the ${names.length} names there`}, or add it under ${section}`;
};

/** Listeners of one process that would take each other's port. A number alone is a port on 127.0.0.1 and ::1. */
export const sharedListeners = (document: unknown, paths: readonly Path[]): Problem[] => {
  const listeners = paths.flatMap((path) => addressesOf(valueAt(document, ...path)).map((address) => ({ path, ...address })));
  const anywhere = (host: string): boolean => host === '0.0.0.0' || host === '[::]';
  return listeners.flatMap(({ path, host, port }, index) => {
    const taken = listeners
      .slice(0, index)
      .find((other) => other.port === port && (other.host === host || anywhere(host) || anywhere(other.host)));
    return taken ? [{ path, at: 'value' as const, message: `is the port that ${pathText(taken.path)} listens on, write another` }] : [];
  });
};

const addressesOf = (value: unknown): readonly { readonly host: string; readonly port: string }[] => {
  if (typeof value === 'number') return ['127.0.0.1', '[::1]'].map((host) => ({ host, port: String(value) }));
  const match = typeof value === 'string' ? /^(.+):([1-9][0-9]{0,4})$/.exec(value) : null;
  return match ? [{ host: match[1] as string, port: match[2] as string }] : [];
};
