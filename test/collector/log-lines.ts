/** A log whose lines a test can look at. */
import { createLog, type Log } from '../../src/ops/log.ts';

export const logLines = (): { readonly lines: Record<string, unknown>[]; readonly log: Log } => {
  const lines: Record<string, unknown>[] = [];
  const log = createLog({
    role: 'collector',
    level: 'debug',
    write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>),
  });
  return { lines, log };
};
