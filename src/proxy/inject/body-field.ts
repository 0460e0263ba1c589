/**
 * A field of a body that is held whole: a member of a JSON document, or a form field. All other bytes stay as the program wrote them.
 */
import { Fault } from '../../core/fault.ts';
import { type HeaderList, sameNameKey } from '../../core/headers.ts';
import { jsonPointer } from '../../core/placement.ts';
import { parametersNamed, withQueryParameter } from '../../core/request-target.ts';
import type { BodySource } from '../exchange.ts';
import type { Draft, Placer } from '../inject.ts';
import { stringMember, withMember } from './json-member.ts';
import { readText } from './text.ts';

type BodyField = { readonly kind: 'body_field'; readonly format: 'json' | 'form'; readonly field: string };

const missing = (detail: string): Fault => new Fault('credential_place_missing', { detail });

/** In any spelling of the name: what one server passes over, another reads. */
const valuesOfAny = (headers: HeaderList, key: string): string[] =>
  headers.filter(([name]) => sameNameKey(name) === key).map(([, value]) => value.trim().toLowerCase());

const mediaTypes = {
  json: /^application\/(?:json|[a-z0-9!#$&^_.+-]+\+json)$/,
  form: /^application\/x-www-form-urlencoded$/,
} as const;

/** Why the body cannot be read as what it should be, or undefined. */
const formatProblem = ({ headers }: Draft, format: BodyField['format']): string | undefined => {
  const encodings = valuesOfAny(headers, 'content-encoding');
  if (encodings.some((encoding) => encoding !== 'identity')) return 'The body is compressed.';
  const [type = '', ...others] = valuesOfAny(headers, 'content-type');
  const [media = '', ...parameters] = type.split(';').map((part) => part.trim());
  if (others.length > 0 || !mediaTypes[format].test(media))
    return `The content type must be ${format === 'json' ? 'application/json' : 'application/x-www-form-urlencoded'}.`;
  const charsets = parameters.filter((parameter) => parameter.startsWith('charset'));
  return charsets.every((charset) => /^charset\s*=\s*("?)utf-8\1$/.test(charset)) ? undefined : 'The charset must be UTF-8.';
};

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Throws credential_place_missing for a body that is not there, not of this format, or not UTF-8. */
const textOf = (draft: Draft, format: BodyField['format']): string => {
  if (draft.body?.held === undefined) throw missing('The request has no body.');
  const problem = formatProblem(draft, format);
  if (problem !== undefined) throw missing(problem);
  try {
    return utf8.decode(draft.body.held);
  } catch {
    throw missing('The body is not UTF-8.');
  }
};

const pointerOf = (field: string): readonly string[] => {
  const pointer = jsonPointer(field);
  if (pointer === undefined) throw new Fault('credential_invalid');
  return pointer;
};

const written = (text: string, { format, field }: BodyField, value: string): string => {
  // parametersNamed and withQueryParameter read what stands after a "?".
  if (format === 'form') return withQueryParameter(`?${text}`, field, value).slice(1);
  const changed = withMember(text, pointerOf(field), value);
  if (typeof changed !== 'string') throw missing(`The body ${changed.problem}.`);
  return changed;
};

/** What stands there: strings only. */
export const bodyFieldValues = (draft: Draft, { format, field }: BodyField): readonly string[] => {
  const text = textOf(draft, format);
  if (format === 'form') return parametersNamed(`?${text}`, field);
  const value = stringMember(text, pointerOf(field));
  return value === undefined ? [] : [value];
};

/** Where there is no length the body is chunked, and stays so. */
const withLength = (headers: HeaderList, length: number): HeaderList =>
  headers.map(([name, value]) => [name, name.toLowerCase() === 'content-length' ? String(length) : value]);

/** All of it is at hand. `bytes` counts what the program sent, which stays as it is. */
const sameBut = (body: BodySource, bytes: Uint8Array): BodySource => ({
  held: bytes,
  chunks: {
    async *[Symbol.asyncIterator]() {
      if (bytes.length > 0) yield bytes;
    },
  },
  bytes: () => body.bytes(),
  trailers: () => body.trailers(),
  release: () => body.release?.(),
});

export const bodyField: Placer<BodyField> = {
  read: readText,
  shown: (value, { format }) => [...new Set([value, format === 'form' ? encodeURIComponent(value) : JSON.stringify(value).slice(1, -1)])],
  // Digests of a body that is about to change.
  fields: () => ['content-md5', 'digest', 'content-digest', 'repr-digest'],
  needsWholeBody: () => true,
  place: (draft, placement, value) => {
    const bytes = Buffer.from(written(textOf(draft, placement.format), placement, value));
    return { ...draft, headers: withLength(draft.headers, bytes.length), body: draft.body && sameBut(draft.body, bytes) };
  },
};
