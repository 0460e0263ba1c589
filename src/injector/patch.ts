/**
 * What was changed, as a JSON patch (RFC 6902): of each part that injection touches, the whole. Pure. The API server applies it to exactly the
 * object that it sent.
 */
import { isDeepStrictEqual } from 'node:util';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import type { Pod } from './pod.ts';

const parts = [
  ['metadata', 'labels'],
  ['metadata', 'annotations'],
  ['spec', 'initContainers'],
  ['spec', 'containers'],
  ['spec', 'volumes'],
] as const;

/** Empty when nothing is. `add` replaces a member that is there. */
export const patchOf = (before: Pod, after: Pod): readonly JsonObject[] =>
  parts.flatMap(([parent, member]) => {
    const [old, now] = [memberOf(before[parent], member), memberOf(after[parent], member)];
    return now === undefined || isDeepStrictEqual(old, now) ? [] : [{ op: 'add', path: `/${parent}/${member}`, value: now }];
  });

const memberOf = (value: unknown, member: string): unknown => (isJsonObject(value) ? value[member] : undefined);
