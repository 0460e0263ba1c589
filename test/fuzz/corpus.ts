/**
 * Inputs that once failed, in corpus/: replayed first by every run. A new one is made as small as it can be and is written there, to be
 * kept beside what mended it.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Input } from './cell.ts';

const directory = join(import.meta.dirname, 'corpus');

export interface Kept {
  readonly name: string;
  readonly input: Input;
}

export const keptInputs = (): Kept[] =>
  existsSync(directory)
    ? readdirSync(directory)
        .filter((name) => name.endsWith('.json'))
        .toSorted()
        .map((name) => ({ name, input: (JSON.parse(readFileSync(join(directory, name), 'utf8')) as { input: Input }).input }))
    : [];

/** Returns the file's name. */
export const keep = (input: Input, problems: readonly string[]): string => {
  mkdirSync(directory, { recursive: true });
  const name = `${createHash('sha256').update(JSON.stringify(input)).digest('hex').slice(0, 12)}.json`;
  writeFileSync(join(directory, name), `${JSON.stringify({ problems: problems.map((one) => one.slice(0, 300)), input }, undefined, 2)}\n`);
  return name;
};

/** Smaller texts: without a half, a quarter, an eighth, ... of it, down to single bytes (Zeller's delta debugging, by halves). */
const shorten = async (text: string, fails: (shorter: string) => Promise<boolean>, tries: { left: number }): Promise<string> => {
  let smallest = text;
  for (let size = Math.ceil(text.length / 2); size >= 1 && tries.left > 0; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let at = 0; at < smallest.length && tries.left > 0; ) {
      const shorter = smallest.slice(0, at) + smallest.slice(at + size);
      tries.left -= 1;
      if (await fails(shorter)) smallest = shorter;
      else at += size;
    }
  }
  return smallest;
};

/** The smallest input found that still fails. */
export const minimise = async (input: Input, fails: (smaller: Input) => Promise<boolean>, triesMax = 400): Promise<Input> => {
  const tries = { left: triesMax };
  let smallest = input;
  const attempt = async (smaller: Input): Promise<boolean> => {
    if (!(await fails(smaller))) return false;
    smallest = smaller;
    return true;
  };
  await attempt({ ...smallest, cuts: [] });
  if (smallest.answer) await attempt({ ...smallest, answer: { ...smallest.answer, cuts: [] } });
  await shorten(smallest.bytes, (bytes) => attempt({ ...smallest, bytes }), tries);
  const { answer } = smallest;
  if (answer) await shorten(answer.bytes, (bytes) => attempt({ ...smallest, answer: { ...answer, bytes } }), tries);
  return smallest;
};
