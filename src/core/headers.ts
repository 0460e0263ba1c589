/**
 * Header fields as an ordered list of name and value: order, case and duplicates are kept as they came.
 * Laws of RFC 9110 section 7.6.1 (hop-by-hop) live here; who may set what is the stages' business.
 */
export type HeaderField = readonly [name: string, value: string];
export type HeaderList = readonly HeaderField[];

/** Connection-level fields that never travel on (RFC 9110 section 7.6.1, RFC 9112 appendix C.2.2). */
const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
]);

/** Fields that `Connection` must not nominate: removing them would change framing, routing or the credential. */
const notNominable = new Set(['authorization', 'content-length', 'host', 'cookie', 'content-type', 'expect']);

export const tokenPattern = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

interface NameForms {
  readonly lower: string;
  readonly key: string;
  readonly isHopByHop: boolean;
}

const formsOf = (name: string): NameForms => {
  const lower = name.toLowerCase();
  return { lower, key: lower.includes('_') ? lower.replaceAll('_', '-') : lower, isHopByHop: hopByHop.has(lower) };
};

/** Forms of the names in use: every stage asks for those of every field, and programs and targets send the same few. */
const knownForms = new Map<string, NameForms>();
/** Names that are remembered, and how long they may be: what a program makes up is soon forgotten, and costs 128 KiB at most. */
const knownFormsMax = 1024;
const knownNameBytesMax = 64;

const forms = (name: string): NameForms => {
  const known = knownForms.get(name);
  if (known) return known;
  const made = formsOf(name);
  if (name.length > knownNameBytesMax) return made;
  if (knownForms.size >= knownFormsMax) knownForms.clear();
  knownForms.set(name, made);
  return made;
};

/** One name for all spellings that some server reads as the same: case and underscore (THREATS E-11, E-12). */
export const sameNameKey = (name: string): string => forms(name).key;

export const fromRaw = (raw: readonly string[]): HeaderList => {
  const list: HeaderField[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) list.push([raw[i] as string, raw[i + 1] as string]);
  return list;
};

export const toRaw = (list: HeaderList): string[] => {
  const raw: string[] = [];
  for (const [name, value] of list) raw.push(name, value);
  return raw;
};

/** All values of a field, in order. `name` in lower case. */
export const valuesOf = (list: HeaderList, name: string): string[] => {
  const values: string[] = [];
  // The length first: this runs several times for every field of every request.
  for (const [field, value] of list) if (field.length === name.length && forms(field).lower === name) values.push(value);
  return values;
};

const none: ReadonlySet<string> = new Set();

/** The names that `Connection` nominates, lower case. */
export const nominatedBy = (list: HeaderList): ReadonlySet<string> => {
  const values = valuesOf(list, 'connection');
  if (values.length === 0 || (values.length === 1 && values[0] === 'keep-alive')) return none;
  return new Set(
    values
      .flatMap((value) => value.split(','))
      .map((token) => token.trim().toLowerCase())
      .filter((token) => token !== '' && token !== 'close' && token !== 'keep-alive'),
  );
};

/** A name that `Connection` nominates and must not, or undefined. */
export const badNomination = (list: HeaderList): string | undefined => {
  const nominated = nominatedBy(list);
  return nominated.size === 0 ? undefined : [...nominated].find((name) => notNominable.has(name) || !tokenPattern.test(name));
};

/** The list without hop-by-hop fields and without those that `Connection` nominates. */
export const withoutHopByHop = (list: HeaderList): HeaderList => {
  const nominated = nominatedBy(list);
  return list.filter(([name]) => {
    const { isHopByHop, lower } = forms(name);
    return !isHopByHop && (nominated.size === 0 || !nominated.has(lower));
  });
};

/** Keys for `without`: one for all spellings of each name. */
export const sameNameKeys = (names: readonly string[]): ReadonlySet<string> => new Set(names.map(sameNameKey));

/** Fields by which some servers read another method, host or path than the one that was judged (THREATS E-16). */
export const overridingFields = sameNameKeys([
  'x-http-method-override',
  'x-http-method',
  'x-method-override',
  'x-original-url',
  'x-original-method',
  'x-rewrite-url',
  'x-forwarded-host',
  'x-forwarded-prefix',
  'x-forwarded-uri',
  'forwarded',
]);

/** The list without any spelling of the named fields. */
export const without = (list: HeaderList, ...keys: readonly ReadonlySet<string>[]): HeaderList =>
  list.filter(([name]) => {
    const { key } = forms(name);
    for (const set of keys) if (set.has(key)) return false;
    return true;
  });

/** Bytes of the block as HTTP/1.1 would write it. */
export const blockBytes = (list: HeaderList): number => {
  let bytes = 0;
  for (const [name, value] of list) bytes += name.length + value.length + 4;
  return bytes;
};

/** Whether a field value may be written: visible ASCII, space and tab; no CR, LF, NUL or other controls (RFC 9110 section 5.5). */
export const writableValue = (value: string): boolean => /^[\t\x20-\x7e]*$/.test(value) && value.trim() === value;
