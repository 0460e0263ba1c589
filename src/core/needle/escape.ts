/** Escapes in which programs write a byte: percent-encoding, JSON's and JavaScript's, HTML's. Part of core/needle.ts. */

/** Bytes of the longest spelling of one symbol: \u0041, &quot; */
export const unitBytesMax = 6;

export const [percent, backslash, ampersand] = [0x25, 0x5c, 0x26];
/** The escape that begins here: its length << 8 | its symbol. 0: none. -1: it may be one, more bytes will tell. */
export const unitAt = (bytes: Uint8Array, at: number, isLast: boolean): number => {
  switch (bytes[at]) {
    case percent:
      return hexUnit(bytes, at, 1, 2, isLast);
    case ampersand:
      return entityUnit(bytes, at, isLast);
    case backslash:
      break;
    default:
      return 0;
  }
  const next = bytes[at + 1];
  if (next === undefined) return isLast ? 0 : -1;
  if (next === 0x75) return hexUnit(bytes, at, 2, 4, isLast);
  if (next === 0x78) return hexUnit(bytes, at, 2, 2, isLast);
  const symbol = shortEscapes.get(next);
  return symbol === undefined ? 0 : (2 << 8) | symbol;
};

/** RFC 8259 section 7, and the quote of JavaScript. */
const shortEscapes = new Map<number, number>(
  Object.entries({ '"': '"', "'": "'", '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }).map(([letter, symbol]) => [
    letter.charCodeAt(0),
    symbol.charCodeAt(0),
  ]),
);

const hexUnit = (bytes: Uint8Array, at: number, lead: number, digits: number, isLast: boolean): number => {
  let value = 0;
  for (let i = at + lead; i < at + lead + digits; i += 1) {
    const byte = bytes[i];
    if (byte === undefined) return isLast ? 0 : -1;
    const digit = hexDigit(byte);
    if (digit < 0) return 0;
    value = value * 16 + digit;
  }
  return value > 0xff ? 0 : ((lead + digits) << 8) | value;
};

const hexDigit = (byte: number): number => {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
};

const named: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

const entityUnit = (bytes: Uint8Array, at: number, isLast: boolean): number => {
  for (let end = at + 1; end < at + unitBytesMax; end += 1) {
    const byte = bytes[end];
    if (byte === undefined) return isLast ? 0 : -1;
    if (byte === 0x3b) {
      const name = Buffer.from(bytes.subarray(at + 1, end)).toString('latin1');
      const code = /^#(?:x([\da-f]{2})|(\d{2,3}))$/i.exec(name);
      const symbol = code ? Number.parseInt(code[1] ?? (code[2] as string), code[1] === undefined ? 10 : 16) : named[name]?.charCodeAt(0);
      return symbol === undefined || symbol > 0xff ? 0 : ((end + 1 - at) << 8) | symbol;
    }
    const isNaming = byte === 0x23 || (byte >= 0x30 && byte <= 0x39) || ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a);
    if (!isNaming) return 0;
  }
  return 0;
};

export const leadPattern = /[%\\&]/;

/** Where the next byte of each kind is that may begin an escape. */
export type Leads = readonly [number, number, number];
export const unknownLeads: Leads = [-1, -1, -1];

export const leadsFrom = (window: Buffer, from: number, [first, second, third]: Leads): Leads => [
  first < from ? leadFrom(window, percent, from) : first,
  second < from ? leadFrom(window, backslash, from) : second,
  third < from ? leadFrom(window, ampersand, from) : third,
];

const leadFrom = (window: Buffer, lead: number, from: number): number => {
  const found = window.indexOf(lead, from);
  return found < 0 ? Number.POSITIVE_INFINITY : found;
};
