/**
 * A compressed answer, read beside its way to the program: what it decodes to is searched, and its bytes go on once everything that
 * they decode to was. Bounded in memory, in what is decoded and in how much comes of how little. What cannot be read so is said to
 * be, and goes on or not as its reader decides.
 *
 * A decoder gives what it can of the bytes so far, so a program cannot read more of them than was searched, but for the beginning of a
 * block that zstd gives only whole.
 */
import zlib from 'node:zlib';
import type { Budget } from '../../core/budget.ts';
import { limits } from '../../core/limits.ts';
import { type Needle, Search } from '../../core/needle.ts';

/** Why an answer was not searched, or not all of it. */
export type Unsearched = 'size' | 'encoding' | 'expansion' | 'busy' | 'upgrade';

export interface DecodingReader {
  /** These bytes were searched. False: wait until `resume`. */
  readonly forward: (chunk: Uint8Array) => boolean;
  readonly echoed: () => void;
  /** What follows is not searched; bytes that wait are forwarded after this, unless it ends the exchange. */
  readonly unsearched: (reason: Unsearched) => void;
}

type Decoder = zlib.Gunzip | zlib.BrotliDecompress | zlib.ZstdDecompress;

const zlibOptions = { chunkSize: 16 * 1024 };

/** Decoders by content coding (RFC 9110 section 8.4.1), and what one may hold of memory. */
const decoders: Readonly<Record<string, { readonly bytes: number; readonly make: (first: number) => Decoder }>> = {
  gzip: { bytes: limits.echoInflaterBytes, make: () => zlib.createGunzip(zlibOptions) },
  // With the header that RFC 9110 section 8.4.1.2 wants (RFC 1950), or without, as some send it.
  deflate: {
    bytes: limits.echoInflaterBytes,
    make: (first) => ((first & 0x0f) === 8 ? zlib.createInflate(zlibOptions) : zlib.createInflateRaw(zlibOptions)),
  },
  br: { bytes: limits.echoDecoderBytes, make: () => zlib.createBrotliDecompress(zlibOptions) },
  // Windows up to 8 MiB, as RFC 8878 section 3.1.1.1.2 asks for.
  zstd: {
    bytes: limits.echoDecoderBytes,
    make: () => zlib.createZstdDecompress({ ...zlibOptions, params: { [zlib.constants.ZSTD_d_windowLogMax]: 23 } }),
  },
};
const aliases: Readonly<Record<string, string>> = { 'x-gzip': 'gzip' };

/** Below this, much may come of little: an empty page compresses well. */
const expansionFloorBytes = 64 * 1024;

export class Decoding {
  readonly #coding: string;
  readonly #needle: Needle;
  readonly #budget: Budget;
  readonly #reader: DecodingReader;
  #search: Search | undefined;
  #decoder: Decoder | undefined;
  #taken = 0;
  /** Not handed on; of these, the first `judged` are decoded. */
  readonly #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  #judged = 0;
  #judgedBytes = 0;
  #outputBytes = 0;
  #isBlocked = false;
  #state: 'searching' | 'passing' | 'ended' = 'searching';
  #resume: (() => void) | undefined;
  #finish: (() => void) | undefined;

  constructor(coding: string, needle: Needle, budget: Budget, reader: DecodingReader) {
    this.#coding = coding;
    this.#needle = needle;
    this.#budget = budget;
    this.#reader = reader;
  }

