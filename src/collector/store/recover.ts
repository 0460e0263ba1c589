/**
 * Reads the event store at start, as a stream: which events it has, and where its last whole line ends. A line that was being
 * written when the machine or the process died was never acknowledged: it is cut off, and its event comes again.
 */
import { createReadStream } from 'node:fs';
import { limits } from '../../core/limits.ts';
import { createLineSplitter } from '../lines.ts';

/** What names a stored event. */
export interface Recorded {
  readonly reporter: string;
  readonly bootId: string;
  readonly sequence: number;
}

export interface Recovery {
  readonly events: number;
  /** Lines that are not events: damage, or another program's. They stay. */
  readonly unreadable: number;
  /** Where the last whole line ends. */
  readonly length: number;
  /** Bytes after that. */
  readonly partialBytes: number;
}

export const recover = async (path: string, onEvent: (recorded: Recorded) => void): Promise<Recovery> => {
  const lines = createLineSplitter(limits.eventLineBytesMax);
  let size = 0;
  let events = 0;
  let unreadable = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 256 * 1024 })) {
    size += (chunk as Buffer).length;
    for (const line of lines.push(chunk as Buffer)) {
      if (line === '') continue;
      const recorded = line === undefined ? undefined : recordedIn(line);
      if (recorded === undefined) unreadable += 1;
      else {
        events += 1;
        onEvent(recorded);
      }
    }
  }
  const partialBytes = lines.pendingBytes();
  return { events, unreadable, length: size - partialBytes, partialBytes };
};

const recordedIn = (line: string): Recorded | undefined => {
  try {
    const { reporter, bootId, sequence } = JSON.parse(line) as Partial<Record<keyof Recorded, unknown>>;
    if (typeof reporter !== 'string' || typeof bootId !== 'string' || !Number.isSafeInteger(sequence)) return undefined;
    return { reporter, bootId, sequence: sequence as number };
  } catch {
    return undefined;
  }
};
