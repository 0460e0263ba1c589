/**
 * The machine that the bench runs on: which core is whose, what processes have used according to /proc, and how it is described beside
 * the figures. Linux alone. Ends nothing that it did not start.
 */
import { type ChildProcess, execFile, execFileSync, spawn, type StdioOptions } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { promisify } from 'node:util';
import type { Test } from 'tap';

export const run = promisify(execFile);

/** Products have one core to themselves; load and origin another. Broker and collector have a third where there is one. */
export const cores = { product: 0, load: 1, others: cpus().length > 2 ? 2 : 1 } as const;

/** `command` on one core; taskset becomes the program, so that the process is the program's own. */
export const pinned = (core: number, command: readonly string[]): readonly [string, ...string[]] => [
  'taskset',
  '-c',
  String(core),
  ...command,
];

export interface Started {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly stop: () => Promise<void>;
}

/** How long a program may take to end by itself. */
const patienceMs = 10_000;

/** Starts a program on a core; it is ended with the test, or by `stop`. */
export const start = (
  t: Test,
  core: number,
  command: readonly string[],
  { stdio = 'ignore', env = {}, cwd }: { stdio?: StdioOptions; env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Started => {
  const [program, ...args] = pinned(core, command);
  const child = spawn(program, args, { stdio, env: { ...process.env, ...env }, ...(cwd === undefined ? {} : { cwd }) });
  child.on('error', (error) => t.fail(`${command[0]}: ${error.message}`));
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    const exited = once(child, 'exit');
    const family = familyOf(child.pid);
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs);
    await exited;
    clearTimeout(timer);
    // Children of one that had to be ended the hard way; by their own ids.
    for (const pid of family.slice(1)) if (isChildOf(pid, 1)) endQuietly(pid);
  };
  t.teardown(stop);
  return { child, pid: child.pid ?? 0, stop };
};

const endQuietly = (pid: number): void => {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It had ended.
  }
};

const statOf = (pid: number): string[] => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
};

const isChildOf = (pid: number, parent: number): boolean => {
  try {
    return Number(statOf(pid)[1]) === parent;
  } catch {
    return false;
  }
};

/** A process and all that descend from it, itself first. */
export const familyOf = (pid: number): number[] => {
  let children: number[];
  try {
    children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
  return [pid, ...children.flatMap(familyOf)];
};

const ticksPerSecond = 100;

/** CPU seconds that these processes have used, all their threads (proc(5), utime and stime). */
export const cpuSeconds = (pids: readonly number[]): number =>
  pids.reduce((sum, pid) => {
    const fields = statOf(pid);
    return sum + (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  }, 0);

/** Resident memory of these processes, MiB: the sum, so that pages they share are counted for each. */
export const residentMiB = (pids: readonly number[]): number =>
  pids.reduce((sum, pid) => sum + Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024, 0);

/** Resolves when something accepts connections there, which is asked every two milliseconds. */
export const accepting = async (port: number, child?: ChildProcess): Promise<void> => {
  for (const end = performance.now() + 60_000; performance.now() < end; ) {
    if (child && (child.exitCode !== null || child.signalCode !== null)) throw new Error(`${child.spawnargs.join(' ')} ended`);
    const socket = connect({ host: '127.0.0.1', port });
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true));
      socket.once('error', () => resolve(false));
    });
    socket.destroy();
    if (isOpen) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error(`nothing accepts connections on port ${port}`);
};

/** The first line that matches in what a program says of itself; undefined when it is not there. */
export const versionOf = (command: readonly string[], pattern: RegExp): string | undefined => {
  try {
    const [program = '', ...args] = command;
    const said = execFileSync('sh', ['-c', '"$0" "$@" 2>&1', program, ...args], { encoding: 'utf8', timeout: 20_000 });
    return pattern.exec(said)?.[1];
  } catch {
    return undefined;
  }
};

/** CPU time of all cores that was given to other guests, and all of it, in ticks (proc(5), /proc/stat). */
const stolen = (): readonly [number, number] => {
  const fields = (readFileSync('/proc/stat', 'utf8').split('\n')[0] ?? '').split(/\s+/).slice(1).map(Number);
  return [fields[7] ?? 0, fields.reduce((sum, value) => sum + value, 0)];
};

/** What a reader must know of the machine; called at the end, for the share of time that was not ours to use. */
export const describeMachine = (): (() => readonly string[]) => {
  const [stealBefore, allBefore] = stolen();
  const [loadBefore = 0] = loadavg();
  return () => {
    const [steal, all] = stolen();
    const os = /^PRETTY_NAME="(.*)"$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'Linux';
    const [cpu] = cpus();
    return [
      `${cpus().length} cores of ${cpu?.model.trim() ?? 'an unknown processor'}, ${Math.round(totalmem() / 1024 ** 3)} GiB; ${os}, kernel ${release().replace(/-.*/, '')}; Node ${process.versions.node}`,
      `What else ran: load average ${loadBefore.toFixed(1)} before the run; CPU time taken by other guests of the host during the run: ${(((steal - stealBefore) / (all - allBefore)) * 100).toFixed(1)} %`,
    ];
  };
};
