/**
 * YAML text → plain values and the place of each. Owns yaml. Strict, because a configuration is read by people and by other
 * programs too: one document, text keys that occur once, no tags, no merge keys, few aliases. Values are in objects without a
 * prototype. No sentence here holds any of the text, nor does any of the library's (they quote it): see document/syntax.ts.
 */
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, visit, type YAMLMap } from 'yaml';
import { limits } from '../../core/limits.ts';
import { isShownKey, type Path, pathText } from '../path.ts';
import { openQuoteSentence, syntaxSentence } from './syntax.ts';

/** Something wrong at an offset of the text. */
export interface Finding {
  readonly offset: number;
  readonly path: string;
  readonly message: string;
}

export interface Source {
  /** Meaningless when `isBroken`. */
  readonly value: unknown;
  /** The text is not YAML: what `value` holds is a guess. */
  readonly isBroken: boolean;
  readonly findings: readonly Finding[];
  /** Where a value or its key is; for one that is not there, where the nearest thing around it begins. */
  readonly offsetOf: (path: Path, at: 'key' | 'value') => number;
  readonly position: (offset: number) => { line: number; column: number };
}

interface Place {
  readonly offset: number;
  readonly keyOffset: number;
  readonly members: Map<PropertyKey, Place>;
}

export const readSource = (text: string): Source => {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    // Would add the source lines to messages.
    prettyErrors: false,
    // Would hide further documents.
    logLevel: 'error',
    version: '1.2',
    merge: false,
    stringKeys: true,
    // Theirs compares every key with every other: hours for a large file.
    uniqueKeys: false,
  });
  const position = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const broken = syntaxFindings(document, text, position);
  if (broken.length > 0) return { value: undefined, isBroken: true, findings: broken, offsetOf: () => 0, position };
  const reader = new Reader((offset) => position(offset).line);
  const { value, place } = reader.read(document.contents, [], 0);
  return { value, isBroken: false, findings: reader.findings, offsetOf: (path, at) => offsetIn(place, path, at), position };
};

/** One a line: a single mistake makes the parser stumble several times. */
const syntaxFindings = (document: Document.Parsed, text: string, position: (offset: number) => { line: number }): Finding[] => {
  const quote = openQuote(document, text);
  // What else went wrong is the text that the quote has swallowed.
  if (quote !== undefined) return [{ offset: quote, path: '', message: openQuoteSentence }];
  const byLine = new Map<number, Finding>();
  const add = (offset: number, message: string): void => {
    const { line } = position(offset);
    if (!byLine.has(line)) byLine.set(line, { offset, path: '', message });
  };
  for (const { pos, code } of document.errors) add(pos[0], syntaxSentence(code));
  const { yaml, tags } = document.directives;
  const hasDirective =
    yaml.explicit === true || Object.keys(tags).length > 1 || document.warnings.some(({ code }) => code === 'BAD_DIRECTIVE');
  if (hasDirective) add(0, 'has a directive (a line that begins with "%"), remove it: this is read as YAML 1.2');
  return [...byLine.values()];
};

/** Where the first quoted text that is not closed begins: the parser only says where it gave up looking for its end. */
const openQuote = (document: Document.Parsed, text: string): number | undefined => {
  const gaveUp = new Set(document.errors.filter(({ code }) => code === 'MISSING_CHAR').map(({ pos }) => pos[0]));
  if (gaveUp.size === 0) return undefined;
  let found: number | undefined;
  visit(document, {
    Scalar: (_, { type, range }) => {
      if ((type !== 'QUOTE_DOUBLE' && type !== 'QUOTE_SINGLE') || !range) return undefined;
      const [start, end] = range;
      const isClosed = end - start > 1 && text[end - 1] === text[start];
      if (isClosed || !gaveUp.has(end)) return undefined;
      found = start;
      return visit.BREAK;
    },
  });
  return found;
};

const offsetIn = (root: Place, path: Path, at: 'key' | 'value'): number => {
  let place = root;
  for (const [depth, segment] of path.entries()) {
    const next = place.members.get(segment);
    if (!next) return place.offset;
    if (at === 'key' && depth === path.length - 1) return next.keyOffset;
    place = next;
  }
  return place.offset;
};

