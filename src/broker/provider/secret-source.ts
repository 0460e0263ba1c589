/**
 * Secrets that operators mount or set: read at every use, so that a rotated one counts from the next use on. Bounded; the
 * problem names the source, never what is in it.
 */
import { constants, type FileHandle, open } from 'node:fs/promises';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import type { SecretSource } from '../../settings/broker.ts';

/** Most files end in a newline that is not part of the secret; more than one may be. */
const withoutTrailingNewline = (text: string): string => text.replace(/\r?\n$/, '');

export const sourceName = (source: SecretSource): string =>
  'file' in source ? `file ${source.file}` : `environment variable ${source.env}`;

/** Non-blocking, so that a FIFO in the place of a file is refused rather than waited for. */
const openForReading = (file: string): Promise<FileHandle> => open(file, constants.O_RDONLY | constants.O_NONBLOCK);

/** The file's bytes as Latin-1 (every byte is one character, so a check of characters is one of bytes). */
export const readSecretFile = async (file: string, bytesMax: number): Promise<string> => {
  const handle = await openForReading(file);
  try {
    if (!(await handle.stat()).isFile()) throw new Error('it is not a regular file');
    const buffer = Buffer.alloc(bytesMax + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length, null);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    if (length > bytesMax) throw new Error(`it is larger than ${bytesMax} bytes`);
    return withoutTrailingNewline(buffer.toString('latin1', 0, length));
  } finally {
    await handle.close();
  }
};

/** Throws Fault credential_unavailable. For keys and client secrets: `what` says which. */
export const readSecret = async (
  provider: string,
  what: string,
  source: SecretSource,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Secret> => {
  const missing = (cause?: unknown): Fault =>
    new Fault('credential_unavailable', {
      detail: `The ${what} of provider ${provider} cannot be read.`,
      cause: new Error(`${sourceName(source)} is missing, empty or unreadable`, { cause }),
    });
  let text: string | undefined;
  try {
    text =
      'file' in source
        ? Buffer.from(await readSecretFile(source.file, limits.credentialBytesMax), 'latin1').toString()
        : env[source.env] && withoutTrailingNewline(env[source.env] as string);
  } catch (error) {
    throw missing(error);
  }
  if (text === undefined || text === '') throw missing();
  return new Secret(text);
};
