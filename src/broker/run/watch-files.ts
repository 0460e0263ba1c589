/**
 * Notices that files have changed by reading them, not by file events: mounted ConfigMaps and Secrets are swapped by renaming
 * a symbolic link above them (`..data`), which watchers of the file miss, and network file systems send no events at all.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';

export interface FileWatch {
  /** Settles when the poll under way has ended. */
  readonly close: () => Promise<void>;
}

/** A hash of the content, or why there is none. Secrets may be among the files: no content is kept. */
const signatureOf = async (file: string): Promise<string> => {
  try {
    return createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
  } catch (error) {
    return (error as { code?: string }).code ?? 'unreadable';
  }
};

/**
 * Calls `changed` whenever the content of one of `files()` is another than at the poll before, and when a file is new to the
 * list: whoever named it read it at some moment before, so it may have changed since. `changed` must do nothing when nothing has.
 */
export const watchFiles = (files: () => readonly string[], clock: Clock, changed: () => void): FileWatch => {
  let known = new Map<string, string>();
  let isClosed = false;
  let cancel = (): void => undefined;
  const poll = async (): Promise<void> => {
    const now = new Map(await Promise.all(files().map(async (file) => [file, await signatureOf(file)] as const)));
    const isChanged = [...now].some(([file, signature]) => known.get(file) !== signature);
    // Taken before `changed` reads the files: what changes in between is seen by the next poll.
    known = now;
    if (isChanged && !isClosed) changed();
    if (!isClosed) cancel = clock.after(limits.configurationPollMs, () => void (polling = poll()));
  };
  let polling = poll();
  return {
    close: () => {
      isClosed = true;
      cancel();
      return polling;
    },
  };
};
