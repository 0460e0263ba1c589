/**
 * Reads a TLS ClientHello from the first bytes of a connection, without answering: which server name it asks for and which protocols
 * it offers (RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3, RFC 7301). What is malformed or ambiguous has no name, so that its
 * connection passes untouched; nothing is decided here. Pure.
 */
import { isIP } from 'node:net';
import { canonicalHost } from '../../core/destination.ts';
import { limits } from '../../core/limits.ts';

export interface ClientHello {
  /** Canonical; undefined when there is none, or none that can be trusted to be the only one. With ECH it is the outer name. */
  readonly serverName: string | undefined;
  /** Protocols offered by ALPN, as sent. */
  readonly alpn: readonly string[];
  /** The name that counts may be encrypted (RFC 9849). */
  readonly hasEncryptedHello: boolean;
}

const contentHandshake = 22;
const messageClientHello = 1;
const recordBytesMax = 1 << 14;
const extensionServerName = 0;
const extensionAlpn = 16;
const extensionEncryptedHello = 0xfe0d;

/** Thrown by Reader alone, and caught below: the message is not what its lengths say. */
class Malformed extends Error {}

/** Vectors with their lengths in front, as TLS writes everything. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  take(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new Malformed();
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  uint(bytes: number): number {
    return this.take(bytes).readUIntBE(0, bytes);
  }

  vector(lengthBytes: number, min: number): Buffer {
    const content = this.take(this.uint(lengthBytes));
    if (content.length < min) throw new Malformed();
    return content;
  }

  /** All that is left, each item read by `item`. */
  items<T>(item: (reader: Reader) => T): T[] {
    const found: T[] = [];
    while (!this.isAtEnd) found.push(item(this));
    return found;
  }
}

/** A hello whose name is not to be had. */
const nameless: ClientHello = { serverName: undefined, alpn: [], hasEncryptedHello: false };

/** 'more' until the message is whole; 'not-tls' as soon as a byte says so. */
export const readClientHello = (bytes: Buffer): ClientHello | 'more' | 'not-tls' => {
  const message = firstMessage(bytes);
  if (message === 'more' || message === 'not-tls') return message;
  if (message === 'malformed') return nameless;
  try {
    return readBody(new Reader(message));
  } catch (error) {
    if (error instanceof Malformed) return nameless;
    throw error;
  }
};

/** The body of the first handshake message, put together from the records that it is split over. */
const firstMessage = (bytes: Buffer): Buffer | 'more' | 'not-tls' | 'malformed' => {
  const fragments: Buffer[] = [];
  let collected = 0;
  let wanted = 4;
  for (let at = 0; ; ) {
    const wrong = at === 0 ? 'not-tls' : 'malformed';
    if (bytes.length === at) return 'more';
    if (bytes[at] !== contentHandshake) return wrong;
    if (bytes.length > at + 1 && bytes[at + 1] !== 3) return wrong;
    if (bytes.length < at + 5) return 'more';
    const length = bytes.readUInt16BE(at + 3);
    // A fragment of a handshake must not be empty (RFC 8446 section 5.1).
    if (length === 0 || length > recordBytesMax) return wrong;
    const fragment = bytes.subarray(at + 5, at + 5 + length);
    if (at === 0 && fragment.length > 0 && fragment[0] !== messageClientHello) return 'not-tls';
    fragments.push(fragment);
    collected += fragment.length;
    if (wanted === 4 && collected >= 4) {
      wanted += Buffer.concat(fragments).readUIntBE(1, 3);
      if (wanted - 4 > limits.clientHelloBytesMax) return 'malformed';
    }
    // With nothing in it the message would be four bytes long, which no ClientHello is.
    if (wanted > 4 && collected >= wanted) return Buffer.concat(fragments).subarray(4, wanted);
    if (wanted === 4 && collected >= 4) return 'malformed';
    if (fragment.length < length) return 'more';
    at += 5 + length;
  }
};

const readBody = (hello: Reader): ClientHello => {
  hello.take(2 + 32);
  if (hello.vector(1, 0).length > 32) throw new Malformed();
  if (hello.vector(2, 2).length % 2 !== 0) throw new Malformed();
  hello.vector(1, 1);
  if (hello.isAtEnd) return nameless;
  const extensions = new Map<number, Buffer>();
  new Reader(hello.vector(2, 0)).items((reader) => {
    const type = reader.uint(2);
    // Of two, one parser takes the first and another the last (RFC 8446 section 4.2 forbids it).
    if (extensions.has(type)) throw new Malformed();
    extensions.set(type, reader.vector(2, 0));
  });
  if (!hello.isAtEnd) throw new Malformed();
  const names = extensions.get(extensionServerName);
  const protocols = extensions.get(extensionAlpn);
  return {
    serverName: names && readServerName(new Reader(names)),
    alpn: protocols ? readAlpn(new Reader(protocols)) : [],
    hasEncryptedHello: extensions.has(extensionEncryptedHello),
  };
};

/** Exactly one name, of the only type there is, as OpenSSL takes it too. */
const readServerName = (extension: Reader): string | undefined => {
  const entries = new Reader(extension.vector(2, 1)).items((reader) => ({ type: reader.uint(1), name: reader.vector(2, 1) }));
  const [entry] = entries;
  if (!extension.isAtEnd || entries.length !== 1 || entry?.type !== 0) throw new Malformed();
  const host = canonicalHost(entry.name.toString('latin1'));
  return host === undefined || isIP(host) !== 0 ? undefined : host;
};

const readAlpn = (extension: Reader): string[] => {
  const names = new Reader(extension.vector(2, 2)).items((reader) => reader.vector(1, 1).toString('latin1'));
  if (!extension.isAtEnd) throw new Malformed();
  return names;
};
