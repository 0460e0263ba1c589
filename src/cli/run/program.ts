/** The command that `outrider run` is about: started with our streams, given the signals that were sent to us alone, waited for. */
import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { isInForeground } from './foreground.ts';

export interface Program {
  /** As shells report it: the exit status, 128 and the number of a signal, 126 or 127 with `complaint` when it was not started. */
  readonly ended: Promise<{ readonly status: number; readonly complaint?: string }>;
  readonly isRunning: () => boolean;
  readonly signal: (signal: NodeJS.Signals) => void;
}

/** What a terminal sends to its whole foreground. */
const fromTerminals: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];

export const statusOfSignal = (signal: NodeJS.Signals): number => 128 + constants.signals[signal];

export const startProgram = ([command, ...args]: readonly string[], environment: NodeJS.ProcessEnv): Program => {
  const { promise: ended, resolve } = Promise.withResolvers<{ status: number; complaint?: string }>();
  let child: ChildProcess;
  let isRunning = true;
  const end = (status: number, complaint?: string): void => {
    isRunning = false;
    resolve({ status, ...(complaint === undefined ? {} : { complaint }) });
  };
  const failed = ({ code, message }: NodeJS.ErrnoException): void => {
    if (code === 'ENOENT') return end(127, `${command}: not found`);
    return end(126, `${command}: cannot be executed (${code ?? message})`);
  };
  try {
    child = spawn(command as string, args, { stdio: 'inherit', env: environment });
  } catch (error) {
    // A NUL in an argument or an argument list that is too long is thrown, not emitted.
    failed(error as NodeJS.ErrnoException);
    return { ended, isRunning: () => false, signal: () => undefined };
  }
  child.once('error', failed);
  child.once('exit', (code, signal) => end(code ?? statusOfSignal(signal as NodeJS.Signals)));
  return {
    ended,
    isRunning: () => isRunning,
    signal: (signal) => {
      if (isRunning && !(fromTerminals.includes(signal) && isInForeground())) child.kill(signal);
    },
  };
};