  /** False: wait for onDrain. */
  write(chunk: Uint8Array): boolean {
    if (this.#state === 'ended' || chunk.length === 0) return true;
    if (this.#state === 'passing') return this.#forward(chunk);
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (!this.#decoder && !this.#open(chunk[0] as number)) return !this.#isBlocked;
    (this.#decoder as Decoder).write(chunk, this.#onDecoded);
    return this.#isFlowing();
  }

  onDrain(resume: () => void): void {
    this.#resume = resume;
    this.#tryResume();
  }

  /** Resolves when all of it was handed on, or the reader has ended it. */
  finish(): Promise<void> {
    const decoder = this.#decoder;
    if (!decoder || this.#state !== 'searching') return Promise.resolve();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#finish = resolve;
    decoder.end();
    // Its end may have come before ours: then something follows what was compressed.
    if (decoder.readableEnded) this.#onEnd();
    return promise;
  }

  /** Nothing more is wanted. */
  close(): void {
    this.#stop('ended');
  }

  #open(first: number): boolean {
    const kind = decoders[aliases[this.#coding] ?? this.#coding];
    if (!kind) return this.#giveUp('encoding');
    if (!this.#budget.take(kind.bytes)) return this.#giveUp('busy');
    this.#taken = kind.bytes;
    const decoder = kind.make(first);
    decoder.on('readable', this.#read);
    decoder.on('end', this.#onEnd);
    decoder.on('error', () => this.#giveUp('encoding'));
    this.#decoder = decoder;
    this.#search = new Search(this.#needle);
    return true;
  }

  readonly #onDecoded = (): void => {
    if (this.#state !== 'searching') return;
    this.#judgedBytes += (this.#waiting[this.#judged] as Uint8Array).length;
    this.#judged += 1;
    this.#read();
    // What follows the end of compressed data is read by nobody, or by a program as it likes.
    if (this.#decoder && this.#decoder.bytesWritten < this.#judgedBytes) this.#giveUp('encoding');
    this.#settle();
  };

  readonly #read = (): void => {
    const [decoder, search] = [this.#decoder, this.#search];
    while (decoder && search && this.#state === 'searching') {
      const decoded = decoder.read() as Buffer | null;
      if (decoded === null) return;
      this.#outputBytes += decoded.length;
      search.push(decoded);
      if (search.hits > 0) this.#echoed();
      else if (this.#outputBytes > expansionFloorBytes && this.#outputBytes > limits.echoExpansionMax * decoder.bytesWritten)
        this.#giveUp('expansion');
      else if (this.#outputBytes > limits.echoScanBytesMax) this.#giveUp('size');
    }
  };

  readonly #onEnd = (): void => {
    if (this.#state !== 'searching' || !this.#finish) return;
    const search = this.#search as Search;
    search.end();
    if (search.hits > 0) return this.#echoed();
    return this.#pass();
  };

  /** Hands on what was decoded, unless the end of that may begin a hit. */
  #settle(): void {
    if (this.#state !== 'searching' || !this.#search) return;
    if (this.#search.held === 0) {
      while (this.#judged > 0 && this.#waiting.length > 0) {
        this.#judged -= 1;
        const chunk = this.#waiting.shift() as Uint8Array;
        this.#waitingBytes -= chunk.length;
        this.#forward(chunk);
      }
    } else if (this.#judged === this.#waiting.length && this.#waitingBytes >= limits.echoWaitingBytesMax) this.#giveUp('encoding');
    this.#tryResume();
  }

  #echoed(): void {
    this.#stop('ended');
    this.#reader.echoed();
  }

  #giveUp(reason: Unsearched): false {
    if (this.#state !== 'searching') return false;
    this.#reader.unsearched(reason);
    // The reader may have closed it.
    if (this.#state === ('searching' as string)) this.#pass();
    return false;
  }

  /** From here on everything goes as it is. */
  #pass(): void {
    const waiting = this.#waiting.splice(0);
    this.#stop('passing');
    for (const chunk of waiting) this.#forward(chunk);
    this.#tryResume();
  }

  #stop(state: 'passing' | 'ended'): void {
    if (this.#state === 'ended') return;
    this.#state = state;
    this.#waiting.length = 0;
    this.#waitingBytes = 0;
    this.#decoder?.destroy();
    this.#search = undefined;
    this.#budget.give(this.#taken);
    this.#taken = 0;
    this.#finish?.();
  }

  #forward(chunk: Uint8Array): boolean {
    if (!this.#reader.forward(chunk)) this.#isBlocked = true;
    return !this.#isBlocked;
  }

  /** The program reads again. */
  unblock(): void {
    this.#isBlocked = false;
    this.#tryResume();
  }

  #isFlowing(): boolean {
    return !this.#isBlocked && this.#waitingBytes < limits.echoWaitingBytesMax;
  }

  #tryResume(): void {
    const resume = this.#resume;
    if (!resume || !this.#isFlowing()) return;
    this.#resume = undefined;
    resume();
  }
}
