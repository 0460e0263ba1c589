/**
 * zod in our own words: every schema of settings/ is built from these few, so that each problem says what is wrong and what to
 * write. A message never holds what the operator wrote, unless a reader has matched it against a grammar that no secret fits
 * (a duration, a dotted host name): a secret in the wrong place must not reach a terminal or a log. No other schema may be
 * made where a library's own message could appear.
 */
import * as z from 'zod';
import { either, nearest } from './nearest.ts';

// Schemas are walked, not compiled to functions: the image runs with --disallow-code-generation-from-strings.
z.config({ jitless: true });

export interface Words {
  /** "a duration": completes "is not …". */
  readonly what: string;
  /** "30s": completes "write …". */
  readonly write: string;
  /** Said of a number or boolean where text belongs. */
  readonly unquoted?: string;
}

/** Why a text is not what it should be: the whole sentence. */
export class Refusal {
  readonly sentence: string;
  constructor(sentence: string) {
    this.sentence = sentence;
  }
}

const refusalOfType = (input: unknown, { write, unquoted }: Words, wanted: string): string => {
  if (input === undefined) return `is missing, write ${write}`;
  if (input === null) return `has no value, write ${write}`;
  if (wanted === 'text' && (typeof input === 'number' || typeof input === 'boolean')) {
    return unquoted ?? `is a ${typeof input === 'number' ? 'number' : 'truth value'} where text belongs, write it in quotes`;
  }
  const given = Array.isArray(input)
    ? 'a list'
    : { object: 'a mapping', string: 'text', number: 'a number', boolean: 'a truth value' }[typeof input as string];
  return `is ${given ?? 'something else'}, write ${write}`;
};

/** Text that `read` turns into a value, into a Refusal, or into undefined for the general sentence of `words`. */
export const scalar = <T>(words: Words, read: (text: string) => T | Refusal | undefined) =>
  z
    .string({ error: (issue) => refusalOfType(issue.input, words, 'text') })
    .meta({ description: words.write })
    .transform((text, context): T => {
      const value = read(text);
      const sentence = value instanceof Refusal ? value.sentence : `is not ${words.what}, write ${words.write}`;
      if (value !== undefined && !(value instanceof Refusal)) return value;
      context.addIssue({ code: 'custom', message: sentence });
      return z.NEVER;
    });

export const integer = (min: number, max: number) => {
  const error = `must be a whole number from ${min} to ${max}`;
  return z
    .int({
      error: (issue) =>
        issue.input === undefined || issue.input === null
          ? refusalOfType(issue.input, { what: '', write: `a whole number from ${min} to ${max}` }, 'number')
          : error,
    })
    .min(min, { error })
    .max(max, { error });
};

/** `isGuessed`: whether a value that is near one of these is taken for a slip of the pen. Not where every near one means another thing. */
export const oneOf = <const V extends readonly [string, ...string[]]>(values: V, { isGuessed = true } = {}) =>
  z.enum(values, { error: ({ input }) => refusalOfChoice(input, values, isGuessed) });

/** One of several texts that YAML reads as numbers where they stand without quotes: 1.3 is as good as "1.3". */
export const oneOfNumerals = <const V extends readonly [string, ...string[]]>(values: V) =>
  z
    .literal([...values, ...values.map(Number)], {
      error: ({ input }) => refusalOfChoice(typeof input === 'number' ? String(input) : input, values, false),
    })
    .transform((value) => String(value) as V[number]);

const refusalOfChoice = (input: unknown, values: readonly string[], isGuessed = true): string => {
  const write = either(values);
  if (typeof input !== 'string') return refusalOfType(input, { what: '', write }, 'choice');
  const advice = isGuessed ? meant(input, values) : undefined;
  return advice === undefined ? `is not one of those known, write ${write}` : `is not one of ${write}, ${advice}`;
};

/** A mapping with exactly these keys. `write` shows one. */
export const keys = <S extends z.ZodRawShape>(shape: S, write: string) =>
  z.strictObject(shape, {
    // For unknown keys the message is the list of known ones: document/issues.ts makes a problem of each key.
    error: (issue) =>
      issue.code === 'unrecognized_keys' ? Object.keys(shape).join(' ') : refusalOfType(issue.input, { what: '', write }, 'mapping'),
  });

export const list = <S extends z.ZodType>(item: S, { write, min = 0 }: { write: string; min?: number }) =>
  z
    .array(item, { error: (issue) => refusalOfType(issue.input, { what: '', write: `a list such as ${write}` }, 'list') })
    .min(min, { error: `is an empty list, write ${write}` });

/** One of several mappings, told apart by the value of `key`. */
export const variant = <const K extends string, O extends readonly [z.core.$ZodTypeDiscriminable, ...z.core.$ZodTypeDiscriminable[]]>(
  key: K,
  values: readonly string[],
  options: O,
) =>
  z.discriminatedUnion(key, options, {
    error: ({ input }) => {
      if (typeof input !== 'object' || input === null || Array.isArray(input)) {
        return refusalOfType(input, { what: '', write: `a mapping with ${key}: ${either(values)}` }, 'mapping');
      }
      return refusalOfChoice((input as Record<string, unknown>)[key], values);
    },
  });

export const meant = (written: string, known: readonly string[]): string | undefined => {
  const name = nearest(written, known);
  return name === undefined ? undefined : `did you mean ${name}?`;
};
