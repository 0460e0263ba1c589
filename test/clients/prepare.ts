/**
 * `node test/clients/prepare.ts`: makes what the clients of the matrix need beyond installed programs, below `.outrider/clients`: a Python
 * environment with pinned packages, and the Go programs. Does nothing that was done before. A part that cannot be made is left out,
 * with a word; where clients are required (OUTRIDER_REQUIRE_CLIENTS) its tests then fail.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const programs = join(import.meta.dirname, 'programs');
const cache = join(import.meta.dirname, '../../.outrider/clients');
const pythonHome = join(cache, 'python');

export const python = join(pythonHome, 'bin/python');
export const goProgram = (name: 'http' | 'grpc'): string => join(cache, 'go', name);

const run = (program: string, args: readonly string[], directory = cache): void => {
  execFileSync(program, args, { cwd: directory, stdio: ['ignore', 'ignore', 'inherit'] });
};

const preparePython = (): void => {
  const wanted = join(programs, 'requirements.txt');
  const stamp = join(pythonHome, 'made-from');
  const digest = createHash('sha256').update(readFileSync(wanted)).digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;
  rmSync(pythonHome, { recursive: true, force: true });
  run('python3', ['-m', 'venv', pythonHome]);
  run(python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--requirement', wanted]);
  writeFileSync(stamp, digest);
};

/** Go knows itself what has changed. */
const prepareGo = (): void => run('go', ['build', '-buildvcs=false', '-o', `${join(cache, 'go')}/`, './...'], join(programs, 'go'));

if (import.meta.main) {
  mkdirSync(cache, { recursive: true });
  for (const [name, prepare] of Object.entries({ Python: preparePython, Go: prepareGo })) {
    try {
      prepare();
    } catch (error) {
      console.log(`the clients for ${name} could not be made: ${(error as Error).message}`);
      if (process.env['OUTRIDER_REQUIRE_CLIENTS']) process.exitCode = 1;
    }
  }
}
