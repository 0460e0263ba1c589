/** What the system allows this process, from /proc (Linux); undefined elsewhere. Node has no call for it. */
import { readFileSync } from 'node:fs';

export interface ProcessLimits {
  /** Descriptors: files, sockets. Infinity where there is none. */
  readonly openFiles: number;
  /** Bytes of a core file; 0: none is written. */
  readonly coreBytes: number;
}

export const processLimits = (file = '/proc/self/limits'): ProcessLimits | undefined => {
  try {
    return readLimits(readFileSync(file, 'utf8'));
  } catch {
    return undefined;
  }
};

/** The soft limits, which are what counts. */
export const readLimits = (text: string): ProcessLimits => {
  const of = (name: string): number => {
    const found = new RegExp(`^${name}\\s+(\\d+|unlimited)`, 'm').exec(text)?.[1];
    return found === undefined || found === 'unlimited' ? Number.POSITIVE_INFINITY : Number(found);
  };
  return { openFiles: of('Max open files'), coreBytes: of('Max core file size') };
};
