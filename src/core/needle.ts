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

import { ampersand, backslash, leadPattern, percent, unitAt } from './needle/escape.ts';
import { filterSymbolsMax, Search } from './needle/search.ts';
import { fold, pairOf, unfolded } from './needle/symbol.ts';

export { Search } from './needle/search.ts';

/** Texts shorter than this are not looked for. */
const textBytesMin = 4;
/** Texts shorter than this have encodings so short that they stand in ordinary bytes by chance. */
const encodedBytesMin = 8;

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
/** Marks bytes that may begin an escape. */
const escapeFlag = 1 << 31;

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
/** The text (one char a byte) with asterisks for each hit. */
export const withoutHits = (needle: Needle, text: string): { readonly text: string; readonly hits: number } => {
  if (!mayHold(needle, text)) return { text, hits: 0 };
  const search = new Search(needle);
  const settled = [search.push(Buffer.from(text, 'latin1')), search.end()];
  return { text: search.hits === 0 ? text : Buffer.concat(settled).toString('latin1'), hits: search.hits };
};
