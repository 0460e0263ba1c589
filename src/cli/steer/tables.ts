/**
 * The nat tables of this network namespace, by the programs iptables and ip6tables: listed, and changed in one transaction each. The only
 * place that runs them. Failures are sentences for the person at the terminal.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Family } from './rules.ts';

export interface Ran {
  /** Undefined: there is no such program. */
  readonly status: number | undefined;
  readonly out: string;
  readonly err: string;
}

export type Run = (program: string, args: readonly string[], input: string) => Promise<Ran>;

/** A table that could not be read or changed. */
export class TableError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'TableError';
  }
}

/** Seconds to wait for another program's lock on the tables. */
const lockWait = '5';

/** Programs as they are installed, also where a shell's path does not have them. */
const searchPath = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

export const runProgram: Run = (program, args, input) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: { PATH: searchPath, LC_ALL: 'C' }, stdio: ['pipe', 'pipe', 'pipe'] });
    let [out, err] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (out += chunk));
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => (err += chunk));
    child.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') resolve({ status: undefined, out: '', err: '' });
      else reject(error);
    });
    child.once('close', (code) => resolve({ status: code ?? 1, out, err }));
    // A program that does not read its input says why on its own.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });

const firstLine = (text: string): string => text.split('\n').find((line) => line.trim() !== '') ?? 'it said nothing';

const checked = (program: string, { status, out, err }: Ran): string => {
  if (status === undefined) throw new TableError(`${program} is not installed`);
  if (status === 0) return out;
  const rights = /permission denied|must be root|not permitted/i.test(err)
    ? ' Steering needs root with the capability NET_ADMIN, in the network namespace of the programs.'
    : '';
  throw new TableError(`${program} failed: ${firstLine(err)}.${rights}`);
};

/** The nat table as `-S` lists it. Throws TableError. */
export const listNat = async (run: Run, { program }: Family): Promise<string> =>
  checked(program, await run(program, ['-w', lockWait, '-t', 'nat', '-S'], ''));

/** All of `transaction` or nothing. Throws TableError. */
export const applyNat = async (run: Run, { program }: Family, transaction: string): Promise<void> => {
  const restore = `${program}-restore`;
  checked(restore, await run(restore, ['-w', lockWait, '--noflush'], transaction));
};

/** Whether any connection could go by IPv6 here: an address other than loopback's. https://www.kernel.org/doc/html/latest/networking/ */
export const usesIPv6 = (read: () => string = () => readFileSync('/proc/net/if_inet6', 'utf8')): boolean => {
  try {
    return read()
      .split('\n')
      .some((line) => line.trim() !== '' && !/\slo$/.test(line));
  } catch {
    return false;
  }
};
