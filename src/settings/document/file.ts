/** The bytes of a configuration file as text, within their bound. */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs';
import { limits } from '../../core/limits.ts';

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file, check the path',
  EACCES: 'may not be read by this user, check its owner and mode',
  ENOTDIR: 'there is no such file, check the path',
  ELOOP: 'is a link that leads to itself',
};

export const readConfigurationFile = (file: string): { readonly text: string } | { readonly problem: string } => {
  try {
    const stat = statSync(file);
    if (stat.isDirectory()) return { problem: 'is a directory, name a file in it' };
    // A pipe is what a shell's <(…) gives; opening a device may never end.
    if (!stat.isFile() && !stat.isFIFO()) return { problem: 'is neither a file nor a pipe' };
    const bytes = readAtMost(file, limits.configurationBytesMax + 1);
    if (bytes.length > limits.configurationBytesMax) return { problem: `is larger than ${limits.configurationBytesMax} bytes` };
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes) };
  } catch (error) {
    const { code = '' } = error as { code?: string };
    if (code === 'ERR_ENCODING_INVALID_ENCODED_DATA') return { problem: 'is not UTF-8 text' };
    return { problem: reasons[code] ?? `cannot be read (${code || 'unknown reason'})` };
  }
};

/** Read to the end, or to `max`: a file's size is not asked, since a pipe has none. */
const readAtMost = (file: string, max: number): Buffer => {
  const descriptor = openSync(file, 'r');
  try {
    const bytes = Buffer.alloc(Math.min(max, Math.max(fstatSync(descriptor).size + 1, 64 * 1024)));
    const chunks: Buffer[] = [];
    let total = 0;
    while (total < max) {
      const count = readSync(descriptor, bytes, 0, Math.min(bytes.length, max - total), null);
      if (count === 0) break;
      chunks.push(Buffer.from(bytes.subarray(0, count)));
      total += count;
    }
    return Buffer.concat(chunks);
  } finally {
    closeSync(descriptor);
  }
};
