/** The program's end of an answer over node:http. The framing is Node's from our fields: a Content-Length as given, else chunked. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type HeaderList, toRaw } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { ResponseSink } from '../exchange.ts';

export class NodeSink implements ResponseSink {
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #now: () => number;
  #status = 0;
  #bytes = 0;
  #firstByteAt = 0;
  #isEnded = false;

  constructor(request: IncomingMessage, response: ServerResponse, now: () => number) {
    this.#request = request;
    this.#response = response;
    this.#now = now;
    response.sendDate = false;
    // A broken connection is told by 'close'; without a listener its error would end the process.
    response.on('error', () => undefined);
  }

  head(status: number, reason: string, headers: HeaderList): void {
    this.#status = status;
    this.#firstByteAt = this.#now();
    this.#response.writeHead(status, reason, toRaw(headers));
    // A head whose body takes its time (event streams) must not wait for it; one with a body at hand goes out with it.
    setImmediate(() => {
      if (!this.#isEnded && this.#bytes === 0 && !this.#response.destroyed) this.#response.flushHeaders();
    });
  }

  write(chunk: Uint8Array): boolean {
    this.#bytes += chunk.length;
    return this.#response.write(chunk);
  }

  onDrain(resume: () => void): void {
    this.#response.once('drain', resume);
  }

  end(): void {
    this.#isEnded = true;
    this.#response.end(() => {
      if (this.#request.complete) return;
      // Answered before the request was all here: what still comes is dropped for a moment, so that the program can read the
      // answer, then the connection goes (THREATS F-3).
      this.#request.resume();
      setTimeout(() => {
        if (!this.#request.complete) this.#request.socket.destroy();
      }, limits.earlyAnswerDrainMs).unref();
    });
  }

  abort(): void {
    this.#isEnded = true;
    this.#response.destroy();
    this.#request.socket.destroy();
  }

  onGone(gone: () => void): void {
    if (this.#response.destroyed && !this.#response.writableFinished) return gone();
    this.#response.once('close', () => {
      if (!this.#response.writableFinished) gone();
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
