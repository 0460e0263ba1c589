/** The search of one stream for a needle: filters, compares, holds back, writes over. Part of core/needle.ts, which says how. */
import type { Needle } from '../needle.ts';
import { type Leads, leadsFrom, unitAt, unitBytesMax, unknownLeads } from './escape.ts';
import { fold, pairOf } from './symbol.ts';

/** Symbols the filter looks at: enough for chance to play no part, few enough for one machine word beside the flag. */
export const filterSymbolsMax = 24;
/** Comparisons that are allowed for each byte, and besides, before fits count as hits. */
const effortPerByte = 16;
const effortAllowance = 64 * 1024;
/** How many bytes are looked at one by one after an escape. */
const carefulBytes = 64;

const escapeFlag = 1 << 31;

interface Comparison {
  readonly pattern: Uint8Array;
  /** Positions in the stream: where it began, and what is compared next. */
  readonly start: number;
  next: number;
  /** Symbols that fitted. */
  index: number;
}

/** One stream's search. Bytes given back are never written to again. */
export class Search {
  readonly #needle: Needle;
  /** What has not been given back, and its position in the stream. */
  #window: Buffer = nothing;
  #origin = 0;
  /** Up to here it was given back before it was known whether it begins a hit. */
  #given = 0;
  /** A growing store behind the window, when it was put together from chunks: its unused rest. */
  #spare: Buffer = nothing;
  /** The filter: position, fits, fits that an escape brings once it ends (by its last byte's position), and where the last one ended. */
  #filtered = 0;
  #fits = 0;
  #pending: Int32Array | undefined;
  #pendingUntil = 0;
  #escapedUntil = -unitBytesMax * filterSymbolsMax;
  #comparisons: Comparison[] = [];
  #effort = 0;
  #hits = 0;
  #found: { start: number; end: number }[] = [];

  constructor(needle: Needle) {
    this.#needle = needle;
  }

  /** So far; overlapping ones count once. */
  get hits(): number {
    return this.#hits;
  }

  /** Bytes that wait because they may begin a hit. */
  get held(): number {
    return this.#origin + this.#window.length - Math.max(this.#origin, this.#given);
  }

  /**
   * What is held, though it may begin a hit: for a reader that must not wait any longer. What follows is judged as if it had been held,
   * and of a hit everything after these bytes is written over.
   */
  give(): Uint8Array {
    const given = this.#window.subarray(this.#window.length - this.held);
    this.#given = this.#origin + this.#window.length;
    // A copy: what stays in the window may be written behind, or moved.
    return Buffer.from(given);
  }

  /** What is settled: the bytes that were held and these, hits as asterisks, without what may begin a hit. */
  push(chunk: Uint8Array): Uint8Array {
    this.#append(chunk);
    this.#run(false);
    return this.#release(this.#heldFrom());
  }

  /** The rest. */
  end(): Uint8Array {
    this.#run(true);
    return this.#release(this.#origin + this.#window.length);
  }

  #append(chunk: Uint8Array): void {
    const { length } = this.#window;
    if (length === 0) {
      this.#window = asBuffer(chunk);
      this.#spare = nothing;
      return;
    }
    if (this.#spare.length < chunk.length) {
      // Doubled, so that what is held is not copied for every small chunk.
      const store = Buffer.allocUnsafe(2 * (length + chunk.length));
      store.set(this.#window);
      this.#window = store.subarray(0, length);
      this.#spare = store.subarray(length);
    }
    this.#spare.set(chunk);
    this.#spare = this.#spare.subarray(chunk.length);
    this.#window = Buffer.from(this.#window.buffer, this.#window.byteOffset, length + chunk.length);
  }

