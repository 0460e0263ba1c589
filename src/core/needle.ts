/**
 * Finds given texts in a stream of bytes, also across chunks and in the spellings in which programs write them: exact, in any case,
 * percent-encoded, escaped for JSON or HTML (wholly or in part), as hex, and as base64 of anything that contains them (three alignments,
 * standard and url-safe), which again may be escaped. Says which trailing bytes may be the beginning of a hit, so that a stream can go
 * on without them. Knows nothing of HTTP.
 *
 * How. A filter passes over every byte once: bit k says that the last k+1 symbols fit the first ones of some pattern (shift-and, all
 * patterns laid over each other). Where it fires, patterns are compared from their start. Both go on from chunk to chunk, so the
 * work is linear, and what comparing may cost is bounded: past that bound a fit of the first symbols counts as a hit. That errs on the
 * side of finding, and needs somebody who knows the text.
 *
 * Not found: other encodings, base64 broken into lines, compressed or encrypted bytes, texts sent in pieces, and texts shorter than
 * `textBytesMin`: "key" is in every other answer. Texts below `encodedBytesMin` are not looked for in hex and base64.
 */

/** Texts shorter than this are not looked for. */
export const textBytesMin = 4;
/** Texts shorter than this have encodings so short that they stand in ordinary bytes by chance. */
const encodedBytesMin = 8;
/** Symbols the filter looks at: enough for chance to play no part, few enough for one machine word beside the flag. */
const filterSymbolsMax = 24;
/** Bytes of the longest spelling of one symbol: \u0041, &quot; */
const unitBytesMax = 6;
/** Comparisons that are allowed for each byte, and besides, before fits count as hits. */
const effortPerByte = 16;
const effortAllowance = 64 * 1024;
/** How many bytes are looked at one by one after an escape. */
const carefulBytes = 64;

export interface Needle {
  /** Folded symbols. */
  readonly patterns: readonly Uint8Array[];
  /** How many symbols the filter looks at. */
  readonly filterSymbols: number;
  /** For each byte: the places in patterns that it fits; negative for bytes that may begin an escape. */
  readonly table: Int32Array;
  /** For each pair of bytes that end a stretch of `filterSymbols`: how far on the next stretch is that may fit; 0: this one. */
  readonly shifts: Uint8Array;
}

/** Letters in one case; url-safe base64 as standard. */
const folded = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (byte >= 0x41 && byte <= 0x5a) return byte + 0x20;
  if (byte === 0x2d) return 0x2b;
  return byte === 0x5f ? 0x2f : byte;
});
const fold = (byte: number): number => folded[byte] as number;

/** The bytes that fold to this one. */
const unfolded = (symbol: number): readonly number[] => (sources[symbol] ??= allBytes.filter((byte) => fold(byte) === symbol));
const allBytes = Array.from({ length: 256 }, (_, byte) => byte);
const sources: (readonly number[])[] = [];

const escapeFlag = 1 << 31;
const [percent, backslash, ampersand] = [0x25, 0x5c, 0x26];

/** Undefined when there is nothing to look for. Compile once, search often. */
export const compileNeedle = (texts: readonly string[]): Needle | undefined => {
  const found = new Map<string, Uint8Array>();
  for (const text of texts) {
    const bytes = Buffer.from(text, 'utf8');
    if (bytes.length < textBytesMin) continue;
    for (const pattern of spellingsOf(bytes)) found.set(pattern.toString('latin1'), pattern);
  }
  if (found.size === 0) return undefined;
  const patterns = [...found.values()];
  const filterSymbols = Math.min(filterSymbolsMax, ...patterns.map(({ length }) => length));
  const table = new Int32Array(256);
  const shifts = new Uint8Array(pairOf(0xff, 0xff) + 1).fill(filterSymbols - 1);
  for (const pattern of patterns) {
    for (let place = 0; place < filterSymbols; place += 1) {
      for (const byte of unfolded(pattern[place] as number)) {
        table[byte] = (table[byte] as number) | (1 << place);
        for (const before of place === 0 ? [] : unfolded(pattern[place - 1] as number)) {
          const pair = pairOf(before, byte);
          shifts[pair] = Math.min(shifts[pair] as number, filterSymbols - 1 - place);
        }
      }
    }
  }
  for (const lead of [percent, backslash, ampersand]) table[lead] = (table[lead] as number) | escapeFlag;
  return { patterns, filterSymbols, table, shifts };
};

/** A small number for two bytes, of which different pairs may share one. */
const pairOf = (first: number, second: number): number => ((first & 63) << 6) | (second & 63);

const spellingsOf = (bytes: Buffer): Buffer[] => {
  const plain = [bytes, unescaped(bytes)].filter(({ length }) => length >= textBytesMin);
  if (bytes.length < encodedBytesMin) return plain.map(foldAll);
  return [...plain, Buffer.from(bytes.toString('hex')), ...[0, 1, 2].map((before) => base64Core(bytes, before))].map(foldAll);
};

const foldAll = (bytes: Buffer): Buffer => Buffer.from(bytes.map(fold));

