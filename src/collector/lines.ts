/** Lines out of chunks of bytes, with a bound: used by the store at start and by `outrider events`. */

export interface LineSplitter {
  /** Every line that ends in `chunk`, without its line feed; undefined for one longer than the bound. */
  readonly push: (chunk: Buffer) => Generator<string | undefined, void>;
  /** Bytes of a last line that has not ended. */
  readonly pendingBytes: () => number;
  readonly reset: () => void;
}

const lineFeed = 0x0a;

export const createLineSplitter = (lineBytesMax: number): LineSplitter => {
  let pieces: Buffer[] = [];
  let pending = 0;
  const keep = (piece: Buffer): void => {
    pending += piece.length;
    if (pending > lineBytesMax) pieces = [];
    else if (piece.length > 0) pieces.push(piece);
  };
  const take = (): string | undefined => {
    const line = pending > lineBytesMax ? undefined : Buffer.concat(pieces).toString('utf8');
    pieces = [];
    pending = 0;
    return line;
  };
  return {
    *push(chunk) {
      let start = 0;
      for (let end = chunk.indexOf(lineFeed); end >= 0; end = chunk.indexOf(lineFeed, start)) {
        keep(chunk.subarray(start, end));
        start = end + 1;
        yield take();
      }
      // A copy: the caller reads the next chunk into the same memory.
      keep(Buffer.from(chunk.subarray(start)));
    },
    pendingBytes: () => pending,
    reset: () => {
      take();
    },
  };
};
