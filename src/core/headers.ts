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

/** One name for all spellings that some server reads as the same: case and underscore (THREATS E-11, E-12). */
export const sameNameKey = (name: string): string => {
  const lower = name.toLowerCase();
  return lower.includes('_') ? lower.replaceAll('_', '-') : lower;
};

export const fromRaw = (raw: readonly string[]): HeaderList => {
  const list: HeaderField[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) list.push([raw[i] as string, raw[i + 1] as string]);
  return list;
};

export const toRaw = (list: HeaderList): string[] => list.flatMap(([name, value]) => [name, value]);

/** All values of a field, in order. `name` in lower case. */
export const valuesOf = (list: HeaderList, name: string): string[] => {
  const values: string[] = [];
  // The length first: this runs several times for every field of every request.
  for (const [field, value] of list) if (field.length === name.length && field.toLowerCase() === name) values.push(value);
  return values;
};

const none: ReadonlySet<string> = new Set();

/** The names that `Connection` nominates, lower case. */
export const nominatedBy = (list: HeaderList): ReadonlySet<string> => {
  const values = valuesOf(list, 'connection');
  if (values.length === 0) return none;
  return new Set(
    values
      .flatMap((value) => value.split(','))
      .map((token) => token.trim().toLowerCase())
      .filter((token) => token !== '' && token !== 'close' && token !== 'keep-alive'),
  );
};

/** A name that `Connection` nominates and must not, or undefined. */
export const badNomination = (list: HeaderList): string | undefined =>
  [...nominatedBy(list)].find((name) => notNominable.has(name) || !tokenPattern.test(name));

/** The list without hop-by-hop fields and without those that `Connection` nominates. */
export const withoutHopByHop = (list: HeaderList): HeaderList => {
  const nominated = nominatedBy(list);
  return list.filter(([name]) => {
    const lower = name.toLowerCase();
    return !hopByHop.has(lower) && !nominated.has(lower);
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
    const key = sameNameKey(name);
    return !keys.some((set) => set.has(key));
  });

/** Bytes of the block as HTTP/1.1 would write it. */
export const blockBytes = (list: HeaderList): number => list.reduce((sum, [name, value]) => sum + name.length + value.length + 4, 0);

/** Whether a field value may be written: visible ASCII, space and tab; no CR, LF, NUL or other controls (RFC 9110 section 5.5). */
export const writableValue = (value: string): boolean => /^[\t\x20-\x7e]*$/.test(value) && value.trim() === value;
