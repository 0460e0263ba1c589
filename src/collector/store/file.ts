/**
 * The file under the event store, as little of it as the store needs, so that a test can put a failing one in its place.
 * Mode 0600 in a directory of mode 0700: events name every destination of every workload.
 */
import { constants } from 'node:fs';
import { mkdir, open, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

export interface StoreFile {
  /** Appends all of `bytes`; rejects when not all could be written (some may have been). */
  append(bytes: Buffer): Promise<void>;
  /** Until this resolves, what was appended may be lost with the machine. */
  sync(): Promise<void>;
  truncate(length: number): Promise<void>;
  /** Length now; undefined when the path no longer names this file (removed, or renamed by log rotation). */
  size(): Promise<number | undefined>;
  /** Writes and syncs a little beside the file, to learn whether the disk takes writes again. */
  probe(): Promise<void>;
  close(): Promise<void>;
}

export type OpenStoreFile = (path: string) => Promise<StoreFile>;

export const openStoreFile: OpenStoreFile = async (path) => {
  const directory = dirname(path);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const handle = await open(path, constants.O_APPEND | constants.O_CREAT | constants.O_RDWR, 0o600);
  try {
    const { ino, dev, mode } = await handle.stat();
    if ((mode & 0o777) !== 0o600) await handle.chmod(0o600);
    // A new file's name is durable only with its directory.
    await syncDirectory(directory);
    return {
      append: async (bytes) => {
        for (let written = 0; written < bytes.length; ) {
          const { bytesWritten } = await handle.write(bytes, written, bytes.length - written);
          written += bytesWritten;
        }
      },
      sync: () => handle.datasync(),
      truncate: (length) => handle.truncate(length),
      size: async () => {
        const there = await stat(path).catch((error: NodeJS.ErrnoException) => {
          if (error.code === 'ENOENT') return undefined;
          throw error;
        });
        return there && there.ino === ino && there.dev === dev ? there.size : undefined;
      },
      probe: () => probe(`${path}.probe`),
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
};

const syncDirectory = async (directory: string): Promise<void> => {
  const handle = await open(directory, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
};

const probeBytes = 64 * 1024;

const probe = async (path: string): Promise<void> => {
  try {
    const handle = await open(path, 'w', 0o600);
    try {
      await handle.writeFile(Buffer.alloc(probeBytes));
      await handle.sync();
    } finally {
      await handle.close();
    }
  } finally {
    await rm(path, { force: true });
  }
};
