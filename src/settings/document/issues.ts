/** zod's issues → problems of ours. Their messages are ours already (grammar.ts); here each gets its place. */
import type * as z from 'zod';
import { meant } from '../grammar.ts';
import { isShownKey, type Path } from '../path.ts';
import type { Problem } from '../reference.ts';

export const problemsOf = (issues: readonly z.core.$ZodIssue[]): Problem[] =>
  issues.flatMap((issue): Problem[] => {
    const { path } = issue;
    if (issue.code === 'unrecognized_keys') return issue.keys.map((key) => unknownKey(path, key, issue.message.split(' ')));
    if (issue.code === 'invalid_key') return [{ path, at: 'key', message: issue.issues[0]?.message ?? 'is not a key of this mapping' }];
    return [{ path, at: 'value', message: issue.message }];
  });

/** Keys that belong elsewhere, and where. */
const misplaced: Readonly<Record<string, string>> = {
  clientSecret: 'clientSecret belongs inside clientAuthentication, beside its method',
  secret: 'a secret is named as clientSecret: {file: PATH} or {env: NAME}',
  wildcard: 'hosts are exact',
  condition: 'conditions are not evaluated in this version',
};

const unknownKey = (path: Path, key: string, known: readonly string[]): Problem => {
  const advice = (Object.hasOwn(misplaced, key) ? misplaced[key] : undefined) ?? meant(key, known) ?? `known here are ${known.join(', ')}`;
  const at = [...path, key];
  return { path: at, at: 'key', message: `is ${isShownKey(key) ? 'not a known key' : 'an unknown key'}, ${advice}` };
};
