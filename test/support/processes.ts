/** Roles as an operator starts them: the command line in a process of its own, configuration from a file, told by signals. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';

export interface RoleProcess {
  readonly child: ChildProcess;
  /** What it listens for → port, from its own line. */
  readonly ports: Readonly<Record<string, number>>;
  /** Resolves when it prints that it is ready. */
  readonly ready: Promise<void>;
  readonly output: () => string;
  /** SIGTERM; resolves with the exit code. */
  readonly stop: () => Promise<number | null>;
}

const root = join(import.meta.dirname, '../..');

/** How the program is started: from source as npm scripts do it, or the bundle as the image does. */
export const fromSource: readonly string[] = ['--disable-sigusr1', join(root, 'src/main.ts')];
/** What the image starts with, from the Dockerfile itself, so that what is measured and tested is what is shipped. */
const image = readFileSync(join(root, 'Dockerfile'), 'utf8')
  .split(/^FROM /m)
  .at(-1) as string;
const [, ...entrypoint] = JSON.parse(/^ENTRYPOINT (\[.*\])$/m.exec(image)?.[1] as string) as string[];
export const imageFlags: readonly string[] = entrypoint.filter((part) => part.startsWith('-'));
export const imageEnvironment: Readonly<Record<string, string>> = Object.fromEntries(
  [...image.matchAll(/^ENV (\w+)=(\S+)$/gm)].map(([, name, value]) => [name as string, value as string]),
);
export const fromBundle = (directory: string): readonly string[] => [...imageFlags, join(directory, 'main.js')];

/** Starts `outrider <role> --config`; resolves when it listens. */
export const startRole = async (
  t: Test,
  role: 'broker' | 'collector' | 'proxy' | 'injector',
  dir: string,
  yaml: string,
  program: readonly string[] = fromSource,
  { command = [process.execPath], env = {} }: { readonly command?: readonly string[]; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<RoleProcess> => {
  const file = join(dir, `${role}.yaml`);
  writeFileSync(file, yaml);
  const [executable = process.execPath, ...first] = command;
  const child = spawn(executable, [...first, ...program, role, '--config', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...(program[0] === fromSource[0] ? {} : imageEnvironment), ...env },
  });
  let output = '';
  const saying = (wanted: RegExp): Promise<RegExpExecArray> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const match = wanted.exec(output);
        if (match) resolve(match);
      };
      look();
      child.stdout.on('data', look);
      child.once('exit', (code) => reject(new Error(`${role} ended with ${code}: ${output}`)));
    });
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk));
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const stop = async (): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    return (await exited)[0];
  };
  t.teardown(stop);
  const [, listening = ''] = await saying(new RegExp(`^${role} listens: (.*)$`, 'm'));
  const ports = Object.fromEntries([...listening.matchAll(/(\w+) \S+:(\d+)/g)].map(([, name, port]) => [name as string, Number(port)]));
  const ready = saying(new RegExp(`^${role} is ready$`, 'm')).then(() => undefined);
  ready.catch(() => undefined);
  return { child, ports, ready, output: () => output, stop };
};

/** Peak and current resident memory of a process, MiB (Linux). */
export const residentMiB = (pid: number): { peak: number; now: number } => {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const of = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024;
  return { peak: of('VmHWM'), now: of('VmRSS') };
};
