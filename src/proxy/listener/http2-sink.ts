/** The program's end of an answer on a stream of HTTP/2. */
import { constants, type ServerHttp2Stream, type ServerStreamResponseOptions } from 'node:http2';
import type { HeaderList } from '../../core/headers.ts';
import type { ResponseSink } from '../exchange.ts';

export class Http2Sink implements ResponseSink {
  readonly #stream: ServerHttp2Stream;
  /** Monotonic ms. */
  readonly #now: () => number;
  #trailers: HeaderList = [];
  #status = 0;
  #bytes = 0;
  #firstByteAt = 0;

  constructor(stream: ServerHttp2Stream, now: () => number) {
    this.#stream = stream;
    this.#now = now;
  }

  informational(status: number, headers: HeaderList): void {
    if (this.#status === 0 && !this.#stream.destroyed) this.#stream.additionalHeaders({ ':status': status, ...grouped(headers) });
  }

  head(status: number, _reason: string, headers: HeaderList): void {
    this.#status = status;
    this.#firstByteAt = this.#now();
    if (this.#stream.destroyed) return;
    this.#stream.once('wantTrailers', () => {
      if (!this.#stream.destroyed) this.#stream.sendTrailers(grouped(this.#trailers));
    });
    // `Connection` has no meaning here; what an answer that closes wants is seen to by the stream's end.
    const fields = headers.filter(([name]) => name.toLowerCase() !== 'connection');
    this.#stream.respond([':status', String(status), ...fields.flatMap(([name, value]) => [name.toLowerCase(), value])], {
      waitForTrailers: true,
      // The target's Date, or none: not ours.
      sendDate: false,
    } as ServerStreamResponseOptions);
  }

  write(chunk: Uint8Array): boolean {
    this.#bytes += chunk.length;
    return this.#stream.destroyed || this.#stream.write(chunk);
  }

  onDrain(resume: () => void): void {
    this.#stream.once('drain', resume);
  }

  end(trailers: HeaderList = []): void {
    this.#trailers = trailers;
    this.#stream.end(() => {
      // Answered before the request was all here: its sender is told to stop, without an error (RFC 9113 section 8.1).
      if (!this.#stream.readableEnded) this.#stream.close(constants.NGHTTP2_NO_ERROR);
    });
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
    if (this.#stream.destroyed) return gone();
    this.#stream.once('close', () => {
      if (!this.#stream.writableFinished || this.#stream.aborted) gone();
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
}

/** For the calls of node:http2 that take no list. */
const grouped = (headers: HeaderList): Record<string, string | string[]> => {
  const byName: Record<string, string | string[]> = {};
  for (const [name, value] of headers) {
    const key = name.toLowerCase();
    const known = byName[key];
    byName[key] = known === undefined ? value : [known, value].flat();
  }
  return byName;
};