/** Keys that would reach a prototype in a careless program; none of ours is called so. */
const forbiddenKeys = new Set(['__proto__', 'constructor', 'prototype']);

interface Read {
  readonly value: unknown;
  readonly place: Place;
}

class Reader {
  readonly findings: Finding[] = [];
  readonly #anchors = new Map<string, Node>();
  readonly #lineOf: (offset: number) => number;
  #aliases = 0;
  #aliasedValues = 0;
  #aliasDepth = 0;

  constructor(lineOf: (offset: number) => number) {
    this.#lineOf = lineOf;
  }

  read(node: Node | null, path: Path, offset: number, keyOffset = offset): Read {
    const place: Place = { offset: node?.range?.[0] ?? offset, keyOffset, members: new Map() };
    if (node === null) return { value: null, place };
    if (isAlias(node)) return this.#readAlias(node.source, path, place);
    if (this.#aliasDepth > 0) this.#aliasedValues += 1;
    if (this.#aliasedValues === limits.configurationAliasedValuesMax + 1)
      return this.#refuse(path, place, 'repeats too much by aliases, write the values out');
    if (this.#aliasDepth > 0 && this.#aliasedValues > limits.configurationAliasedValuesMax) return { value: undefined, place };
    const { tag } = node;
    if (tag !== undefined) return this.#refuse(path, place, 'has a tag ("!…"), write the value without: text in quotes is always text');
    if (path.length > limits.configurationDepthMax) return this.#refuse(path, place, 'is nested too deep');
    const value = isMap(node)
      ? this.#readMap(node, path, place)
      : isSeq(node)
        ? this.#readList(node.items, path, place)
        : isScalar(node)
          ? node.value
          : null;
    // Only now: an alias inside its own anchor finds nothing.
    if ('anchor' in node && typeof node.anchor === 'string') this.#anchors.set(node.anchor, node);
    return { value, place };
  }

  #refuse(path: Path, place: Place, message: string): Read {
    this.findings.push({ offset: place.offset, path: pathText(path), message });
    return { value: undefined, place };
  }

  #readAlias(anchor: string, path: Path, place: Place): Read {
    const node = this.#anchors.get(anchor);
    if (!node)
      return this.#refuse(path, place, 'begins with "*", which makes it an alias of something that is not above it, write it in quotes');
    this.#aliases += 1;
    const tooMany = `is one alias too many (${limits.configurationAliasesMax} are read), write this value and those below out`;
    if (this.#aliases === limits.configurationAliasesMax + 1) return this.#refuse(path, place, tooMany);
    if (this.#aliases > limits.configurationAliasesMax) return { value: undefined, place };
    this.#aliasDepth += 1;
    const { value } = this.read(node, path, place.offset);
    this.#aliasDepth -= 1;
    return { value, place };
  }

  #readList(items: readonly unknown[], path: Path, place: Place): unknown[] {
    return items.map((item, index) => {
      const read = this.read(item as Node | null, [...path, index], place.offset);
      place.members.set(index, read.place);
      return read.value;
    });
  }

  #readMap(map: YAMLMap, path: Path, place: Place): Record<string, unknown> {
    const values = Object.create(null) as Record<string, unknown>;
    for (const { key: keyNode, value: valueNode } of map.items) {
      // The parser was told that keys are text, and the document has no errors.
      const { value: key, range, tag } = keyNode as { value: string; range: readonly [number, number, number]; tag?: string };
      const [keyOffset] = range;
      const refuse = (message: string): void => void this.findings.push({ offset: keyOffset, path: pathText(path), message });
      if (tag !== undefined) refuse('has a key with a tag ("!…"), write the key without');
      else if (forbiddenKeys.has(key)) refuse(`has the key ${key}, which no configuration has, remove it`);
      else if (key === '<<') refuse('has a merge key ("<<"), which is not read, write the keys out');
      else if (place.members.has(key)) {
        const line = this.#lineOf(place.members.get(key)?.keyOffset ?? 0);
        refuse(`has the key ${isShownKey(key) ? `${key} ` : ''}twice, remove this one or the one in line ${line}`);
      } else {
        const read = this.read(valueNode as Node | null, [...path, key], keyOffset, keyOffset);
        place.members.set(key, read.place);
        values[key] = read.value;
      }
    }
    return values;
  }
}