  #run(isLast: boolean): void {
    const before = this.#comparisons;
    if (before.length > 0) {
      this.#comparisons = [];
      for (const comparison of before) this.#compare(comparison, isLast);
    }
    this.#filter(isLast);
  }

  #filter(isLast: boolean): void {
    const window = this.#window;
    const { table, filterSymbols } = this.#needle;
    const goal = 1 << (filterSymbols - 1);
    const { length } = window;
    let fits = this.#fits;
    let i = this.#filtered - this.#origin;
    /** Up to here every byte is looked at. */
    let careful = i;
    let next: Leads = unknownLeads;
    while (i < length) {
      if (i >= careful && fits === 0 && this.#pendingUntil <= this.#origin + i) {
        next = leadsFrom(window, i, next);
        const until = Math.min(...next, length);
        i = this.#skip(i, until, isLast);
        // Escapes come together: for a while it is not worth asking where the next one is.
        careful = until + carefulBytes;
      }
      const fitting = table[window[i] as number] as number;
      if (fitting < 0) {
        const unit = unitAt(window, i, isLast);
        if (unit < 0) break;
        if (unit > 0) this.#expect(this.#origin + i + (unit >> 8), ((fits << 1) | 1) & (table[unit & 0xff] as number));
      }
      fits = ((fits << 1) | 1) & fitting;
      i += 1;
      if (this.#pendingUntil >= this.#origin + i) {
        const pending = this.#pending as Int32Array;
        const slot = (this.#origin + i) & 7;
        fits |= pending[slot] as number;
        pending[slot] = 0;
      }
      if ((fits & goal) !== 0) this.#begin(this.#origin + i, isLast);
    }
    this.#fits = fits;
    this.#filtered = this.#origin + i;
  }

  /**
   * Where no escape is, whole stretches need no look (Wu and Manber's shifts by pairs of bytes). Returns from where every byte counts
   * again: what begins there may go on past `until`.
   */
  #skip(from: number, until: number, isLast: boolean): number {
    const window = this.#window;
    const { shifts, filterSymbols } = this.#needle;
    let last = from + filterSymbols - 1;
    if (last >= until) return from;
    while (last < until) {
      const shift = shifts[pairOf(window[last - 1] as number, window[last] as number)] as number;
      if (shift === 0) this.#begin(this.#origin + last + 1, isLast);
      last += shift === 0 ? 1 : shift;
    }
    return until - filterSymbols + 1;
  }

  /** An escape that ends at `end` will bring these fits. */
  #expect(end: number, fits: number): void {
    const slot = end & 7;
    this.#pending ??= new Int32Array(8);
    this.#pending[slot] = (this.#pending[slot] as number) | (fits & ~escapeFlag);
    this.#pendingUntil = Math.max(this.#pendingUntil, end);
    this.#escapedUntil = Math.max(this.#escapedUntil, end);
  }

  /** The filter fired at `end`: compares from every place where the first symbols may have begun. */
  #begin(end: number, isLast: boolean): void {
    const { patterns, filterSymbols } = this.#needle;
    const last = end - filterSymbols;
    const first = this.#escapedUntil > last ? Math.max(this.#origin, end - unitBytesMax * filterSymbols) : last;
    for (let start = first; start <= last; start += 1) {
      for (const pattern of patterns) {
        const comparison: Comparison = { pattern, start, next: start, index: 0 };
        if (this.#isExhausted()) return this.#hit(last, end);
        if (this.#advance(comparison, filterSymbols, true) === 'fits' && comparison.next === end) this.#compare(comparison, isLast);
      }
    }
  }

  #compare(comparison: Comparison, isLast: boolean): void {
    const result = this.#advance(comparison, comparison.pattern.length, isLast);
    if (result === 'fits' || (result !== 'differs' && this.#isExhausted())) this.#hit(comparison.start, comparison.next);
    else if (result === 'waits') this.#comparisons.push(comparison);
  }

  /** Reads an escape where it says what is expected, else the byte. */
  #advance(comparison: Comparison, until: number, isLast: boolean): 'fits' | 'differs' | 'waits' {
    const { pattern } = comparison;
    const window = this.#window;
    let i = comparison.next - this.#origin;
    let { index } = comparison;
    let result: 'fits' | 'differs' | 'waits' = 'fits';
    for (; index < until; index += 1) {
      if (i >= window.length) {
        result = isLast ? 'differs' : 'waits';
        break;
      }
      const byte = window[i] as number;
      const unit = (this.#needle.table[byte] as number) < 0 ? unitAt(window, i, isLast) : 0;
      if (unit < 0) {
        result = 'waits';
        break;
      }
      if (unit > 0 && fold(unit & 0xff) === pattern[index]) i += unit >> 8;
      else if (fold(byte) === pattern[index]) i += 1;
      else {
        result = 'differs';
        break;
      }
    }
    this.#effort += index - comparison.index + 1;
    comparison.index = index;
    comparison.next = this.#origin + i;
    return result;
  }

  #isExhausted(): boolean {
    return this.#effort > effortAllowance + effortPerByte * (this.#origin + this.#window.length);
  }

  #hit(start: number, end: number): void {
    let region = { start: Math.max(start, this.#origin), end };
    for (let last = this.#found.at(-1); last && last.end > region.start; last = this.#found.at(-1)) {
      region = { start: Math.min(last.start, region.start), end: Math.max(last.end, region.end) };
      this.#found.pop();
      this.#hits -= 1;
    }
    this.#found.push(region);
    this.#hits += 1;
  }

  #heldFrom(): number {
    const { filterSymbols } = this.#needle;
    let fits = this.#fits & ((1 << (filterSymbols - 1)) - 1);
    if (this.#pendingUntil > this.#filtered) for (const coming of this.#pending ?? []) fits |= coming;
    const symbols = 32 - Math.clz32(fits);
    // Where escapes may be among them, the longest are assumed.
    const bytes = this.#escapedUntil > this.#filtered - unitBytesMax * symbols ? unitBytesMax * symbols : symbols;
    let from = this.#filtered - bytes;
    for (const { start } of this.#comparisons) from = Math.min(from, start);
    return Math.max(from, this.#origin);
  }

  /** Gives back what is before `until`. */
  #release(until: number): Uint8Array {
    const count = until - this.#origin;
    const settled = this.#window.subarray(0, count);
    const masked = this.#found.length === 0 ? settled : this.#masked(settled, until);
    const result = this.#given > this.#origin ? masked.subarray(Math.min(this.#given - this.#origin, count)) : masked;
    this.#window = count === this.#window.length ? nothing : this.#window.subarray(count);
    this.#origin = until;
    return result;
  }

  #masked(settled: Uint8Array, until: number): Uint8Array {
    const copy = Buffer.from(settled);
    for (const { start, end } of this.#found)
      copy.fill(0x2a, Math.max(start - this.#origin, 0), Math.max(Math.min(end, until) - this.#origin, 0));
    this.#found = this.#found.filter(({ end }) => end > until);
    return copy;
  }
}

const nothing = Buffer.alloc(0);
const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
