/** The demo as a newcomer starts it: a real process, from sources or from the bundle. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Test } from 'tap';
import { root, textOf } from './source-tree.ts';

export interface DemoProcess {
  readonly directory: string;
  readonly child: ChildProcess;
  /** Standard output so far. */
  readonly output: () => string;
  /** The commands it offers to copy, in their order. */
  readonly commands: readonly string[];
  readonly proxy: string;
  readonly frontDoor: string;
  /** Sends the signal; yields the exit status. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<number | null>;
}

/** With the repository's own Node first, as npm has it for scripts. */
const environment = { ...process.env, PATH: `${join(root, 'node_modules/.bin')}:${process.env['PATH']}` };

/** What `npm start -- …args` runs. */
export const npmStart = (...args: readonly string[]): readonly [program: string, args: readonly string[]] => {
  const { scripts } = JSON.parse(textOf('package.json')) as { scripts: { start: string } };
  return ['sh', ['-c', [scripts.start, ...args].join(' ')]];
};

/** A command line as a shell runs it, in the repository. */
export const shell = (command: string): Promise<{ readonly status: number; readonly out: string; readonly err: string }> =>
  new Promise((resolve) => {
    execFile('sh', ['-c', command], { cwd: root, env: environment, timeout: 30_000 }, (error, out, err) =>
      resolve({ status: error === null ? 0 : Number(error.code ?? 1), out, err }),
    );
  });

export const launch = ([program, args]: readonly [string, readonly string[]]): ChildProcess =>
  spawn(program, args, { cwd: root, env: environment, stdio: ['ignore', 'pipe', 'pipe'] });

/** Starts it on free ports below a directory of the test and waits for its `ready` line. */
export const startDemo = async (
  t: Test,
  [program, args]: readonly [string, readonly string[]],
  directory: string,
): Promise<DemoProcess> => {
  const child = launch([program, args]);
  let output = '';
  let complaints = '';
  const isReady = new Promise<void>((resolve) => {
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (/^ready .*^Ctrl-C/ms.test(output)) resolve();
    });
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaints += text;
  });
  const exited = once(child, 'exit') as Promise<[number | null]>;
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await exited;
  });
  const ended = exited.then(([status]) => Promise.reject(new Error(`the demo ended with ${status}:\n${output}${complaints}`)));
  ended.catch(() => {});
  await Promise.race([isReady, ended]);
  const place = (pattern: RegExp): string => pattern.exec(output)?.[1] ?? '';
  return {
    directory,
    child,
    output: () => output,
    commands: [...output.matchAll(/^ {2}((?:curl|npm) .*)$/gm)].map((match) => match[1] as string),
    proxy: place(/^ready .*forward proxy (http:\/\/\S+),/m),
    frontDoor: place(/^ready .*status page (http:\/\/\S+)/m),
    stop: async (signal = 'SIGTERM') => {
      child.kill(signal);
      return (await exited)[0];
    },
  };
};
