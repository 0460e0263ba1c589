/**
 * One process as a container runtime would start it: in the pod's network namespace, with a mount namespace and a process namespace of its own, a root
 * that is this machine's file system under an overlay (what it writes there is gone with it), the pod's volumes bound where they belong,
 * user, groups, capabilities and no_new_privs as asked. Not there: cgroups, seccomp, user namespaces, and a file system without this machine's programs.
 */
import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Mount {
  readonly source: string;
  readonly target: string;
  readonly isFile: boolean;
  readonly isReadOnly: boolean;
}

export interface Plan {
  /** For its root, its script; nobody else's. */
  readonly directory: string;
  readonly log: string;
  /** Runs a command in the pod's network. */
  readonly inNetwork: (command: readonly string[]) => readonly [string, ...string[]];
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly workingDirectory: string;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
  /** In small letters and without CAP_, or all. */
  readonly capabilities: readonly string[] | 'all';
  readonly mayGainPrivileges: boolean;
  readonly hasReadOnlyRoot: boolean;
  readonly mounts: readonly Mount[];
}

export interface Ended {
  readonly exitCode: number;
  readonly signal: number;
}

export interface ContainerProcess {
  readonly exited: Promise<Ended>;
  readonly kill: (signal: 'SIGTERM' | 'SIGKILL') => void;
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

const bin = (name: string): string => (name === 'chroot' ? '/usr/sbin/chroot' : `/usr/bin/${name}`);

const userOf = ({ uid, gid, groups, capabilities, mayGainPrivileges }: Plan): string[] => [
  bin('setpriv'),
  `--reuid=${uid}`,
  `--regid=${gid}`,
  groups.length === 0 ? '--clear-groups' : `--groups=${groups.join(',')}`,
  ...(capabilities === 'all' ? [] : [`--bounding-set=${['-all', ...capabilities.map((name) => `+${name}`)].join(',')}`]),
  '--inh-caps=-all',
  '--ambient-caps=-all',
  ...(mayGainPrivileges ? [] : ['--no-new-privs']),
];

const script = (plan: Plan): string => {
  const root = join(plan.directory, 'root');
  const layer = join(plan.directory, 'layer');
  const mount = (...args: readonly string[]): string => [bin('mount'), ...args.map(quoted)].join(' ');
  const variables = Object.entries(plan.environment).map(([name, value]) => `${name}=${value}`);
  // Where a path leads inside: a link such as /var/run must not be followed out of the root.
  const place = ({ source, target, isFile, isReadOnly }: Mount): string[] => [
    `target=${quoted(target)}; inside=$(${bin('chroot')} ${quoted(root)} /bin/sh -c ${quoted(
      isFile ? 'mkdir -p "${1%/*}/" && touch "$1" && readlink -f "$1"' : 'mkdir -p "$1" && readlink -f "$1"',
    )} sh "$target")`,
    `${bin('mount')} --bind ${quoted(source)} ${quoted(root)}"$inside"`,
    ...(isReadOnly ? [`${bin('mount')} -o remount,bind,ro ${quoted(root)}"$inside"`] : []),
  ];
  return [
    '#!/bin/sh',
    'set -eu',
    mount('--make-rprivate', '/'),
    mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', layer),
    `${bin('mkdir')} ${quoted(`${layer}/upper`)} ${quoted(`${layer}/work`)}`,
    mount('-t', 'overlay', '-o', `lowerdir=/,upperdir=${layer}/upper,workdir=${layer}/work`, 'overlay', root),
    mount('-t', 'proc', 'proc', `${root}/proc`),
    mount('-t', 'sysfs', '-o', 'ro', 'sysfs', `${root}/sys`),
    mount('--rbind', '/dev', `${root}/dev`),
    mount('-t', 'tmpfs', '-o', 'mode=1777', 'tmpfs', `${root}/dev/shm`),
    // What this machine has there is none of the container's business: the volumes of all pods, for one.
    mount('-t', 'tmpfs', '-o', `mode=1777${plan.hasReadOnlyRoot ? ',ro' : ''}`, 'tmpfs', `${root}/tmp`),
    mount('-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', `${root}/run`),
    ...plan.mounts.toSorted((one, other) => one.target.length - other.target.length).flatMap(place),
    ...(plan.hasReadOnlyRoot ? [mount('-o', 'remount,ro', `${root}/run`), mount('-o', 'remount,ro', root)] : []),
    // Nothing of the test's own environment goes along.
    `exec ${[bin('chroot'), root, ...userOf(plan), bin('env'), '--ignore-environment', `--chdir=${plan.workingDirectory}`, ...variables, ...plan.command].map(quoted).join(' ')}`,
    '',
  ].join('\n');
};

const signals: Readonly<Record<string, number>> = { SIGKILL: 9, SIGTERM: 15, SIGSEGV: 11, SIGABRT: 6, SIGINT: 2, SIGHUP: 1, SIGPIPE: 13 };

export const startProcess = (plan: Plan): ContainerProcess => {
  for (const name of ['root', 'layer']) mkdirSync(join(plan.directory, name), { recursive: true });
  const file = join(plan.directory, 'start.sh');
  writeFileSync(file, script(plan), { mode: 0o600 });
  const log = openSync(plan.log, 'a');
  const [program, ...args] = plan.inNetwork(['unshare', '--mount', '--pid', '--fork', '/bin/sh', file]);
  // nsenter becomes unshare, whose one child is the container's first process.
  const child = spawn(program, args, { stdio: ['ignore', log, log], env: { PATH: process.env['PATH'] }, cwd: '/' });
  closeSync(log);
  const exited = new Promise<Ended>((resolve) => {
    child.once('error', (error) => {
      writeFileSync(plan.log, `${error.message}\n`, { flag: 'a' });
      resolve({ exitCode: 128, signal: 0 });
    });
    child.once('exit', (code, signal) => {
      const number = signal === null ? 0 : (signals[signal] ?? 0);
      resolve({ exitCode: code ?? 128 + number, signal: number });
    });
  });
  const kill: ContainerProcess['kill'] = (signal) => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    try {
      const first = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
      // Without a first process there is nothing to be orderly with.
      if (first === '') process.kill(child.pid, 'SIGKILL');
      else process.kill(Number(first), signal);
    } catch {
      // It has ended meanwhile.
    }
  };
  return { exited, kill };
};
