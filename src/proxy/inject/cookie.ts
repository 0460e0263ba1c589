/**
 * One cookie beside the program's own (RFC 6265 section 5.4). Every cookie that some server would read by its name goes; the others keep
 * their bytes and their order, in one field.
 */
import { Fault } from '../../core/fault.ts';
import { type HeaderList, valuesOf } from '../../core/headers.ts';
import type { Placer } from '../inject.ts';

/** cookie-octet of RFC 6265 section 4.1.1. */
const octets = /^[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+$/;

/**
 * A name as servers read it: quotes, spaces and a leading "$" or "=" dropped, percent-encoding resolved, and what PHP turns into "_" in names
 * turned into it.
 */
const nameKey = (written: string): string => {
  const bare = written.replace(/^[\s"=$]+|[\s"]+$/g, '');
  const decoded = bare.replace(/%([0-7][0-9a-f])/gi, (_, octet: string) => String.fromCharCode(Number.parseInt(octet, 16)));
  return decoded.trim().replace(/[ .[]/g, '_').toLowerCase();
};

/**
 * Whether some server reads a cookie of this name in what stands between two semicolons. Some end a cookie at a comma or a space too
 * (RFC 2109, Python's http.cookies), so what stands behind one may be another.
 */
const isNamed = (pair: string, key: string): boolean => {
  const joined = pair.replace(/\s*=\s*/g, '=');
  const parts = [pair, joined].flatMap((text) => text.split(/[,\s]+/).filter((part, index) => index === 0 || part.includes('=')));
  // A name with a space in it is one to those who end cookies at semicolons alone.
  return [pair, ...parts].some((part) => nameKey(part.replace(/^[\s=]+/, '').split('=', 1)[0] as string) === key);
};

const cookiesIn = (headers: HeaderList): string[] =>
  valuesOf(headers, 'cookie')
    .flatMap((value) => value.split(';'))
    .map((pair) => pair.trim())
    .filter((pair) => pair !== '');

/** The values of the cookies that some server would read by this name. */
export const cookiesNamed = (headers: HeaderList, name: string): string[] =>
  cookiesIn(headers)
    .filter((pair) => isNamed(pair, nameKey(name)))
    .map((pair) => pair.slice(pair.indexOf('=') + 1).trim());

export const cookie: Placer<{ readonly kind: 'cookie'; readonly name: string }> = {
  read: (text) => {
    if (!octets.test(text)) throw new Fault('credential_invalid', { detail: 'It has a character that no cookie may have.' });
    return text;
  },
  shown: (value) => [value],
  // Not Cookie itself: the program's other cookies stay.
  fields: () => [],
  place: (draft, { name }, value) => {
    const kept = cookiesIn(draft.headers).filter((pair) => !isNamed(pair, nameKey(name)));
    // Ours first: what is left open behind it, such as a quote, cannot swallow it.
    const field = [`${name}=${value}`, ...kept].join('; ');
    return { ...draft, headers: [...draft.headers.filter(([field]) => field.toLowerCase() !== 'cookie'), ['cookie', field]] };
  },
};
