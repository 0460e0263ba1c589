/**
 * Looks at the first bytes of a connection, under bounds of time and size, before anybody reads them. Never answers and never
 * closes: what to do about what it saw is its caller's, who also listens for the socket's errors.
 */
import type { Socket } from 'node:net';
import { httpStart } from './http-head.ts';

export interface Peeked<T> {
  /** What `look` made of it; undefined when time, bytes or the connection ended first. */
  readonly found: T | undefined;
  /** How many bytes there were to look at. */
  readonly bytes: number;
  /** The program closed its side, or the connection broke, before `look` had seen enough. */
  readonly isEnded: boolean;
  /** What could not be put back, because the program had closed its side by then; else everything is in the socket again. */
  readonly rest: Buffer;
}

export interface PeekBounds {
  /** How long it may be silent before its first byte. */
  readonly silenceMs: number;
  /** From its first byte until there is enough to see. */
  readonly headMs: number;
  readonly bytesMax: number;
}

const nothing = Buffer.alloc(0);

/** Reads until `look` has seen enough of the first bytes, and puts them back. `first` was read before, by whoever calls. */
export const peek = <T>(socket: Socket, first: Buffer, bounds: PeekBounds, look: (bytes: Buffer) => T | 'more'): Promise<Peeked<T>> =>
  new Promise((resolve) => {
    let seen = first;
    let timer: NodeJS.Timeout;
    const done = (found: T | undefined, isEnded: boolean): void => {
      clearTimeout(timer);
      socket.off('readable', read);
      socket.off('end', ended);
      socket.off('close', ended);
      // In this very turn: in the next one the socket would say that it has ended, and take nothing back.
      const isTakenBack = !isEnded && !socket.destroyed && seen.length > 0;
      if (isTakenBack) socket.unshift(seen);
      resolve({ found, bytes: seen.length, isEnded, rest: isTakenBack ? nothing : seen });
    };
    const ended = (): void => done(undefined, true);
    const late = (): void => done(undefined, false);
    const hasSeenEnough = (): boolean => {
      const found = look(seen);
      if (found === 'more' && seen.length < bounds.bytesMax) return false;
      done(found === 'more' ? undefined : found, false);
      return true;
    };
    const read = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      if (seen.length === 0) {
        clearTimeout(timer);
        timer = setTimeout(late, bounds.headMs);
      }
      seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
      hasSeenEnough();
    };
    timer = setTimeout(late, seen.length === 0 ? bounds.silenceMs : bounds.headMs);
    if (seen.length > 0 && hasSeenEnough()) return;
    if (socket.destroyed || socket.readableEnded) return ended();
    socket.once('end', ended);
    socket.once('close', ended);
    socket.on('readable', read);
  });

const tlsHandshake = 0x16;
const tlsMajorVersion = 0x03;

/** Whether the first bytes are those of a TLS record that holds a handshake (RFC 8446 section 5.1). */
export const startsTls = (bytes: Buffer): boolean => bytes[0] === tlsHandshake && (bytes.length < 2 || bytes[1] === tlsMajorVersion);

/** silent: not one byte in time. gone: closed before it could be told. */
export type Sniffed = 'tls' | 'http1' | 'h2' | 'other' | 'silent' | 'gone';

/** More than the longest request line. */
const sniffBytesMax = 16 * 1024;

/** What the program begins to speak. `head` is what was read before; all of it is in the socket afterwards. */
export const sniff = async (socket: Socket, head: Buffer, timeoutMs: number): Promise<Sniffed> => {
  const bounds = { silenceMs: timeoutMs, headMs: timeoutMs, bytesMax: sniffBytesMax };
  const { found, bytes, isEnded } = await peek(socket, head, bounds, (seen) => (startsTls(seen) ? 'tls' : httpStart(seen)));
  if (isEnded) return 'gone';
  if (bytes === 0) return 'silent';
  // Fits HTTP/1 and did not arrive in time: the engine for it knows how to answer that.
  return found ?? 'http1';
};
