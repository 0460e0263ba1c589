/**
 * Who may see what of the store: a workload its own events, as the connection that they came by names it. Reads the end of the file and no
 * more than that, a few at a time, because anyone with an identity may ask.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { Fault } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import type { EventQuery, FoundEvents } from '../rpc/server.ts';
import { createLineSplitter } from './lines.ts';

/** Faults overloaded, event_store_failed. */
export type FindEvents = (caller: { readonly spiffeId: string }, query: EventQuery) => Promise<FoundEvents>;

export const createFinder = (file: string): FindEvents => {
  let underWay = 0;
  return async ({ spiffeId }, query) => {
    if (underWay >= limits.findsMax) throw new Fault('overloaded', { detail: 'Others are reading the events.' });
    underWay += 1;
    try {
      return await find(file, spiffeId, query);
    } catch (error) {
      throw new Fault('event_store_failed', { cause: error });
    } finally {
      underWay -= 1;
    }
  };
};

const find = async (file: string, reporter: string, query: EventQuery): Promise<FoundEvents> => {
  const matches = matcherOf(reporter, query);
  await using handle = await open(file, 'r');
  const { size } = await handle.stat();
  const start = Math.max(0, size - limits.findBytesMax);
  let found: string[] = [];
  let bytes = 0;
  let isComplete = start === 0;
  for await (const line of linesFrom(handle, start)) {
    if (!matches(line)) continue;
    found.push(line);
    bytes += Buffer.byteLength(line);
    while (found.length > query.limit || bytes > limits.foundBytesMax) {
      bytes -= Buffer.byteLength(found[0] as string);
      found = found.slice(1);
      isComplete = false;
    }
  }
  return { events: found, isComplete };
};

/** Whole lines: what the start cuts through is none. */
async function* linesFrom(handle: FileHandle, start: number): AsyncGenerator<string> {
  const lines = createLineSplitter(limits.foundBytesMax);
  const buffer = Buffer.allocUnsafe(limits.findChunkBytes);
  let isCut = start > 0;
  for (let offset = start; ; ) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, offset);
    if (bytesRead === 0) return;
    offset += bytesRead;
    for (const line of lines.push(buffer.subarray(0, bytesRead))) {
      if (!isCut && line !== undefined) yield line;
      isCut = false;
    }
    await pause(limits.findChunkPauseMs);
  }
}

const matcherOf = (reporter: string, { target, traceId }: EventQuery): ((line: string) => boolean) => {
  const wanted = Object.entries({ reporter, target, traceId }).filter(([, value]) => value !== '');
  // Most lines are of others: reading them all as JSON would cost a hundred times as much.
  const quick = JSON.stringify(reporter);
  return (line) => {
    if (!line.includes(quick)) return false;
    try {
      const event = JSON.parse(line) as Readonly<Record<string, unknown>>;
      return wanted.every(([name, value]) => event[name] === value);
    } catch {
      return false;
    }
  };
};
