/** Writes to a stream that may be slow or gone: waits for room, and takes a closed pipe (`| head`) as the end, not as an error. */

/** What `events` prints to: process.stdout, or in a test anything with `write`. */
export interface Output {
  write(text: string): boolean | void;
  on?(event: 'error', listener: (error: Error) => void): unknown;
  once?(event: 'drain', listener: () => void): unknown;
  off?(event: 'error' | 'drain', listener: (error: Error) => void): unknown;
}

export interface Printer {
  /** Resolves when there is room for more, or when nobody reads any more. */
  readonly print: (text: string) => Promise<void>;
  /** Aborts when nobody reads any more; its reason is the error when that was no closed pipe. */
  readonly closed: AbortSignal;
  readonly release: () => void;
}

export const printer = (out: Output): Printer => {
  const gone = new AbortController();
  const failed = (error: Error): void => gone.abort(error);
  out.on?.('error', failed);
  return {
    print: (text) =>
      new Promise((resolve) => {
        if (gone.signal.aborted) return resolve();
        let hasRoom: boolean | void;
        try {
          hasRoom = out.write(text);
        } catch (error) {
          failed(error as Error);
          return resolve();
        }
        if (hasRoom !== false || out.once === undefined) return resolve();
        const go = (): void => {
          out.off?.('drain', go);
          gone.signal.removeEventListener('abort', go);
          resolve();
        };
        out.once('drain', go);
        gone.signal.addEventListener('abort', go, { once: true });
      }),
    closed: gone.signal,
    // The error of a closed pipe may come after the last write: whoever wrote it still has to hear it.
    release: () => void setImmediate(() => out.off?.('error', failed)),
  };
};
