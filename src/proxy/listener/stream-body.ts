/**
 * A request body as a BodySource, of either HTTP engine: pulled chunk by chunk, so that a slow target slows the program, with a
 * bound on how long it may stand still and none on how long it takes.
 */
import type { Readable } from 'node:stream';
import { Fault } from '../../core/fault.ts';
import type { HeaderList } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { BodySource } from '../exchange.ts';

interface Waiter {
  readonly resolve: (result: IteratorResult<Uint8Array>) => void;
  readonly reject: (fault: Fault) => void;
}

const finished: IteratorResult<Uint8Array> = { done: true, value: undefined };

/** What the body is read from: the engine's stream, and what only the engine knows of it. */
export interface BodyStream {
  readonly stream: Readable;
  /** Whether the request arrived whole. */
  readonly isComplete: () => boolean;
  readonly trailers: () => HeaderList;
  /** How long nothing may come of it while it is waited for. */
  readonly idleMs: number;
  /** The body may stand still: both ends talk when they like (gRPC streams). */
  readonly mayPause: () => boolean;
  /** Called once somebody wants the body: where "100 Continue" is said if the target did not. */
  readonly onFirstRead: () => void;
}

export class StreamBody implements BodySource, AsyncIterator<Uint8Array> {
  readonly #source: BodyStream;
  #bytes = 0;
  #isReading = false;
  #isEnded = false;
  #failure: Fault | undefined;
  #waiter: Waiter | undefined;
  #idle: NodeJS.Timeout | undefined;

  constructor(source: BodyStream) {
    this.#source = source;
  }

  get chunks(): AsyncIterable<Uint8Array> {
    return { [Symbol.asyncIterator]: () => this };
  }

  bytes(): number {
    return this.#bytes;
  }

  trailers(): HeaderList {
    return this.#isEnded ? this.#source.trailers() : [];
  }

  /** Ends the body with a fault of the connection's own, e.g. framing that turned out bad after its head was sent on. */
  fail(fault: Fault): void {
    this.#failure ??= fault;
    this.#settle();
  }

  next(): Promise<IteratorResult<Uint8Array>> {
    if (!this.#isReading) this.#start();
    const ready = this.#take();
    if (ready) return Promise.resolve(ready);
    if (this.#failure) return Promise.reject(this.#failure);
    const { promise, resolve, reject } = Promise.withResolvers<IteratorResult<Uint8Array>>();
    this.#waiter = { resolve, reject };
    this.#idle ??= setTimeout(() => this.#stoodStill(), this.#source.idleMs);
    this.#idle.refresh();
    return promise;
  }

  /** While somebody waits for it: a body that a slow target holds up is not at fault. */
  #stoodStill(): void {
    if (this.#waiter && !this.#source.mayPause()) this.fail(new Fault('request_timeout', { detail: 'The body stood still.' }));
  }

  /** Nobody wants the rest. Who still waits for some of it is not told that it has ended: it would end the request to the target so. */
  return(): Promise<IteratorResult<Uint8Array>> {
    this.#release();
    if (!this.#isEnded) this.fail(new Fault('client_closed'));
    return Promise.resolve(finished);
  }

  #start(): void {
    this.#isReading = true;
    this.#source.onFirstRead();
    this.#source.stream.on('readable', this.#settle);
    this.#source.stream.on('end', this.#onEnd);
    this.#source.stream.on('close', this.#onClose);
    this.#source.stream.on('error', this.#onClose);
    // It may have broken off before anybody looked.
    if (this.#source.stream.destroyed) this.#onClose();
  }

  readonly #onEnd = (): void => {
    // A stream that was broken off may end, too.
    if (!this.#source.isComplete()) return this.#onClose();
    this.#isEnded = true;
    return this.#settle();
  };

  /** Also when all of it had come: what was not read by now never will be. */
  readonly #onClose = (): void => {
    if (!this.#isEnded) this.fail(new Fault('client_closed'));
  };

  #take(): IteratorResult<Uint8Array> | undefined {
    if (this.#failure) return undefined;
    const { stream } = this.#source;
    // All that has come would be a whole window of HTTP/2, in one piece.
    const chunk = stream.read(Math.min(stream.readableLength, limits.bodyPieceBytesMax) || undefined) as Buffer | null;
    if (chunk !== null) {
      this.#bytes += chunk.length;
      return { done: false, value: chunk };
    }
    if (!this.#isEnded) return undefined;
    this.#release();
    return finished;
  }

  readonly #settle = (): void => {
    const waiter = this.#waiter;
    if (!waiter) return;
    const ready = this.#take();
    if (!ready && !this.#failure) return;
    this.#waiter = undefined;
    if (ready) waiter.resolve(ready);
    else if (this.#failure) {
      this.#release();
      waiter.reject(this.#failure);
    }
  };

  #release(): void {
    clearTimeout(this.#idle);
    this.#idle = undefined;
    this.#source.stream.off('readable', this.#settle);
    this.#source.stream.off('end', this.#onEnd);
    this.#source.stream.off('close', this.#onClose);
  }
}
