/**
 * Random and mutated configurations: each gives settings or problems, never another error; no prototype changes; and a secret in
 * any place is not shown. Seed: printed; give it again as SEED=….
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import * as fc from 'fast-check';
import t, { type Test as Tap } from 'tap';
import { Secret } from '../../src/core/secret.ts';
import { parseSettings, type Settings, SettingsError, settingsKinds, warningsOf } from '../../src/settings/document.ts';

const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
t.comment(`seed ${seed}`);

const config = join(import.meta.dirname, '../../config');
const examples = readdirSync(config, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.yaml'))
  .map((file) => readFileSync(join(config, file), 'utf8'));

/** The longest that one text took. */
let slowestMs = 0;

/** A path to something that may be changed, or undefined. */
const thawed = (value: unknown, at = 'settings'): string | undefined => {
  // A secret keeps its text where nobody reaches it.
  if (typeof value !== 'object' || value === null || value instanceof Secret) return undefined;
  if (!Object.isFrozen(value)) return at;
  for (const [name, member] of Object.entries(value)) {
    const found = thawed(member, `${at}.${name}`);
    if (found !== undefined) return found;
  }
  return undefined;
};

const readTimed = (text: string): Settings => {
  const startedAt = performance.now();
  try {
    return parseSettings(text, 'f.yaml');
  } finally {
    slowestMs = Math.max(slowestMs, performance.now() - startedAt);
  }
};

/** Everything that reading `text` can show anyone: settings that nobody can change, or problems that each say where. */
const shownBy = (text: string): string => {
  try {
    const settings = readTimed(text);
    const loose = thawed(settings);
    if (loose !== undefined) throw new Error(`${loose} can be changed`);
    return warningsOf(settings).join('\n');
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    const lines = text.split(/\r\n|\r|\n/).length;
    const astray = error.problems.find(({ line, column, message }) => !(line >= 1 && line <= lines && column >= 1) || message === '');
    if (error.problems.length === 0 || astray !== undefined)
      throw new Error(`a problem without a place: ${JSON.stringify(astray)}`, { cause: error });
    return [error.message, error.stack, inspect(error, { depth: 9 }), JSON.stringify(error.problems)].join('\n');
  }
};

const prototypes = [Object.prototype, Array.prototype, String.prototype, Function.prototype];
const describePrototypes = (): string => prototypes.map((prototype) => Reflect.ownKeys(prototype).map(String).join()).join('\n');
const before = describePrototypes();

/** `judge` throws where what can be shown of a text is wrong. */
const holds = (t: Tap, texts: fc.Arbitrary<string>, numRuns: number, judge: (shown: string) => void = () => {}): void => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(texts, (text) => judge(shownBy(text))),
      { seed, numRuns },
    ),
  );
  t.equal(describePrototypes(), before, 'no prototype has changed');
};

/** Shapes of secrets, none of them a name; each has "canary" in it. The first could be a path. */
const canaries = [
  'canary/7Zq8+N4tR9wYb==',
  'Canary7Zq8xN4tR9wYb',
  'ghp_canary7Zq8xN4tR9wYb2LmK0pQ',
  'canary7:Zq8xN4tR9wYb',
  'canary 7Zq8 N4tR9wYb',
  'AKIA7CANARY4ZQ8XN4T!',
  '"canary7\\nZq8x"',
  'eyJhbGciOiJub25lIn0.canary7Zq8xN4tR9wYbcanary7Zq8xN4tR9wYbcanary7Zq8xN4tR9wYbcanary7.Zq8',
] as const;

const hidesIt = (shown: string): void => {
  if (/canary/i.test(shown)) throw new Error(`shown: ${shown}`);
};