/** What base64 makes of the bytes wherever `before` bytes (modulo 3) precede them: the characters that they alone decide. */
const base64Core = (bytes: Buffer, before: number): Buffer =>
  Buffer.from(
    Buffer.concat([Buffer.alloc(before), bytes])
      .toString('base64')
      .slice(Math.ceil((8 * before) / 6), Math.floor((8 * (before + bytes.length)) / 6)),
  );

/** A text that has escapes in it is found as it stands only when it is read as the stream is. */
const unescaped = (bytes: Buffer): Buffer => {
  const symbols: number[] = [];
  for (let i = 0; i < bytes.length; ) {
    const unit = unitAt(bytes, i, true);
    symbols.push(unit === 0 ? (bytes[i] as number) : unit & 0xff);
    i += unit === 0 ? 1 : unit >> 8;
  }
  return Buffer.from(symbols);
};

/** The escape that begins here: its length << 8 | its symbol. 0: none. -1: it may be one, more bytes will tell. */
const unitAt = (bytes: Uint8Array, at: number, isLast: boolean): number => {
  switch (bytes[at]) {
    case percent:
      return hexUnit(bytes, at, 1, 2, isLast);
    case ampersand:
      return entityUnit(bytes, at, isLast);
    case backslash:
      break;
    default:
      return 0;
  }
  const next = bytes[at + 1];
  if (next === undefined) return isLast ? 0 : -1;
  if (next === 0x75) return hexUnit(bytes, at, 2, 4, isLast);
  if (next === 0x78) return hexUnit(bytes, at, 2, 2, isLast);
  const symbol = shortEscapes.get(next);
  return symbol === undefined ? 0 : (2 << 8) | symbol;
};

/** RFC 8259 section 7, and the quote of JavaScript. */
const shortEscapes = new Map<number, number>(
  Object.entries({ '"': '"', "'": "'", '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }).map(([letter, symbol]) => [
    letter.charCodeAt(0),
    symbol.charCodeAt(0),
  ]),
);

const hexUnit = (bytes: Uint8Array, at: number, lead: number, digits: number, isLast: boolean): number => {
  let value = 0;
  for (let i = at + lead; i < at + lead + digits; i += 1) {
    const byte = bytes[i];
    if (byte === undefined) return isLast ? 0 : -1;
    const digit = hexDigit(byte);
    if (digit < 0) return 0;
    value = value * 16 + digit;
  }
  return value > 0xff ? 0 : ((lead + digits) << 8) | value;
};

const hexDigit = (byte: number): number => {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
};

const named: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

const entityUnit = (bytes: Uint8Array, at: number, isLast: boolean): number => {
  for (let end = at + 1; end < at + unitBytesMax; end += 1) {
    const byte = bytes[end];
    if (byte === undefined) return isLast ? 0 : -1;
    if (byte === 0x3b) {
      const name = Buffer.from(bytes.subarray(at + 1, end)).toString('latin1');
      const code = /^#(?:x([\da-f]{2})|(\d{2,3}))$/i.exec(name);
      const symbol = code ? Number.parseInt(code[1] ?? (code[2] as string), code[1] === undefined ? 10 : 16) : named[name]?.charCodeAt(0);
      return symbol === undefined || symbol > 0xff ? 0 : ((end + 1 - at) << 8) | symbol;
    }
    const isNaming = byte === 0x23 || (byte >= 0x30 && byte <= 0x39) || ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a);
    if (!isNaming) return 0;
  }
  return 0;
};

/** Whether the text has to be searched: false when it surely holds none. Cheap, for the many short values of a head. */
export const mayHold = ({ filterSymbols, shifts }: Needle, text: string): boolean => {
  let last = filterSymbols - 1;
  if (text.length <= last) return false;
  if (leadPattern.test(text)) return true;
  while (last < text.length) {
    const shift = shifts[pairOf(text.charCodeAt(last - 1), text.charCodeAt(last))] as number;
    if (shift === 0) return true;
    last += shift;
  }
  return false;
};

const leadPattern = /[%\\&]/;

/** Where the next byte of each kind is that may begin an escape. */
type Leads = readonly [number, number, number];
const unknownLeads: Leads = [-1, -1, -1];

const leadsFrom = (window: Buffer, from: number, [first, second, third]: Leads): Leads => [
  first < from ? leadFrom(window, percent, from) : first,
  second < from ? leadFrom(window, backslash, from) : second,
  third < from ? leadFrom(window, ampersand, from) : third,
];

const leadFrom = (window: Buffer, lead: number, from: number): number => {
  const found = window.indexOf(lead, from);
  return found < 0 ? Number.POSITIVE_INFINITY : found;
};

/** The text (one char a byte) with asterisks for each hit. */
export const withoutHits = (needle: Needle, text: string): { readonly text: string; readonly hits: number } => {
  if (!mayHold(needle, text)) return { text, hits: 0 };
  const search = new Search(needle);
  const settled = [search.push(Buffer.from(text, 'latin1')), search.end()];
  return { text: search.hits === 0 ? text : Buffer.concat(settled).toString('latin1'), hits: search.hits };
};

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
    return this.#window.length;
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
    const result = this.#found.length === 0 ? settled : this.#masked(settled, until);
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
