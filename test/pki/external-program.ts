/** Programs other than Node that judge our certificates: run them, or say why a test cannot. */
import { execFile, spawnSync } from 'node:child_process';

export interface Verdict {
  readonly ok: boolean;
  readonly output: string;
}

export const run = (program: string, args: readonly string[], o: { readonly cwd?: string; readonly input?: string } = {}): Verdict => {
  const { status, stdout, stderr, error } = spawnSync(program, args, { encoding: 'utf8', timeout: 110_000, ...o });
  return { ok: status === 0, output: error === undefined ? `${stdout}${stderr}` : error.message };
};

/** Options for a test that needs the program: skips it with the reason, unless the programs are required to be there. */
export const needs = (program: string, versionArgument = '--version'): { skip: string | false } => {
  const { ok, output } = run(program, [versionArgument]);
  if (ok || process.env['OUTRIDER_REQUIRE_CLIENTS'] !== undefined) return { skip: false };
  return { skip: `${program} is not on this machine: ${output}` };
};

/** As `run`, for a program that talks to a server of this process. */
export const runBeside = (program: string, args: readonly string[]): Promise<Verdict> =>
  new Promise((resolve) => {
    execFile(program, args, { timeout: 30_000 }, (error, stdout, stderr) => resolve({ ok: error === null, output: `${stdout}${stderr}` }));
  });