/** Where a scalar or a key stands in the text of an example. */
const placesIn = (text: string): readonly { start: number; end: number }[] => {
  const withoutComments = text.replaceAll(/(?<=^|\s)#.*/g, (comment) => ' '.repeat(comment.length));
  return [...withoutComments.matchAll(/[A-Za-z0-9_./*{}:-]*[A-Za-z0-9_*}]/g)].map(({ index, 0: token }) => ({
    start: index,
    end: index + token.length,
  }));
};
const places = examples.flatMap((text) => placesIn(text).map((place) => ({ text, ...place })));

t.test('a secret in the place of any key or value of the examples is not shown', async (t) => {
  for (const [index, { text, start, end }] of places.entries()) {
    const canary = index % 2 === 0 ? canaries[0] : (canaries[index % canaries.length] as string);
    const shown = shownBy(`${text.slice(0, start)}${canary}${text.slice(end)}`);
    if (/canary/i.test(shown)) t.fail(`${text.slice(Math.max(0, start - 40), start)}${canary} shows ${shown}`);
  }
  t.ok(places.length > 500, `${places.length} places`);
});

t.test('nor is one that breaks the YAML around it', async (t) => {
  const marks = fc.constantFrom('', '{', '[', '"', "'", '|\n', '!', '&', '*', ': ', '- ', '? ', '\n');
  const broken = fc
    .tuple(fc.constantFrom(...places), fc.constantFrom(...canaries), marks, marks)
    .map(([{ text, start, end }, canary, before, after]) => `${text.slice(0, start)}${before}${canary}${after}${text.slice(end)}`);
  holds(t, broken, 600, hidesIt);
});

const alphabet = fc.constantFrom(
  ...Array.from('abk:- \n\t{}[],&*!|>"\'%@`#?~<0.\\'),
  ': ',
  '\n  ',
  '- ',
  'kind: broker\n',
  '<<: ',
  '__proto__',
  'constructor',
  '*a',
  '&a ',
  '---\n',
  '%YAML 1.1\n',
  '\uFEFF',
  '\u0000',
  '😀',
);

t.test('examples with pieces cut, repeated and put in are settings or problems', async (t) => {
  const edit = fc.tuple(fc.nat(), fc.nat(40), fc.array(alphabet, { maxLength: 4 }), fc.boolean());
  const mutated = fc.tuple(fc.constantFrom(...examples), fc.array(edit, { minLength: 1, maxLength: 6 })).map(([text, edits]) =>
    edits.reduce((all, [at, length, pieces, repeat]) => {
      const start = at % (all.length + 1);
      const cut = all.slice(start, start + length);
      return `${all.slice(0, start)}${repeat ? cut + cut : ''}${pieces.join('')}${all.slice(start + length)}`;
    }, text),
  );
  holds(t, mutated, 400);
});

t.test('random text is settings or problems', async (t) => {
  holds(
    t,
    fc.array(alphabet, { maxLength: 60 }).map((pieces) => pieces.join('')),
    1_000,
  );
});

t.test('random values under our keys, and under keys that reach prototypes, are settings or problems', async (t) => {
  const words = [
    'kind',
    'name',
    'listen',
    'issuer',
    'attestors',
    'workloads',
    'providers',
    'targets',
    'policies',
    'rules',
    'credentials',
    'placement',
    'match',
    'upstream',
    'resolve',
    'parameters',
    'clientAuthentication',
    'method',
    'hosts',
    'ports',
    'identity',
    'log',
    'jwt',
    'header',
    'polluted',
  ];
  const key = fc.oneof(
    fc.constantFrom(...words),
    fc.constantFrom('__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', ''),
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.constantFrom(...words),
      fc.string(),
      fc.double(),
      fc.boolean(),
      fc.constant(null),
      tie('list'),
      tie('mapping'),
    ),
    list: fc.array(tie('value'), { maxLength: 3 }),
    mapping: fc.array(fc.tuple(key, tie('value')), { maxLength: 5 }),
  }));
  /** A list of pairs is a mapping: so that `__proto__` is a key like any other. */
  const jsonOf = (node: unknown): string => {
    if (!Array.isArray(node)) return JSON.stringify(node ?? null);
    const isMapping = node.length > 0 && node.every((item) => Array.isArray(item) && item.length === 2 && typeof item[0] === 'string');
    const parts = isMapping
      ? (node as [string, unknown][]).map(([name, member]) => `${JSON.stringify(name)}: ${jsonOf(member)}`)
      : node.map(jsonOf);
    return isMapping ? `{${parts.join(', ')}}` : `[${parts.join(', ')}]`;
  };
  const text = fc
    .tuple(fc.constantFrom(...settingsKinds), fc.array(fc.tuple(key, value), { maxLength: 8 }))
    .map(
      ([kind, pairs]) => `{"kind": "${kind}", ${pairs.map(([name, member]) => `${JSON.stringify(name)}: ${jsonOf(member)}`).join(', ')}}`,
    );
  holds(t, text, 700);
  t.equal(({} as Record<string, unknown>)['polluted'], undefined);
});

t.test('no text takes long to read, also one that refers to itself over and over', async (t) => {
  const bombs = [
    `kind: broker\na: &a [${'x, '.repeat(50)}x]\n${Array.from({ length: 9 }, (_, i) => `${'bcdefghij'[i]}: &${'bcdefghij'[i]} [${`*${'abcdefghi'[i]}, `.repeat(9)}*${'abcdefghi'[i]}]`).join('\n')}\n`,
    `kind: broker\na: ${'['.repeat(20_000)}`,
    `kind: broker\na: ${'{a: '.repeat(5_000)}`,
    `kind: broker\na: "${'\\x41'.repeat(100_000)}"`,
    `kind: proxy\n${'- '.repeat(10_000)}`,
    `kind: broker\ntargets:\n${'  - {}\n'.repeat(5_000)}`,
    `kind: broker\n${'k: v\n'.repeat(5_000)}`,
    `kind: broker\na: !!binary |\n${'  AAAA\n'.repeat(10_000)}`,
    `kind: broker\na: ${'a'.repeat(500_000)}!`,
    `kind: broker\n${'? '.repeat(5_000)}`,
    `kind: broker\na: ${'#'.repeat(300_000)}\nb: ${'&a '.repeat(3_000)}`,
  ];
  for (const bomb of bombs) shownBy(bomb);
  t.ok(slowestMs < 10_000, `the slowest text of all took ${Math.round(slowestMs)} ms`);
});
