/** The program's end of an answer on a stream of HTTP/2. */
import { constants, type ServerHttp2Stream, type ServerStreamResponseOptions } from 'node:http2';
import { Fault } from '../../core/fault.ts';
import { type HeaderList, valuesOf } from '../../core/headers.ts';
import type { ResponseSink } from '../exchange.ts';

export interface Http2SinkParts {
  readonly stream: ServerHttp2Stream;
  /** Whether the request was HEAD, whose answer has no body. */
  readonly isHead: boolean;
  /** Monotonic ms. */
  readonly now: () => number;
}

/** Statuses above are no HTTP (RFC 9110 section 15), and node:http2 writes none. */
const statusMax = 599;
/** States in which the program has not ended its side (RFC 9113 section 5.1). */
const receiving: ReadonlySet<number | undefined> = new Set([
  constants.NGHTTP2_STREAM_STATE_OPEN,
  constants.NGHTTP2_STREAM_STATE_HALF_CLOSED_LOCAL,
]);
const bodyless: ReadonlySet<number> = new Set([204, 205, 304]);

export class Http2Sink implements ResponseSink {
  readonly #stream: ServerHttp2Stream;
  readonly #isHead: boolean;
  readonly #now: () => number;
  /** A head that is not written yet: it ends its stream, unless a body comes after all. */
  #held: HeaderList | undefined;
  #trailers: HeaderList = [];
  #hasBody = true;
  #hasContinued = false;
  #status = 0;
  #bytes = 0;
  #firstByteAt = 0;

  constructor({ stream, isHead, now }: Http2SinkParts) {
    this.#stream = stream;
    this.#isHead = isHead;
    this.#now = now;
  }

  informational(status: number, headers: HeaderList): void {
    if (this.#status !== 0 || this.#isClosed()) return;
    if (status === 100) {
      if (this.#hasContinued) return;
      this.#hasContinued = true;
    }
    this.#stream.additionalHeaders({ ':status': status, ...grouped(headers) });
  }

  head(status: number, _reason: string, headers: HeaderList): void {
    if (status > statusMax) throw new Fault('target_malformed', { detail: `It answered with status ${status}.` });
    this.#status = status;
    this.#firstByteAt = this.#now();
    this.#hasBody = !this.#isHead && !bodyless.has(status);
    // `Connection` has no meaning here; what an answer that closes wants is seen to by the stream's end.
    const fields = headers.filter(([name]) => name.toLowerCase() !== 'connection');
    // A gRPC answer of trailers only is one HEADERS frame that ends the stream: clients take it for nothing else.
    const endsStream = valuesOf(fields, 'grpc-status').length > 0 || valuesOf(fields, 'content-length')[0] === '0';
    if (endsStream) this.#held = fields;
    else this.#respond(fields, !this.#hasBody);
  }

  write(chunk: Uint8Array): boolean {
    this.#bytes += chunk.length;
    if (!this.#hasBody) return true;
    this.#release(false);
    return this.#isClosed() || this.#stream.write(chunk);
  }

  onDrain(resume: () => void): void {
    this.#stream.once('drain', resume);
  }

  end(trailers: HeaderList = []): void {
    this.#trailers = trailers;
    this.#release(trailers.length === 0);
    if (!this.#isClosed() && !this.#stream.writableEnded) this.#stream.end();
  }

  upgrade(): Promise<void> {
    throw new TypeError('HTTP/2 has no upgrades');
  }

  upgradedBytes(): number {
    return 0;
  }

  abort(): void {
    this.#stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }

  onGone(gone: () => void): void {
    if (this.#isClosed()) return gone();
    // 'aborted' comes at once; 'close' may wait for a body that nobody reads any more.
    this.#stream.once('aborted', gone);
    this.#stream.once('close', () => {
      if (!this.#stream.writableFinished) gone();
    });
    return undefined;
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

  #isClosed(): boolean {
    return this.#stream.destroyed || this.#stream.closed;
  }

  #release(endsStream: boolean): void {
    const fields = this.#held;
    this.#held = undefined;
    if (fields) this.#respond(fields, endsStream);
  }

  #respond(fields: HeaderList, endsStream: boolean): void {
    if (this.#isClosed()) return;
    if (endsStream) this.#stopReceiving();
    else {
      this.#stream.once('wantTrailers', () => {
        this.#stream.sendTrailers(grouped(this.#trailers));
        this.#stopReceiving();
      });
    }
    this.#stream.respond([':status', String(this.#status), ...fields.flatMap(([name, value]) => [name.toLowerCase(), value])], {
      endStream: endsStream,
      waitForTrailers: !endsStream,
      // The target's Date, or none: not ours.
      sendDate: false,
    } as ServerStreamResponseOptions);
  }

  /**
   * Answered before the request was all here: its sender is told to stop, without an error (RFC 9113 section 8.1). After node:http2 has
   * written the end of the answer, which it does at the end of this turn.
   */
  #stopReceiving(): void {
    setImmediate(() => {
      if (!this.#isClosed() && receiving.has(this.#stream.state.state)) this.#stream.close(constants.NGHTTP2_NO_ERROR);
    });
  }
}

/** For the calls of node:http2 that take no list. */
const grouped = (headers: HeaderList): Record<string, string | string[]> => {
  const byName = Object.create(null) as Record<string, string | string[]>;
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    const known = byName[key];
    byName[key] = known === undefined ? value : [known, value].flat();
  }
  return byName;
};
