/**
 * DER (X.690 section 10), as much as certificates and certificate requests need: a writer, and a reader that takes only what
 * DER allows (definite lengths in their shortest form, one-byte tags, nothing left over). It knows nothing of certificates.
 */
import { Buffer } from 'node:buffer';

export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  bmpString: 0x1e,
  sequence: 0x30,
  set: 0x31,
  utcTime: 0x17,
  generalizedTime: 0x18,
} as const;

// Writer ------------------------------------------------------------------------------------------------------------

const lengthOctets = (length: number): Buffer => {
  if (length < 0x80) return Buffer.of(length);
  const octets: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) octets.unshift(rest % 256);
  return Buffer.of(0x80 | octets.length, ...octets);
};

export const tlv = (tag: number, ...contents: readonly Uint8Array[]): Buffer => {
  const length = contents.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([Buffer.of(tag), lengthOctets(length), ...contents]);
};

export const sequence = (...elements: readonly Uint8Array[]): Buffer => tlv(tags.sequence, ...elements);
/** SET OF: its elements stand in the order of their encodings (X.690 section 11.6). */
export const setOf = (...elements: readonly Uint8Array[]): Buffer => tlv(tags.set, ...elements.toSorted((a, b) => Buffer.compare(a, b)));
export const octetString = (content: Uint8Array): Buffer => tlv(tags.octetString, content);
/** All bits used. */
export const bitString = (content: Uint8Array): Buffer => tlv(tags.bitString, Buffer.of(0), content);
/** Constructed, context-specific: `[n]` around whole elements. */
export const explicit = (n: number, ...elements: readonly Uint8Array[]): Buffer => tlv(0xa0 | n, ...elements);
/** Primitive, context-specific: `[n] IMPLICIT`. */
export const implicit = (n: number, content: Uint8Array): Buffer => tlv(0x80 | n, content);
/** Only ever written when true: DER omits a default, and FALSE is the default wherever we write one. */
export const booleanTrue: Buffer = tlv(tags.boolean, Buffer.of(0xff));

/** A non-negative INTEGER from its magnitude, in the fewest octets. */
export const unsignedInteger = (magnitude: Uint8Array): Buffer => {
  let start = 0;
  while (start < magnitude.length - 1 && magnitude[start] === 0) start += 1;
  const shortest = magnitude.subarray(start);
  return (shortest[0] ?? 0) >= 0x80
    ? tlv(tags.integer, Buffer.of(0), shortest)
    : tlv(tags.integer, shortest.length === 0 ? Buffer.of(0) : shortest);
};

export const objectIdentifier = (dotted: string): Buffer => {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const octets = [first * 40 + second, ...rest].flatMap((arc) => {
    const septets = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128)) septets.unshift((left % 128) | 0x80);
    return septets;
  });
  return tlv(tags.objectIdentifier, Buffer.from(octets));
};

/** UTCTime through 2049, GeneralizedTime after (RFC 5280 section 4.1.2.5); whole seconds. */
export const time = (ms: number): Buffer => {
  const text = `${new Date(ms).toISOString().slice(0, 19).replaceAll(/[-:T]/g, '')}Z`;
  const isUtc = Number(text.slice(0, 4)) < 2050;
  return isUtc ? tlv(tags.utcTime, Buffer.from(text.slice(2))) : tlv(tags.generalizedTime, Buffer.from(text));
};

// Reader ------------------------------------------------------------------------------------------------------------

/** Bytes that are not the DER that was asked for. Never leaves pki/. */
export class DerError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'DerError';
  }
}

export interface Element {
  readonly tag: number;
  readonly content: Buffer;
  /** Tag, length and content: what a signature covers. */
  readonly whole: Buffer;
}

const readElement = (bytes: Buffer, at: number): Element => {
  const tag = bytes[at] as number;
  if (tag === 0 || (tag & 0x1f) === 0x1f) throw new DerError('a tag is not one that certificates use');
  const first = bytes[at + 1];
  if (first === undefined) throw new DerError('it ends before a length');
  if (first === 0x80) throw new DerError('a length is indefinite');
  let start = at + 2;
  let length = first;
  if (first > 0x80) {
    const octets = bytes.subarray(start, start + (first & 0x7f));
    if (octets.length > 4 || octets.length < (first & 0x7f)) throw new DerError('a length is longer than the input');
    start += octets.length;
    length = octets.reduce((sum, octet) => sum * 256 + octet, 0);
    if (length < 0x80 || octets[0] === 0) throw new DerError('a length is not in its shortest form');
  }
  if (start + length > bytes.length) throw new DerError('it ends before its content does');
  return { tag, content: bytes.subarray(start, start + length), whole: bytes.subarray(at, start + length) };
};

/** The elements that fill `bytes` exactly. */
export const elementsOf = (bytes: Buffer): Element[] => {
  const elements: Element[] = [];
  for (let at = 0; at < bytes.length; ) {
    const element = readElement(bytes, at);
    elements.push(element);
    at += element.whole.length;
  }
  return elements;
};

/** `element` if it is there and has the tag. */
export const expectTag = (element: Element | undefined, tag: number, what: string): Element => {
  if (element?.tag !== tag) throw new DerError(`${what} is missing or of another type`);
  return element;
};

/** The one element that fills `bytes`. */
export const onlyElement = (bytes: Buffer, tag: number, what: string): Element => {
  const [element, ...others] = elementsOf(bytes);
  if (others.length > 0) throw new DerError(`bytes follow ${what}`);
  return expectTag(element, tag, what);
};

/** Content of a BIT STRING of whole octets. */
export const bitsOf = (element: Element): Buffer => {
  if (element.content[0] !== 0) throw new DerError('a bit string has unused bits');
  return element.content.subarray(1);
};
