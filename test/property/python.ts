/** Another language's standard library as an oracle: all questions of a test in one run of oracle.py. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { Test } from 'tap';

interface Answers {
  /** The address as a number. */
  readonly ipv6: string;
  readonly name: string;
  readonly path: { readonly decoded: string; readonly normal: string };
}

/** null for what Python refuses. Undefined, with a word, where there is no Python and none is required. */
export const askPython = <K extends keyof Answers>(t: Test, kind: K, texts: readonly string[]): (Answers[K] | null)[] | undefined => {
  const { stdout, status, error } = spawnSync('python3', [join(import.meta.dirname, 'oracle.py')], {
    input: texts.map((text) => JSON.stringify([kind, text])).join('\n'),
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
    .map((line) => JSON.parse(line) as Answers[K] | null);
};
