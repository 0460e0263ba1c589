/** Files that others read while they are written: whole or not at all, with exactly the mode that is asked for. */
import { closeSync, fchmodSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Replaces what has the name, a symbolic link too, rather than writing into it. Not synced to a disk: what is written here is for
 * the life of the pod.
 */
export const replaceFile = (file: string, content: string | Buffer, mode: number): void => {
  mkdirSync(dirname(file), { recursive: true, mode: (mode & 0o077) === 0 ? 0o700 : 0o755 });
  const draft = `${file}.new`;
  // One that was left by a process that was killed. "wx" writes into nothing that exists, and follows no link.
  rmSync(draft, { force: true });
  const descriptor = openSync(draft, 'wx', mode);
  try {
    // The umask takes bits away at creation.
    fchmodSync(descriptor, mode);
    writeFileSync(descriptor, content);
    renameSync(draft, file);
  } catch (error) {
    rmSync(draft, { force: true });
    throw error;
  } finally {
    closeSync(descriptor);
  }
};
