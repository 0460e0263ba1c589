/**
 * The command: argv → role → settings → run. The only place that exits, that catches signals, and that decides what a crash looks
 * like. It loads nothing before the Node floor has been checked, and then one command's code only: a proxy does not carry the
 * broker's memory.
 */
import { nodeComplaint } from '../bin/node-floor.cjs';
import type { Terminal } from './cli/terminal.ts';

/** As shells report a process that a signal ended: 128 and the signal's number. */
const interruptedStatus = { SIGINT: 130, SIGTERM: 143 } as const;

/** The first signal asks the command to stop; a second one does not wait for it. */
const stopRequest = (): Promise<void> =>
  new Promise((resolve) => {
    let asked = false;
    const stop = (signal: 'SIGINT' | 'SIGTERM'): void => {
      if (asked) process.exit(interruptedStatus[signal]);
      asked = true;
      resolve();
    };
    process.on('SIGINT', stop);
    process.on('SIGTERM', stop);
  });

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
    stopRequested: stopRequest(),
  };
  const { runCommand } = await import('./cli/command.ts');
  return runCommand(process.argv.slice(2), terminal);
};

process.exit(await start());
