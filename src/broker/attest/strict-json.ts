/**
 * JSON as two readers can only read it one way: an object, no name twice, bounded depth. `JSON.parse` keeps the last of two
 * equal names where others keep the first, so a token could say one thing to its issuer and another to us (RFC 8725 section 2.8
 * names such confusion; RFC 8259 section 4 leaves it open).
 */
import { isJsonObject, type JsonObject } from '../../core/json.ts';

/** The parsed object, or undefined when `text` is none that is strict. */
export const parseStrictJson = (text: string, depthMax: number): JsonObject | undefined => {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  return isJsonObject(value) && isUnambiguous(text, depthMax) ? value : undefined;
};

const token = /"(?:[^"\\]|\\.)*"|[{}[\]:,]/g;

/** `text` is valid JSON. Whether no object has a name twice, however it is escaped, and nothing is nested deeper. */
const isUnambiguous = (text: string, depthMax: number): boolean => {
  // One set of names for every open object, `undefined` for an open array.
  const open: (Set<string> | undefined)[] = [];
  let lastString = '';
  for (const [part] of text.matchAll(token)) {
    if (part === '{' || part === '[') {
      if (open.length === depthMax) return false;
      open.push(part === '{' ? new Set() : undefined);
    } else if (part === '}' || part === ']') {
      open.pop();
    } else if (part === ':') {
      const name = JSON.parse(lastString) as string;
      const names = open.at(-1);
      if (names === undefined || names.has(name)) return false;
      names.add(name);
    } else if (part !== ',') {
      lastString = part;
    }
  }
  return true;
};
