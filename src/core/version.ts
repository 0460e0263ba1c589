/**
 * Names for content: equal content has an equal version wherever and whenever it is computed, so a decision's version says
 * exactly which rules made it, and a reload that changes nothing changes no version. Never pass a secret: a version is shown.
 */
import { createHash } from 'node:crypto';

/** JSON with the keys of every object in code-unit order; members that are undefined are left out, as in JSON. */
const canonicalJson = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map((item) => (item === undefined ? 'null' : canonicalJson(item))).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
  return `{${members.join(',')}}`;
};

/** 16 hex digits of SHA-256 over the content's canonical JSON. `content` is plain data. */
export const versionOf = (content: object): string => createHash('sha256').update(canonicalJson(content)).digest('hex').slice(0, 16);
