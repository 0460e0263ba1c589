/**
 * Placeholders: for a target that has one, the program must write it wherever a credential goes, and it is never sent on. So a program
 * that holds a credential of its own, or does not know that it goes through here, is found out before anything is sent. Pure.
 */
import { Fault } from '../../core/fault.ts';
import type { Grant, Placement } from '../../core/grant.ts';
import { type HeaderList, sameNameKey, valuesOf } from '../../core/headers.ts';
import { compileNeedle, type Needle, Search, withoutHits } from '../../core/needle.ts';
import { parametersNamed } from '../../core/request-target.ts';
import type { Target } from '../../core/target.ts';
import type { BodySource } from '../exchange.ts';
import type { Draft } from '../inject.ts';
import { bodyFieldValues } from './body-field.ts';
import { cookiesNamed } from './cookie.ts';
import { segmentPlace } from './path-segment.ts';

type Written = Exclude<Placement, { kind: 'client_certificate' }>;
type Shows<K extends Written['kind']> = (draft: Draft, placement: Extract<Written, { kind: K }>, placeholder: string) => boolean;

/** The one thing that stands there. */
const isOnly = (values: readonly string[], wanted: string): boolean => values.length === 1 && values[0] === wanted;

const valuesIn = (headers: HeaderList, name: string): string[] =>
  headers.filter(([field]) => sameNameKey(field) === sameNameKey(name)).map(([, value]) => value);

/** What stands behind the scheme, where there is one Authorization field with one of these. */
const authorizationOf = ({ headers }: Draft, scheme: RegExp): string[] =>
  valuesOf(headers, 'authorization').flatMap((value) => {
    const [name = '', rest = ''] = value.split(/ +(.*)/s);
    return scheme.test(name) ? [rest] : [''];
  });

const passwordOf = (pair: string): string => {
  const text = Buffer.from(pair, 'base64').toString('utf8');
  return text.slice(text.indexOf(':') + 1);
};

/** Where a program that signs names its access key: the scope's first part. */
const accessKeysOf = (draft: Draft): string[] => {
  const inHeader = valuesOf(draft.headers, 'authorization').map((value) => /\bCredential=([^/,\s]*)\//.exec(value)?.[1] ?? '');
  const inQuery = parametersNamed(draft.query, 'X-Amz-Credential').map((scope) => scope.split('/', 1)[0] as string);
  return [...inHeader, ...inQuery];
};

/** Whether the program wrote it where the credential goes. */
const shows: { readonly [K in Written['kind']]: Shows<K> } = {
  bearer: (draft, _placement, placeholder) => isOnly(authorizationOf(draft, /^bearer$/i), placeholder),
  // Whatever the user name: it is replaced too.
  basic: (draft, _placement, placeholder) => isOnly(authorizationOf(draft, /^basic$/i).map(passwordOf), placeholder),
  header: ({ headers }, { name, template }, placeholder) =>
    isOnly(valuesIn(headers, name), template.split('{credential}').join(placeholder)),
  query: ({ query }, { name }, placeholder) => isOnly(parametersNamed(query, name), placeholder),
  cookie: ({ headers }, { name }, placeholder) => isOnly(cookiesNamed(headers, name), placeholder),
  path_segment: ({ path }, placement, placeholder) => segmentPlace(path, placement).there === placeholder,
  body_field: (draft, placement, placeholder) => isOnly(bodyFieldValues(draft, placement), placeholder),
  // A program that signs cannot show it elsewhere; one that does not may write just it.
  hmac: ({ headers }, { name }, placeholder) => {
    const [value, ...others] = valuesIn(headers, name);
    return value !== undefined && others.length === 0 && value.includes(placeholder);
  },
  aws_sigv4: (draft, _placement, placeholder) => isOnly(accessKeysOf(draft), placeholder),
  dpop: (draft, _placement, placeholder) => isOnly(authorizationOf(draft, /^(?:dpop|bearer)$/i), placeholder),
};

/** `draft`: as the program wrote it. Throws placeholder_missing. */
export const requirePlaceholder = (draft: Draft, { credentials }: Grant, { placeholder }: Target): void => {
  if (placeholder === '') return;
  for (const { placement } of credentials) {
    if (placement.kind === 'client_certificate') continue;
    const isShown = shows[placement.kind] as Shows<Written['kind']>;
    if (!isShown(draft, placement, placeholder)) throw new Fault('placeholder_missing', { detail: `Its place is ${placement.kind}.` });
  }
};

const misplaced = (where: string): Fault => new Fault('placeholder_misplaced', { detail: `It is in the ${where}.` });

const needles = new WeakMap<Target, Needle>();

const needleOf = (target: Target): Needle | undefined => {
  const known = needles.get(target);
  const needle = known ?? compileNeedle([target.placeholder]);
  if (known === undefined && needle !== undefined) needles.set(target, needle);
  return needle;
};

const isIn = (needle: Needle, text: string): boolean => withoutHits(needle, text).hits > 0;
const isInFields = (needle: Needle, fields: HeaderList): boolean =>
  fields.some(([name, value]) => isIn(needle, name) || isIn(needle, value));

/** Throws placeholder_misplaced for one that would be sent in any spelling, now or as the body is read. `draft`: as it would be sent. */
export const withoutPlaceholder = (draft: Draft, target: Target): Draft => {
  const needle = target.placeholder === '' ? undefined : needleOf(target);
  if (needle === undefined) return draft;
  if (isIn(needle, draft.method)) throw misplaced('method');
  if (isIn(needle, draft.path)) throw misplaced('path');
  if (isIn(needle, draft.query)) throw misplaced('query');
  if (isInFields(needle, draft.headers)) throw misplaced('header');
  const { body } = draft;
  if (body === undefined) return draft;
  if (body.held === undefined) return { ...draft, body: searched(body, needle) };
  if (isIn(needle, Buffer.from(body.held).toString('latin1'))) throw misplaced('body');
  if (isInFields(needle, body.trailers())) throw misplaced('trailers');
  return draft;
};

/** The same body, read through a search. */
const searched = (body: BodySource, needle: Needle): BodySource => ({
  chunks: searchedChunks(body, needle),
  bytes: () => body.bytes(),
  trailers: () => body.trailers(),
  release: () => body.release?.(),
});

/** What may be the beginning of one waits for what follows, so that the target never has it whole. */
const searchedChunks = (body: BodySource, needle: Needle): AsyncIterable<Uint8Array> => ({
  async *[Symbol.asyncIterator]() {
    const search = new Search(needle);
    const settled = (bytes: Uint8Array): Uint8Array => {
      if (search.hits > 0) throw misplaced('body');
      return bytes;
    };
    for await (const chunk of body.chunks) {
      const bytes = settled(search.push(chunk));
      if (bytes.length > 0) yield bytes;
    }
    const rest = settled(search.end());
    // Here and not when they are asked for: whoever writes them has no way back.
    if (isInFields(needle, body.trailers())) throw misplaced('trailers');
    if (rest.length > 0) yield rest;
  },
});
