/**
 * hold: reads a request's body whole where a placement needs it (a field in it, a signature over it), within a bound for each request
 * and one for all. Between authorize and inject: nothing is read for a request that may not be sent.
 */
import type { Budget } from '../core/budget.ts';
import { Fault } from '../core/fault.ts';
import type { HeaderList } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import type { Authorized, BodySource } from './exchange.ts';

/** The same request with its body at hand. What it takes of the budget is given back when the request ends (`release`). */
export const hold = async (authorized: Authorized, budget: Budget): Promise<Authorized> => ({
  ...authorized,
  body: authorized.body && (await readWhole(authorized.body, budget)),
});

/** Throws body_too_large or overloaded. What was taken of the budget is given back when the holder lets go. */
const readWhole = async (body: BodySource, budget: Budget): Promise<BodySource & Held> => {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of body.chunks) {
      if (length + chunk.length > limits.heldBodyBytesMax) throw new Fault('body_too_large');
      if (!budget.take(chunk.length)) throw new Fault('overloaded', { detail: 'Too much is being held in memory.' });
      length += chunk.length;
      chunks.push(chunk);
    }
  } catch (thrown) {
    budget.give(length);
    throw thrown;
  }
  return heldBody(Buffer.concat(chunks, length), {
    trailers: () => body.trailers(),
    bytes: () => body.bytes(),
    release: once(() => budget.give(length)),
  });
};

export interface Held {
  readonly held: Uint8Array;
}

export interface HeldParts {
  readonly trailers: () => HeaderList;
  /** What the program sent, which need not be what is sent on. */
  readonly bytes: () => number;
  readonly release: () => void;
}

/** A body that is all there: can be read any number of times. */
export const heldBody = (bytes: Uint8Array, parts: HeldParts): BodySource & Held => ({
  ...parts,
  held: bytes,
  chunks: {
    async *[Symbol.asyncIterator]() {
      if (bytes.length > 0) yield bytes;
    },
  },
});

const once = (run: () => void): (() => void) => {
  let isDone = false;
  return () => {
    if (!isDone) run();
    isDone = true;
  };
};
