/** Shutdown in reverse order of start: what was opened last closes first, each within a deadline. */
import { limits } from '../core/limits.ts';
import type { Log } from './log.ts';

export interface Closer {
  readonly name: string;
  readonly close: () => Promise<void> | void;
}

/** A running role: what the demo, main.ts and the tests hold. */
export interface Running {
  readonly close: () => Promise<void>;
}

/** A role was asked to stop while it started; `waitingFor` says what kept it. No failure. */
export class StartStopped extends Error {
  readonly waitingFor: string;

  constructor(waitingFor: string) {
    super(`asked to stop while it waited for ${waitingFor}`);
    this.name = 'StartStopped';
    this.waitingFor = waitingFor;
  }
}

/**
 * A role: `open` opens its parts and adds how each is closed. What was opened before one could not be is closed again; who closes
 * twice waits for the same end.
 */
export const startParts = async <T extends object>(log: Log, open: (closers: Closer[]) => Promise<T>): Promise<T & Running> => {
  const closers: Closer[] = [];
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= closeAll(closers, limits.drainTimeoutMs, log));
  try {
    return { ...(await open(closers)), close };
  } catch (error) {
    await close();
    throw error;
  }
};

/** Closes all, last first; one that fails or hangs past `timeoutMs` is logged and does not stop the others. */
export const closeAll = async (closers: readonly Closer[], timeoutMs: number, log: Log): Promise<void> => {
  for (const { name, close } of closers.toReversed()) {
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`not closed within ${timeoutMs} ms`)), timeoutMs);
    });
    try {
      await Promise.race([Promise.resolve(close()), deadline]);
    } catch (error) {
      log.warn({ error, part: name }, 'closing failed');
    } finally {
      clearTimeout(timer);
    }
  }
};
