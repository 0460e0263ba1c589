/**
 * Where a JSON pointer (RFC 6901) points in a JSON text (RFC 8259): found by reading the text once, so that all other bytes stay what they
 * are. Strict, because servers forgive in different ways: a name that stands twice, or in another case, could be read as the one or the
 * other. Pure; a problem never repeats what stands in the text.
 */
import { limits } from '../../core/limits.ts';

export type Located =
  | { readonly kind: 'value'; readonly start: number; readonly end: number }
  /** The object that should have it begins before `at`. */
  | { readonly kind: 'absent'; readonly at: number; readonly isOnly: boolean }
  | { readonly kind: 'problem'; readonly problem: string };

class JsonProblem extends Error {}

const fail = (problem: string): never => {
  throw new JsonProblem(problem);
};

export const locate = (text: string, pointer: readonly string[]): Located => {
  try {
    return new Reader(text, pointer).read();
  } catch (thrown) {
    if (thrown instanceof JsonProblem) return { kind: 'problem', problem: thrown.message };
    throw thrown;
  }
};

/** The text with a string in that place; a member that its object has not is added. */
export const withMember = (text: string, pointer: readonly string[], value: string): string | { readonly problem: string } => {
  const found = locate(text, pointer);
  if (found.kind === 'problem') return found;
  const written = JSON.stringify(value);
  if (found.kind === 'value') return text.slice(0, found.start) + written + text.slice(found.end);
  const member = `${JSON.stringify(pointer.at(-1))}:${written}${found.isOnly ? '' : ','}`;
  return text.slice(0, found.at) + member + text.slice(found.at);
};

/** The string in that place; undefined where there is none, or something else. */
export const stringMember = (text: string, pointer: readonly string[]): string | undefined => {
  const found = locate(text, pointer);
  if (found.kind !== 'value' || text[found.start] !== '"') return undefined;
  return JSON.parse(text.slice(found.start, found.end)) as string;
};

/** One name for the spellings that readers without regard to case take for the same, the Kelvin sign and the long s too. */
const fold = (name: string): string => name.toUpperCase().toLowerCase();

const isHex = (code: number): boolean => (code >= 48 && code <= 57) || (code >= 65 && code <= 70) || (code >= 97 && code <= 102);

/** State: where it is in the text, and what it found. */
class Reader {
  readonly #text: string;
  readonly #pointer: readonly string[];
  #at = 0;
  #found: Located | undefined;

  constructor(text: string, pointer: readonly string[]) {
    this.#text = text;
    this.#pointer = pointer;
  }

  read(): Located {
    this.#space();
    this.#value(0, 0);
    this.#space();
    if (this.#at < this.#text.length) fail('has something after its end');
    return this.#found ?? fail('has no such place');
  }

  /** `matched`: how many names of the pointer lead here; -1 beside its way. */
  #value(depth: number, matched: number): void {
    const start = this.#at;
    const char = this.#text[start];
    const isPlace = matched === this.#pointer.length;
    const within = isPlace ? -1 : matched;
    if (char === '{' || char === '[') {
      if (depth >= limits.heldBodyDepthMax) fail('is nested too deeply');
      if (char === '{') this.#object(depth + 1, within);
      else this.#array(depth + 1, within);
    } else if (char === '"') this.#string();
    else this.#literal();
    if (isPlace) this.#found = { kind: 'value', start, end: this.#at };
  }

  #object(depth: number, matched: number): void {
    this.#at += 1;
    const begins = this.#at;
    const wanted = matched < 0 ? undefined : this.#pointer[matched];
    let isThere = false;
    this.#space();
    const isEmpty = this.#text[this.#at] === '}';
    if (isEmpty) this.#at += 1;
    for (let more = !isEmpty; more; ) {
      const name = this.#name(wanted !== undefined);
      const isWanted = wanted !== undefined && fold(name) === fold(wanted);
      if (isWanted && (isThere || name !== wanted)) fail('has the name twice, or in another spelling');
      isThere ||= isWanted;
      this.#value(depth, isWanted ? matched + 1 : -1);
      more = this.#next('}');
    }
    const isLast = wanted !== undefined && matched === this.#pointer.length - 1;
    if (isLast && !isThere) this.#found = { kind: 'absent', at: begins, isOnly: isEmpty };
  }

  /** With the colon and the space around it. '' where nobody asks for it. */
  #name(isWanted: boolean): string {
    this.#space();
    const start = this.#at;
    if (this.#text[start] !== '"') fail('is not JSON');
    this.#string();
    const end = this.#at;
    this.#space();
    if (this.#text[this.#at] !== ':') fail('is not JSON');
    this.#at += 1;
    this.#space();
    return isWanted ? (JSON.parse(this.#text.slice(start, end)) as string) : '';
  }

  #array(depth: number, matched: number): void {
    this.#at += 1;
    const wanted = matched < 0 ? undefined : this.#pointer[matched];
    this.#space();
    if (this.#text[this.#at] === ']') {
      this.#at += 1;
      return;
    }
    for (let index = 0, more = true; more; index += 1) {
      this.#space();
      this.#value(depth, wanted === String(index) ? matched + 1 : -1);
      more = this.#next(']');
    }
  }

  /** Past a comma: true; past the end of the object or array: false. */
  #next(end: string): boolean {
    this.#space();
    const char = this.#text[this.#at];
    this.#at += 1;
    return char === ',' || (char !== end && fail('is not JSON'));
  }

  #string(): void {
    const text = this.#text;
    for (let at = this.#at + 1; at < text.length; at += 1) {
      const code = text.charCodeAt(at);
      if (code === 0x22) {
        this.#at = at + 1;
        return;
      }
      if (code < 0x20) break;
      if (code !== 0x5c) continue;
      at += 1;
      const escaped = text[at];
      if (escaped === 'u') {
        for (let digit = 1; digit <= 4; digit += 1) if (!isHex(text.charCodeAt(at + digit))) fail('is not JSON');
        at += 4;
      } else if (escaped === undefined || !'"\\/bfnrt'.includes(escaped)) break;
    }
    fail('is not JSON');
  }

  /** A number, true, false or null. */
  #literal(): void {
    const start = this.#at;
    let end = start;
    while (end < this.#text.length && !' \t\n\r,]}:"[{'.includes(this.#text[end] as string)) end += 1;
    const literal = this.#text.slice(start, end);
    const isOne =
      literal === 'true' ||
      literal === 'false' ||
      literal === 'null' ||
      (literal.length <= limits.heldBodyNumberCharsMax && /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/.test(literal));
    if (!isOne) fail('is not JSON');
    this.#at = end;
  }

  #space(): void {
    while (' \t\n\r'.includes(this.#text[this.#at] ?? 'x')) this.#at += 1;
  }
}
