/**
 * The command: argv → role → settings → run. The only place that exits, that catches signals, and that decides what a crash looks
 * like. It loads nothing before the Node floor has been checked, and then one command's code only: a proxy does not carry the
 * broker's memory.
 */
import { constants } from 'node:os';
import { nodeComplaint } from '../bin/node-floor.cjs';
import type { Terminal } from './cli/terminal.ts';

const { signals } = constants;

/**
 * What a command that stands in for another program passes on to it, besides SIGINT and SIGTERM, which are caught for every command.
 * Not SIGUSR1: --disable-sigusr1 blocks it, so that it opens no debugger, and then it cannot be caught.
 */
const passedSignals = ['SIGHUP', 'SIGQUIT', 'SIGUSR2'] as const;

/** The first signal asks the command to stop; a second one does not wait for it, and exits as shells report it. */
const catchSignals = (): Required<Pick<Terminal, 'stopRequested' | 'standIn'>> => {
  const { promise: stopRequested, resolve } = Promise.withResolvers<void>();
  let asked: NodeJS.Signals | undefined;
  let passTo: ((signal: NodeJS.Signals) => void) | undefined;
  const caught = (signal: NodeJS.Signals): void => {
    if (passTo) return passTo(signal);
    if (asked) process.exit(128 + signals[signal]);
    asked = signal;
    resolve();
  };
  process.on('SIGINT', caught);
  process.on('SIGTERM', caught);
  return {
    stopRequested,
    standIn: ({ signal, exit }) => {
      passTo = signal;
      for (const name of passedSignals) process.on(name, caught);
      process.on('exit', exit);
      // Opened before the other program inherits it, because opening makes a pipe non-blocking. That nobody reads it is not its end.
      process.stderr.on('error', () => undefined);
      if (asked) signal(asked);
      return process.env;
    },
  };
};

/** A bug leaves the process in a state nobody thought of: say so and end, never limp on. */
const crash = (error: unknown): void => {
  const { name, message, stack } = error instanceof Error ? error : { name: typeof error, message: 'not an error', stack: undefined };
  const line = { level: 'error', time: new Date().toISOString(), error: { name, message, stack }, message: 'crashed: please report this' };
  process.stderr.write(`${JSON.stringify(line)}\n`);
  process.exit(1);
};

const start = async (): Promise<number> => {
  const complaint = nodeComplaint(process.versions.node);
  if (complaint !== undefined) {
    process.stderr.write(`${complaint}\n`);
    return 1;
  }
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);
  // A reader that went away (`outrider events | head`) is no failure.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => (error.code === 'EPIPE' ? process.exit(0) : crash(error)));
  const terminal: Terminal = {
    print: (line) => void process.stdout.write(`${line}\n`),
    complain: (line) => void process.stderr.write(`${line}\n`),
    ...catchSignals(),
  };
  const { runCommand } = await import('./cli/command.ts');
  return runCommand(process.argv.slice(2), terminal);
};

process.exit(await start());
