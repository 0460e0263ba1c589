/**
 * The program's end of an answer over HTTP/1. The framing is Node's from our fields: a Content-Length as given, else chunked, and
 * for HTTP/1.0 the end of the connection.
 */
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { type HeaderList, toRaw } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { ResponseSink } from '../exchange.ts';
import { splice } from './splice.ts';

export interface Http1SinkParts {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Calls back when the response is closed. */
  readonly onClose: (then: () => void) => void;
  /** Monotonic ms. */
  readonly now: () => number;
  /** Called before the connection is joined to the target's: gives what the program sent behind the head of its upgrade. */
  readonly beforeUpgrade?: () => Buffer;
}

export class Http1Sink implements ResponseSink {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #onClose: (then: () => void) => void;
  readonly #now: () => number;
  readonly #beforeUpgrade: () => Buffer;
  #status = 0;
  #bytes = 0;
  #firstByteAt = 0;
  #isEnded = false;
  #hasContinued = false;
  /** The turn in which the head was given is over: nothing waits any longer. */
  #isLate = false;
  /** The first bytes of the body, not written yet. */
  #held: Uint8Array | undefined;
  #upgradedBytes = 0;

  constructor({ request, response, onClose, now, beforeUpgrade = () => noBytes }: Http1SinkParts) {
    this.#request = request;
    this.#response = response;
    this.#onClose = onClose;
    this.#now = now;
    this.#beforeUpgrade = beforeUpgrade;
    response.sendDate = false;
    // Whatever its TE says: HTTP/1.0 has no chunks.
    if (request.httpVersion === '1.0') response.useChunkedEncodingByDefault = false;
    // A broken connection is told by 'close'; without a listener its error would end the process.
    response.on('error', ignore);
  }

  /** HTTP/1.0 has no interim answers (RFC 9110 section 15.2). The connection is this answer's alone: requests are taken one by one. */
  informational(status: number, headers: HeaderList): void {
    const { socket } = this.#response;
    if (this.#request.httpVersion !== '1.1' || this.#status !== 0 || !socket?.writable) return;
    if (status === 100) {
      if (this.#hasContinued) return;
      this.#hasContinued = true;
      // Not by hand: node:http closes the connection after an answer to an Expect that it has not seen continued.
      return this.#response.writeContinue();
    }
    socket.write(headBytes(status, headers), 'latin1');
  }

  head(status: number, reason: string, headers: HeaderList): void {
    this.#status = status;
    this.#firstByteAt = this.#now();
    // A program that was not told to continue may or may not send its body: what comes next could be read in two ways (THREATS F-9).
    // node:http sees to it for 100-continue alone.
    const { headers: asked, complete } = this.#request;
    if (asked.expect !== undefined && !this.#hasContinued && !complete) this.#response.shouldKeepAlive = false;
    // HTTP/2 has no reason phrases; some programs of HTTP/1 want one.
    this.#response.writeHead(status, reason === '' ? (STATUS_CODES[status] ?? '') : reason, toRaw(headers));
    laterInTurn(this);
  }

  /**
   * What there is at the end of the turn goes out: a head whose body takes its time (event streams) must not wait for it, one with a
   * body at hand goes out with it.
   */
  flush(): void {
    this.#isLate = true;
    if (this.#isEnded || this.#response.destroyed) return;
    // An empty write rather than flushHeaders(), which writes the head as UTF-8 and so changes the bytes of a field above ASCII.
    if (this.#held || this.#bytes === 0) this.#response.write(this.#takeHeld() ?? noBytes);
  }

  write(chunk: Uint8Array): boolean {
    const isWithHead = this.#bytes === 0 && !this.#isLate;
    this.#bytes += chunk.length;
    // Held until the end, if that is near: head and body in one buffer cost half of what they do in two.
    if (isWithHead && chunk.length <= heldBytesMax) {
      this.#held = chunk;
      return true;
    }
    const held = this.#takeHeld();
    if (held) this.#response.write(held);
    return this.#response.write(chunk);
  }

  #takeHeld(): Uint8Array | undefined {
    const held = this.#held;
    this.#held = undefined;
    return held;
  }

  onDrain(resume: () => void): void {
    this.#response.once('drain', resume);
  }

  end(trailers: HeaderList = []): void {
    this.#isEnded = true;
    // Without a chunked body there is no place for them, and a recipient may do without (RFC 9110 section 6.5.1).
    if (trailers.length > 0 && this.#response.chunkedEncoding)
      this.#response.addTrailers(trailers.map(([name, value]): [string, string] => [name, value]));
    const held = this.#takeHeld();
    // As Latin-1 it is joined to the head; a view of bytes would be written beside it.
    if (held) this.#response.end(Buffer.from(held.buffer, held.byteOffset, held.length).toString('latin1'), 'latin1');
    else this.#response.end();
    if (!this.#request.complete) this.#response.once('finish', () => this.#dropRest());
  }

  /**
   * Answered before the request was all here: what still comes is dropped for a moment, so that the program can read the answer, then
   * the connection goes (THREATS F-3).
   */
  #dropRest(): void {
    if (this.#request.complete) return;
    this.#request.resume();
    setTimeout(() => {
      if (!this.#request.complete) this.#request.socket.destroy();
    }, limits.earlyAnswerDrainMs).unref();
  }

  async upgrade(headers: HeaderList, target: Duplex): Promise<void> {
    const socket = this.#response.socket as Socket;
    this.#status = 101;
    this.#firstByteAt = this.#now();
    this.#isEnded = true;
    const early = this.#beforeUpgrade();
    this.#response.detachSocket(socket);
    socket.write(headBytes(101, headers), 'latin1');
    const { fromClientBytes, fromTargetBytes } = await splice(socket, target, early);
    this.#upgradedBytes = fromClientBytes;
    this.#bytes = fromTargetBytes;
  }

  upgradedBytes(): number {
    return this.#upgradedBytes;
  }

  abort(): void {
    this.#isEnded = true;
    const { socket, httpVersion } = this.#request;
    // To HTTP/1.0 an orderly close would be the whole answer's end (THREATS F-11); TLS tells by the missing close_notify.
    if (httpVersion === '1.0' && !(socket instanceof TLSSocket)) socket.resetAndDestroy();
    else socket.destroy();
    this.#response.destroy();
  }

  onGone(gone: () => void): void {
    if (this.#response.destroyed && !this.#response.writableFinished) return gone();
    return this.#onClose(() => {
      if (!this.#response.writableFinished) gone();
    });
  }

  hasStarted(): boolean {
    return this.#status !== 0;
  }

  status(): number {
    return this.#status;
  }

  bytes(): number {
    return this.#bytes;
  }

  firstByteAt(): number {
    return this.#firstByteAt;
  }
}

const noBytes = Buffer.alloc(0);
const ignore = (): void => undefined;

/** The first chunk of a body is held up to this size: what Node writes from the stack in one piece, with room for the head. */
const heldBytesMax = 8 * 1024;

/** Sinks whose head was given in this turn of the event loop: one call back for all of them. */
let sinksOfTurn: Http1Sink[] = [];
const laterInTurn = (sink: Http1Sink): void => {
  sinksOfTurn.push(sink);
  if (sinksOfTurn.length > 1) return;
  setImmediate(() => {
    const sinks = sinksOfTurn;
    sinksOfTurn = [];
    for (const one of sinks) one.flush();
  });
};

const headBytes = (status: number, headers: HeaderList): string =>
  `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${headers.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
