/**
 * Keeps a request's body while it is sent, so that the request can be repeated: up to a bound, and only as long as it may be needed. The
 * body is neither slowed nor copied on its way. What is kept counts against the budget of all bodies in memory.
 */
import type { Budget } from '../core/budget.ts';
import { valuesOf } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import type { Authorized, BodySource } from './exchange.ts';
import { heldBody } from './hold.ts';

export interface Recording {
  /** The body to send: it passes, and is kept. */
  readonly body: BodySource;
  readonly isComplete: () => boolean;
  /** The same body again, which is the caller's to release. Only when it is complete. */
  readonly replay: () => BodySource;
  /** What was kept is needed no longer. */
  readonly drop: () => void;
}

/** Undefined for a body that is known to be too long. */
export const recordingOf = ({ body, headers }: Authorized, budget: Budget): Recording | undefined => {
  const length = valuesOf(headers, 'content-length')[0];
  if (body === undefined || Number(length ?? 0) > limits.replayBodyBytesMax) return undefined;
  return new BodyRecording(body, budget);
};

class BodyRecording implements Recording {
  readonly body: BodySource;
  readonly #budget: Budget;
  #kept: Uint8Array[] | undefined = [];
  #bytes = 0;
  #isComplete = false;

  constructor(source: BodySource, budget: Budget) {
    this.#budget = budget;
    this.body = {
      chunks: { [Symbol.asyncIterator]: () => this.#passing(source.chunks[Symbol.asyncIterator]()) },
      bytes: () => source.bytes(),
      trailers: () => source.trailers(),
      release: () => {
        this.drop();
        source.release?.();
      },
    };
  }

  isComplete(): boolean {
    return this.#isComplete && this.#kept !== undefined;
  }

  replay(): BodySource {
    const [kept, bytes] = [this.#kept ?? [], this.#bytes];
    this.#kept = undefined;
    this.#bytes = 0;
    const { trailers, bytes: received } = this.body;
    return heldBody(Buffer.concat(kept, bytes), { trailers, bytes: received, release: givingOnce(this.#budget, bytes) });
  }

  drop(): void {
    this.#kept = undefined;
    this.#budget.give(this.#bytes);
    this.#bytes = 0;
  }

  #passing(from: AsyncIterator<Uint8Array>): AsyncIterator<Uint8Array> {
    return {
      next: () => from.next().then(this.#note),
      return: () => from.return?.() ?? Promise.resolve({ done: true, value: undefined }),
    };
  }

  readonly #note = (result: IteratorResult<Uint8Array>): IteratorResult<Uint8Array> => {
    if (this.#kept === undefined) return result;
    if (result.done) this.#isComplete = true;
    else if (this.#bytes + result.value.length > limits.replayBodyBytesMax || !this.#budget.take(result.value.length)) this.drop();
    else {
      this.#bytes += result.value.length;
      this.#kept.push(result.value);
    }
    return result;
  };
}

const givingOnce = (budget: Budget, bytes: number): (() => void) => {
  let left = bytes;
  return () => {
    budget.give(left);
    left = 0;
  };
};
