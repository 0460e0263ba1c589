/**
 * Writes a request's body into an engine's stream, with back-pressure, and lets go of the body as soon as nobody wants the rest: an
 * exchange that has ended must not hold on to the program's connection. Knows neither the engine in front nor the one behind.
 */
import type { Writable } from 'node:stream';
import { Fault } from '../../core/fault.ts';
import { type HeaderList, valuesOf } from '../../core/headers.ts';

export interface BodyReader {
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Whether anything was asked of the body: then it cannot be sent again. */
  readonly hasStarted: () => boolean;
  /** Ends `chunks` now, also when it waits for the program. */
  readonly stop: () => void;
}

/** The body's chunks, which can be let go of. Read at most once. */
export const readerOf = (chunks: AsyncIterable<Uint8Array>): BodyReader => {
  let reading: AsyncIterator<Uint8Array> | undefined;
  let isStopped = false;
  let release: (result: IteratorResult<Uint8Array>) => void = () => undefined;
  const stop = (): void => {
    if (isStopped) return;
    isStopped = true;
    release(finished);
    reading?.return?.().catch(() => undefined);
  };
  const next = (from: AsyncIterator<Uint8Array>): Promise<IteratorResult<Uint8Array>> =>
    isStopped
      ? Promise.resolve(finished)
      : new Promise((resolve, reject) => {
          // Not Promise.race: it would leave something behind for every chunk for as long as the body lasts.
          release = resolve;
          from.next().then(resolve, reject);
        });
  return {
    chunks: {
      [Symbol.asyncIterator]: () => {
        const from = chunks[Symbol.asyncIterator]();
        reading = from;
        return {
          next: () => next(from),
          return: () => {
            stop();
            return Promise.resolve(finished);
          },
        };
      },
    },
    hasStarted: () => reading !== undefined,
    stop,
  };
};

const finished: IteratorResult<Uint8Array> = { done: true, value: undefined };

/** Told when the target's turn to make room begins and ends. */
export interface Turns {
  readonly onFull: () => void;
  readonly onRoom: () => void;
}

/** Resolves when there is room again, and also when there will never be. */
const roomIn = (stream: Writable, { onFull, onRoom }: Turns): Promise<void> => {
  onFull();
  return new Promise((resolve) => {
    const resume = (): void => {
      onRoom();
      stream.off('drain', resume);
      stream.off('close', resume);
      resolve();
    };
    stream.on('drain', resume);
    stream.on('close', resume);
  });
};

/** What Content-Length announces; undefined when nothing does. */
export const announcedLength = (headers: HeaderList): number | undefined => {
  const value = valuesOf(headers, 'content-length')[0];
  return value === undefined ? undefined : Number(value);
};

/** Resolves when the whole body was written; rejects with the body's Fault, or framing_invalid when it is not as long as announced. */
export const writeBody = async (body: BodyReader, length: number | undefined, stream: Writable, turns: Turns): Promise<void> => {
  let bytes = 0;
  for await (const chunk of body.chunks) {
    bytes += chunk.length;
    if (length !== undefined && bytes > length) throw new Fault('framing_invalid', { detail: 'The body is longer than announced.' });
    // An empty chunk would end a chunked body.
    if (chunk.length > 0 && !stream.write(chunk)) await roomIn(stream, turns);
  }
  if (length !== undefined && bytes < length) throw new Fault('framing_invalid', { detail: 'The body is shorter than announced.' });
};
