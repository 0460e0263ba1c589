/**
 * Lines of a file that grows: from its beginning to its end now, and, to follow, what is appended later. Follows through
 * creation, rotation (another file under the name) and truncation. Looks four times a second rather than by fs.watch: that works
 * on every file system, and misses nothing.
 */
import { type FileHandle, open, stat } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { createLineSplitter } from '../../collector/lines.ts';
import { limits } from '../../core/limits.ts';

export interface TailListener {
  /** One line; undefined for one that is too long to be an event. */
  readonly line: (line: string | undefined) => Promise<void>;
  /** Everything there is has been given; after every look at the file. */
  readonly caughtUp: () => Promise<void>;
}

export class MissingFile extends Error {
  constructor(file: string) {
    super(
      `there is no ${file} yet. Start the demo with "npm start", or a collector, and send a request; ` +
        'or name the store of another collector with --file, or wait for it with --follow.',
    );
  }
}

const chunkBytes = 64 * 1024;
/** How much of a file's beginning is remembered, to tell a cut tail from new content under the same name. */
const beginningBytes = 512;

export const tail = async (path: string, follow: boolean, ended: AbortSignal, on: TailListener, lookIntervalMs = 250): Promise<void> => {
  const lines = createLineSplitter(limits.eventLineBytesMax);
  const buffer = Buffer.allocUnsafe(chunkBytes);
  let file: OpenFile | undefined;

  /** Gives every whole line from where we are to the end. */
  const readOn = async (from: OpenFile): Promise<void> => {
    while (!ended.aborted) {
      const { bytesRead } = await from.handle.read(buffer, 0, chunkBytes, from.offset);
      if (bytesRead === 0) return;
      from.offset += bytesRead;
      for (const line of lines.push(buffer.subarray(0, bytesRead))) {
        if (ended.aborted) return;
        await on.line(line);
      }
    }
  };

  /** One look: reads what is new; false when there is no file. */
  const look = async (): Promise<boolean> => {
    const there = await stat(path).catch(absent);
    if (file && (there?.ino !== file.ino || there.dev !== file.dev || (await isRemoved(file)))) {
      await readOn(file); // What was written before the file was renamed.
      await file.handle.close();
      file = undefined;
      lines.reset();
    }
    file ??= there && (await openFile(path));
    if (file === undefined) return false;
    if (await wasCut(file)) lines.reset();
    await readOn(file);
    file.beginning ||= await beginningOf(file.handle);
    await on.caughtUp();
    return true;
  };

  try {
    if (!(await look()) && !follow) throw new MissingFile(path);
    while (follow && !ended.aborted) {
      await pause(lookIntervalMs, undefined, { signal: ended }).catch(() => {});
      if (!ended.aborted) await look();
    }
  } finally {
    await file?.handle.close();
  }
};

interface OpenFile {
  readonly handle: FileHandle;
  readonly ino: number;
  readonly dev: number;
  offset: number;
  beginning: string;
}

/** Its number may then be another file's already. */
const isRemoved = async ({ handle }: OpenFile): Promise<boolean> => (await handle.stat()).nlink === 0;

const absent = (error: NodeJS.ErrnoException): undefined => {
  if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
  throw error;
};

const openFile = async (path: string): Promise<OpenFile | undefined> => {
  const handle = await open(path, 'r').catch(absent);
  if (handle === undefined) return undefined;
  const { ino, dev } = await handle.stat();
  return { handle, ino, dev, offset: 0, beginning: '' };
};

const beginningOf = async (handle: FileHandle): Promise<string> => {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(beginningBytes), 0, beginningBytes, 0);
  return buffer.toString('latin1', 0, bytesRead);
};

/** Whether the file has become shorter. New content is read from its start; a cut tail (a write that failed) is gone. */
const wasCut = async (file: OpenFile): Promise<boolean> => {
  const { size } = await file.handle.stat();
  if (size >= file.offset) return false;
  const beginning = await beginningOf(file.handle);
  const isSame = beginning !== '' && (beginning.startsWith(file.beginning) || file.beginning.startsWith(beginning));
  file.offset = isSame ? size : 0;
  if (!isSame) file.beginning = '';
  return true;
};
