/**
 * Signs an `aws-chunked` body as it passes: each chunk's signature is replaced by ours, which continues from the request's (the seed) through
 * all chunks to the trailer. Sizes, data and trailer stay as they came, and so does the length of the whole: signatures have one width.
 * A chunk's signature stands before its data, so a chunk is held until it is complete, within a bound and the budget of all requests.
 * Strict: what is not exactly this framing breaks the exchange off. Knows neither HTTP nor keys.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html and sigv4-streaming-trailers.html
 */
import type { Budget } from '../../../core/budget.ts';
import { Fault } from '../../../core/fault.ts';
import { limits } from '../../../core/limits.ts';
import { emptyHash, sha256 } from './canonical.ts';
import { credentialScope, type Scope, spelled } from './keyring.ts';

export interface ChunkTerms {
  readonly scope: Scope;
  readonly sign: (text: string) => string;
  /** The request's own signature. */
  readonly seed: string;
  readonly hasTrailer: boolean;
  /** What x-amz-decoded-content-length announces; undefined where it is missing. */
  readonly decodedLength: number | undefined;
  readonly budget: Budget;
}

/** Hexadecimal digits of a signature: of ECDSA's they vary, and "*" fills up what is missing. */
const widths = { sigv4: 64, sigv4a: 144 } as const;

const malformed = (detail: string): Fault => new Fault('framing_invalid', { detail });

export const signChunks = (body: AsyncIterable<Uint8Array>, terms: ChunkTerms): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => {
    const source = body[Symbol.asyncIterator]();
    const signing = signed(createInput(source, terms.budget), terms);
    return {
      next: () => signing.next(),
      return: () => {
        // At once, so that a read that waits for the program ends; behind it the generator comes to its own end.
        source.return?.()?.catch(() => undefined);
        return signing.return(undefined);
      },
    };
  },
});

async function* signed(input: Input, terms: ChunkTerms): AsyncGenerator<Uint8Array, undefined> {
  const { scope, hasTrailer, decodedLength } = terms;
  const width = widths[scope.algorithm];
  const head = new RegExp(`^([0-9a-fA-F]{1,8});chunk-signature=[0-9a-f]{${width === 64 ? 64 : '1,144'}}\\**$`);
  const signature = signer(terms);
  let decoded = 0;
  try {
    for (;;) {
      const line = await input.line(limits.awsChunkLineBytesMax);
      const digits = head.exec(line)?.[1];
      if (digits === undefined || line.length !== digits.length + ';chunk-signature='.length + width) {
        throw malformed('The head of a chunk is not that of a signed chunk.');
      }
      const size = Number.parseInt(digits, 16);
      if (size > limits.awsChunkBytesMax) throw new Fault('body_too_large', { detail: 'A signed chunk is larger than 1 MiB.' });
      const data = await input.take(size);
      decoded += size;
      const started = `${digits};chunk-signature=${signature.ofChunk(data).padEnd(width, '*')}\r\n`;
      if (size === 0) {
        const rest = hasTrailer ? await readTrailer(input, (text) => signature.ofTrailer(text).padEnd(width, '*'), width) : '';
        if ((await input.line(0)) !== '' || !(await input.isAtEnd())) throw malformed('Something follows the last chunk.');
        if (decodedLength !== undefined && decoded !== decodedLength) {
          throw malformed('The chunks do not hold what x-amz-decoded-content-length announces.');
        }
        yield Buffer.from(`${started}${rest}\r\n`, 'latin1');
        return undefined;
      }
      if ((await input.line(0)) !== '') throw malformed('A chunk is longer than it says.');
      yield Buffer.concat([Buffer.from(started, 'latin1'), data, lineEnd]);
      input.letGo();
    }
  } finally {
    input.letGo();
  }
}

const lineEnd = Buffer.from('\r\n', 'latin1');

/** Signatures in their order: each takes in the one before it. */
const signer = ({ scope, seed, sign }: ChunkTerms) => {
  let previous = seed;
  const next = (kind: string, ...hashes: string[]): string => {
    previous = sign([`${spelled[scope.algorithm]}-${kind}`, scope.time, credentialScope(scope), previous, ...hashes].join('\n'));
    return previous;
  };
  return {
    ofChunk: (data: Uint8Array): string => next('PAYLOAD', emptyHash, sha256(data)),
    ofTrailer: (canonical: string): string => next('TRAILER', sha256(canonical)),
  };
};

/** The trailer's lines with our signature in the place of the program's, which must be the last of them. */
const readTrailer = async (input: Input, sign: (canonical: string) => string, width: number): Promise<string> => {
  const lines: string[] = [];
  const fields: string[] = [];
  for (let room: number = limits.awsTrailerBytesMax; ; ) {
    const line = await input.line(room);
    room -= line.length + 2;
    const [, name = '', value = ''] = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e]*\n?)$/.exec(line) ?? [];
    if (name === '' || room < 0) throw malformed('The trailer is not one.');
    if (name.toLowerCase() === 'x-amz-trailer-signature') {
      if (value.length !== width) throw malformed('The signature of the trailer has another length than the target takes.');
      const canonical = fields.toSorted().join('');
      return `${lines.join('')}${name}:${sign(canonical)}\r\n`;
    }
    lines.push(`${line}\r\n`);
    fields.push(`${name.toLowerCase()}:${value.trim()}\n`);
  }
};

interface Input {
  /** Up to the next CRLF, without it, Latin-1; longer than `max` is malformed. */
  readonly line: (max: number) => Promise<string>;
  /** Exactly so many bytes; held until they are let go of. */
  readonly take: (size: number) => Promise<Uint8Array>;
  readonly letGo: () => void;
  readonly isAtEnd: () => Promise<boolean>;
}

const createInput = (source: AsyncIterator<Uint8Array>, budget: Budget): Input => {
  let waiting: Uint8Array = new Uint8Array(0);
  let held = 0;

  /** False at the end. */
  const read = async (): Promise<boolean> => {
    for (;;) {
      const { done, value } = await source.next();
      if (done) return false;
      if (value.length === 0) continue;
      waiting = waiting.length === 0 ? value : Buffer.concat([waiting, value]);
      return true;
    }
  };
  const mustRead = async (): Promise<void> => {
    if (!(await read())) throw malformed('The body ends within a chunk.');
  };
  return {
    line: async (max) => {
      for (;;) {
        const end = Buffer.from(waiting.buffer, waiting.byteOffset, waiting.byteLength).indexOf('\r\n');
        if (end > max || (end < 0 && waiting.length > max + 1)) throw malformed('A line between chunks is too long.');
        if (end >= 0) {
          const line = Buffer.from(waiting.subarray(0, end)).toString('latin1');
          waiting = waiting.subarray(end + 2);
          return line;
        }
        await mustRead();
      }
    },
    take: async (size) => {
      const pieces: Uint8Array[] = [];
      for (let missing = size; missing > 0; ) {
        if (waiting.length === 0) await mustRead();
        const piece = waiting.subarray(0, missing);
        if (!budget.take(piece.length)) throw new Fault('overloaded', { detail: 'Too much is being held in memory.' });
        held += piece.length;
        pieces.push(piece);
        missing -= piece.length;
        waiting = waiting.subarray(piece.length);
      }
      return pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces, size);
    },
    letGo: () => {
      budget.give(held);
      held = 0;
    },
    isAtEnd: async () => waiting.length === 0 && !(await read()),
  };
};
