/** Another language's standard library as an oracle: all questions of a test in one run of oracle.py. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Test } from 'tap';

/** Undefined, with a word, where there is no Python and none is required. */
export const askPython = <T>(t: Test, questions: readonly (readonly [kind: 'ipv6' | 'name' | 'path', text: string])[]): T[] | undefined => {
  const { stdout, status, error } = spawnSync('python3', [join(import.meta.dirname, 'oracle.py')], {
    input: questions.map((question) => JSON.stringify(question)).join('\n'),
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (error || status !== 0) {
    if (process.env['OUTRIDER_REQUIRE_CLIENTS']) t.fail('python3 is installed where clients are required');
    else t.comment('python3 is not installed here: left out');
    return undefined;
  }
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as T);
};
