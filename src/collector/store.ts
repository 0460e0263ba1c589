/**
 * The event store: JSON lines in one file, appended and synced before anyone is told. Batches that arrive while one is being
 * synced are written together and share the next sync (group commit), whichever stream they come from.
 *
 * A write that fails may have left part of a line: before the next write the file is cut back to what is known to be whole. The
 * file may be rotated by renaming it; the next write makes a new one.
 */
import { Fault } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import { type OpenStoreFile, openStoreFile, type StoreFile } from './store/file.ts';
import { type Recorded, recover } from './store/recover.ts';

export interface EventStore {
  /** Resolves when the lines are durable; rejects with Fault event_store_failed when they are not stored. */
  readonly append: (lines: readonly string[]) => Promise<void>;
  /** Why nothing can be stored now; undefined while all is well. */
  readonly problem: () => string | undefined;
  /** Finishes what was appended. */
  readonly close: () => Promise<void>;
}

export interface StoreOptions {
  readonly file: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Called for every event already in the file, before `openStore` resolves. */
  readonly onRecorded: (recorded: Recorded) => void;
  readonly open?: OpenStoreFile;
}

/** The store cannot be opened: for an operator, at start. */
export class StoreError extends Error {
  constructor(file: string, cause: unknown) {
    const { message } = cause as Error;
    super(`the event store ${file} cannot be opened: ${message}; choose a file in a directory that this user may write to.`, { cause });
    this.name = 'StoreError';
  }
}

interface Waiting {
  readonly bytes: Buffer;
  readonly resolve: () => void;
  readonly reject: (fault: Fault) => void;
}

export const openStore = async (options: StoreOptions): Promise<EventStore> => {
  const { file: path, clock, log, open = openStoreFile } = options;
  const { file: opened, length: openedLength } = await firstOpen(options, open);
  let file: StoreFile | undefined = opened;
  /** Bytes of whole, durable lines. */
  let length = openedLength;
  /** A write failed: there may be more in the file than `length`. */
  let isTorn = false;
  let isIntrusionLogged = false;
  let problem: string | undefined;
  let waiting: Waiting[] = [];
  let working: Promise<void> | undefined;
  let cancelRetry: (() => void) | undefined;

  /** The file that the path names, ending in a whole line. */
  const sound = async (): Promise<StoreFile> => {
    let size = await file?.size();
    if (file === undefined || size === undefined) {
      const old = file;
      file = undefined;
      await old?.close();
      file = await open(path);
      size = (await file.size()) ?? 0;
      length = 0;
      isTorn = false;
      log.info({ file: path }, 'the event store began a new file');
    }
    if (isTorn && size > length) await file.truncate(length);
    else if (size !== length) {
      if (!isIntrusionLogged) log.warn({ file: path, expectedBytes: length, bytes: size }, 'another program changed the event store');
      isIntrusionLogged = true;
      if (size > 0) await file.append(Buffer.from('\n')); // Not to continue its last line.
      length = size === 0 ? 0 : size + 1;
    }
    isTorn = false;
    return file;
  };

  const write = async (group: readonly Waiting[]): Promise<void> => {
    const bytes = Buffer.concat(group.map((w) => w.bytes));
    try {
      const target = await sound();
      isTorn = true;
      await target.append(bytes);
      await target.sync();
      isTorn = false;
      length += bytes.length;
      well();
      for (const { resolve } of group) resolve();
    } catch (error) {
      unwell(error);
      for (const { reject } of group) reject(new Fault('event_store_failed', { cause: error }));
    }
  };

  const well = (): void => {
    if (problem !== undefined) log.info({ file: path }, 'events can be stored again');
    problem = undefined;
  };

  const unwell = (error: unknown): void => {
    if (problem === undefined) log.error({ error, file: path }, 'events cannot be stored');
    problem = (error as NodeJS.ErrnoException).code ?? 'an error';
    cancelRetry?.();
    cancelRetry = clock.after(limits.eventStoreRetryMs, () => {
      if (problem !== undefined && working === undefined) working = alone(retry);
    });
  };

  /** Without traffic (a collector that is not ready gets none), only this finds out that the disk takes writes again. */
  const retry = async (): Promise<void> => {
    try {
      await (await sound()).probe();
      well();
    } catch (error) {
      unwell(error);
    }
  };

  /** One at a time: `before`, then everything that waits. No turn lies between the last look at `waiting` and the end. */
  const alone = async (before?: () => Promise<void>): Promise<void> => {
    await before?.();
    while (waiting.length > 0) {
      const group = groupOf(waiting);
      waiting = waiting.slice(group.length);
      await write(group);
    }
    working = undefined;
  };

  return {
    append: (lines) =>
      new Promise((resolve, reject) => {
        waiting.push({ bytes: Buffer.from(`${lines.join('\n')}\n`), resolve, reject });
        working ??= alone();
      }),
    problem: () => problem,
    close: async () => {
      cancelRetry?.();
      await working;
      cancelRetry?.();
      await file?.close();
    },
  };
};

/** The first of those that wait, as many as one sync should cover; at least one. */
const groupOf = (waiting: readonly Waiting[]): readonly Waiting[] => {
  let bytes = 0;
  const end = waiting.findIndex((w, i) => {
    bytes += w.bytes.length;
    return i > 0 && bytes > limits.eventCommitBytesMax;
  });
  return end < 0 ? waiting : waiting.slice(0, end);
};

/** Opens, reads what is there, cuts off a partial last line, and makes sure that a write would be durable. */
const firstOpen = async (options: StoreOptions, open: OpenStoreFile): Promise<{ file: StoreFile; length: number }> => {
  const { file: path, log, onRecorded } = options;
  let file: StoreFile | undefined;
  try {
    file = await open(path);
    const { events, unreadable, length, partialBytes } = await recover(path, onRecorded);
    if (partialBytes > 0) {
      await file.truncate(length);
      log.warn(
        { file: path, bytes: partialBytes },
        'the event store ended in the middle of a line; that was never acknowledged and is cut off',
      );
    }
    if (unreadable > 0)
      log.warn({ file: path, lines: unreadable }, 'the event store has lines that are not events; they stay and are skipped');
    await file.sync();
    await file.probe();
    log.info({ file: path, events }, 'the event store is open');
    return { file, length };
  } catch (error) {
    await file?.close();
    throw new StoreError(path, error);
  }
};
