/**
 * The canonical form of a request, which both ends compute and one signs. Made from what is sent, byte for byte: texts here are Latin-1, one
 * character for one byte, as they are on the wire. Pure; knows no key.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
import { hash } from 'node:crypto';
import type { HeaderList } from '../../../core/headers.ts';

export const sha256 = (data: string | Uint8Array): string =>
  hash('sha256', typeof data === 'string' ? Buffer.from(data, 'latin1') : data, 'hex');

/** SHA-256 of nothing. */
export const emptyHash = sha256('');

const encodedOctet = (char: string): string => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`;

/** Every byte but the unreserved ones of RFC 3986. */
export const uriEncode = (text: string): string => text.replace(/[^A-Za-z0-9\-._~]/g, encodedOctet);

export const uriDecode = (text: string): string =>
  text.includes('%') ? text.replace(/%([0-9A-Fa-f]{2})/g, (_octet, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))) : text;

/** Services that store what a path names, and so take each path for itself: encoded once, nothing resolved. */
const isVerbatim = new Set(['s3', 's3-outposts', 's3-object-lambda', 's3express']);

/** S3 and its kin, which also take payloads that are not signed. */
export const isObjectStore = (service: string): boolean => isVerbatim.has(service);

/** `path` as it is sent. */
const canonicalPath = (path: string, service: string): string =>
  isObjectStore(service) ? eachSegment(path, (segment) => uriEncode(uriDecode(segment))) : eachSegment(resolved(path), uriEncode);

const eachSegment = (path: string, change: (segment: string) => string): string => path.split('/').map(change).join('/');

/** RFC 3986 section 5.2.4, and empty segments go, too. Paths that were read as canonical have nothing to resolve. */
const resolved = (path: string): string => {
  if (!path.includes('//') && !path.includes('/.')) return path;
  const kept: string[] = [];
  for (const segment of path.split('/')) {
    if (segment === '..') kept.pop();
    else if (segment !== '' && segment !== '.') kept.push(segment);
  }
  return `/${kept.join('/')}${kept.length > 0 && path.endsWith('/') ? '/' : ''}`;
};

/** One parameter as it is sent, in its canonical form. */
const canonicalParameter = (parameter: string): readonly [name: string, value: string] => {
  const mark = parameter.indexOf('=');
  const [name, value] = mark < 0 ? [parameter, ''] : [parameter.slice(0, mark), parameter.slice(mark + 1)];
  return [uriEncode(uriDecode(name)), uriEncode(uriDecode(value))];
};

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** Sorted by name, then by value, as bytes of their encoded forms. */
const canonicalQuery = (parameters: readonly string[]): string =>
  parameters
    .map(canonicalParameter)
    .toSorted(([a, aValue], [b, bValue]) => compare(a, b) || compare(aValue, bValue))
    .map(([name, value]) => `${name}=${value}`)
    .join('&');

export const parameterName = (parameter: string): string => uriDecode(parameter.split('=', 1)[0] as string);

/**
 * The parameters of a query as they are sent. What two parsers read differently is written so that they do not: "+", which is a space for
 * services and nothing special in RFC 3986, as %20; ";", which some take for "&", as %3B; a "%" that begins no octet as %25.
 */
export const parametersOf = (query: string): readonly string[] =>
  query
    .slice(1)
    .split('&')
    .filter((parameter) => parameter !== '')
    .map((parameter) =>
      parameter
        .replaceAll('+', '%20')
        .replaceAll(';', '%3B')
        .replace(/%(?![0-9A-Fa-f]{2})/g, '%25'),
    );

export const queryOf = (parameters: readonly string[]): string => (parameters.length === 0 ? '' : `?${parameters.join('&')}`);

export interface SignedFields {
  /** `name:value\n` for each, in the order of their names. */
  readonly block: string;
  /** Their names, joined by ";". */
  readonly names: string;
}

/** Fields of one name are joined in their order; blanks at the ends go and runs of them become one. */
export const signedFields = (headers: HeaderList, isSigned: (lowerName: string) => boolean): SignedFields => {
  const values = new Map<string, string[]>();
  for (const [name, value] of headers) {
    const lower = name.toLowerCase();
    if (!isSigned(lower)) continue;
    const trimmed = value.replace(/[\t ]+/g, ' ').trim();
    const others = values.get(lower);
    if (others) others.push(trimmed);
    else values.set(lower, [trimmed]);
  }
  const names = [...values.keys()].toSorted();
  return {
    block: names.map((name) => `${name}:${(values.get(name) as string[]).join(',')}\n`).join(''),
    names: names.join(';'),
  };
};

export interface CanonicalParts {
  readonly method: string;
  /** As it is sent. */
  readonly path: string;
  readonly parameters: readonly string[];
  readonly fields: SignedFields;
  /** SHA-256 of the body in hexadecimal, or the word that stands for it. */
  readonly payload: string;
  readonly service: string;
}

export const canonicalRequest = ({ method, path, parameters, fields, payload, service }: CanonicalParts): string =>
  [method, canonicalPath(path, service), canonicalQuery(parameters), fields.block, fields.names, payload].join('\n');
