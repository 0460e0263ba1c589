/**
 * A request body of node:http as a BodySource: pulled chunk by chunk, so that a slow target slows the program, with a bound on
 * how long it may stand still and none on how long it takes.
 */
import type { IncomingMessage } from 'node:http';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { BodySource } from '../exchange.ts';

interface Waiter {
  readonly resolve: (result: IteratorResult<Uint8Array>) => void;
  readonly reject: (fault: Fault) => void;
}

const finished: IteratorResult<Uint8Array> = { done: true, value: undefined };

export class NodeBody implements BodySource, AsyncIterator<Uint8Array> {
  readonly #request: IncomingMessage;
  readonly #onFirstRead: () => void;
  #bytes = 0;
  #isReading = false;
  #isEnded = false;
  #failure: Fault | undefined;
  #waiter: Waiter | undefined;
  #idle: NodeJS.Timeout | undefined;

  /** `onFirstRead` is where "100 Continue" is said: only once somebody wants the body. */
  constructor(request: IncomingMessage, onFirstRead: () => void) {
    this.#request = request;
    this.#onFirstRead = onFirstRead;
  }

  get chunks(): AsyncIterable<Uint8Array> {
    return { [Symbol.asyncIterator]: () => this };
  }

  bytes(): number {
    return this.#bytes;
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
    this.#idle ??= setTimeout(() => this.fail(new Fault('request_timeout', { detail: 'The body stood still.' })), limits.bodyIdleTimeoutMs);
    this.#idle.refresh();
    return promise;
  }

  /** Nobody wants the rest. */
  return(): Promise<IteratorResult<Uint8Array>> {
    this.#release();
    this.#waiter?.resolve(finished);
    this.#waiter = undefined;
    return Promise.resolve(finished);
  }

  #start(): void {
    this.#isReading = true;
    this.#onFirstRead();
    this.#request.on('readable', this.#settle);
    this.#request.on('end', this.#onEnd);
    this.#request.on('close', this.#onClose);
    this.#request.on('error', this.#onClose);
  }

  readonly #onEnd = (): void => {
    this.#isEnded = true;
    this.#settle();
  };

  readonly #onClose = (): void => {
    if (!this.#request.complete) this.fail(new Fault('client_closed'));
  };

  #take(): IteratorResult<Uint8Array> | undefined {
    if (this.#failure) return undefined;
    const chunk = this.#request.read() as Buffer | null;
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
    this.#request.off('readable', this.#settle);
    this.#request.off('end', this.#onEnd);
    this.#request.off('close', this.#onClose);
  }
}
