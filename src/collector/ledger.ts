/**
 * What is known of every proxy run: which of its events are stored, so that repeats are recognised and gaps seen. Bounded: the
 * runs not heard of for longest are forgotten, and a repeat from such a run would be stored twice.
 *
 * Work for one run is done one after another, also when it comes by two streams (a proxy that changes its certificate): an event
 * must not be taken for a repeat of one that is still being written, whose writing may fail.
 */
import { limits } from '../core/limits.ts';
import type { Clock } from '../ops/clock.ts';
import { forgetOldest, giveUp, giveUpAll, hasHoles, type Marks, markStored, marksFrom, type Range, storedThrough } from './marks.ts';

export interface Run {
  readonly reporter: string;
  readonly bootId: string;
}

export interface Ledger {
  /** Everything up to this sequence is stored; 0 for an unknown run. */
  readonly storedThrough: (run: Run) => number;
  /** Does `work` alone for its run; `first` is where an unknown run begins. */
  readonly exclusively: <T>(run: Run, first: number, work: (marks: Marks) => Promise<T>) => Promise<T>;
  /** A stored event, as read from the store at start. */
  readonly restore: (run: Run, sequence: number) => void;
  /** After the last restore: holes in the store are old and are given up; how many numbers are missing. */
  readonly restored: () => number;
  readonly size: () => number;
  readonly close: () => void;
}

export interface LedgerOptions {
  readonly clock: Clock;
  /** Numbers that have not arrived within the grace time. */
  readonly onMissing: (run: Run, holes: readonly Range[]) => void;
  readonly runsMax?: number;
}

interface Entry {
  readonly run: Run;
  readonly marks: Marks;
  /** Ends when all work so far is done; never rejects. */
  tail: Promise<unknown>;
  working: number;
}

const keyOf = ({ reporter, bootId }: Run): string => `${bootId} ${reporter}`;

export const createLedger = ({ clock, onMissing, runsMax = limits.eventReportersMax }: LedgerOptions): Ledger => {
  /** Least recently heard of first. */
  const entries = new Map<string, Entry>();
  /** Those with holes that may still be filled. */
  const incomplete = new Set<Entry>();
  let cancelSweep: (() => void) | undefined;

  const report = (entry: Entry, holes: readonly Range[]): void => {
    if (holes.length > 0) onMissing(entry.run, holes);
  };

  const sweep = (): void => {
    cancelSweep = undefined;
    for (const entry of incomplete) {
      report(entry, giveUp(entry.marks));
      if (!hasHoles(entry.marks)) incomplete.delete(entry);
    }
    if (incomplete.size > 0) cancelSweep = clock.after(limits.eventGapGraceMs, sweep);
  };

  const lookForHoles = (entry: Entry): void => {
    report(entry, forgetOldest(entry.marks, limits.eventGapsMax));
    if (!hasHoles(entry.marks)) return;
    incomplete.add(entry);
    cancelSweep ??= clock.after(limits.eventGapGraceMs, sweep);
  };

  const evict = (): void => {
    if (entries.size <= runsMax) return;
    for (const [key, entry] of entries) {
      if (entry.working > 0) continue;
      entries.delete(key);
      incomplete.delete(entry);
      report(entry, giveUpAll(entry.marks));
      return;
    }
  };

  const entryOf = (run: Run, first: number): Entry => {
    const key = keyOf(run);
    const entry = entries.get(key) ?? { run, marks: marksFrom(first), tail: Promise.resolve(), working: 0 };
    entries.delete(key);
    entries.set(key, entry);
    return entry;
  };

  return {
    storedThrough: (run) => {
      const entry = entries.get(keyOf(run));
      return entry ? storedThrough(entry.marks) : 0;
    },
    exclusively: async (run, first, work) => {
      const entry = entryOf(run, first);
      entry.working += 1;
      evict();
      const result = entry.tail.then(() => work(entry.marks));
      entry.tail = result.catch(() => {}); // The caller gets the failure; the next in line must not.
      try {
        return await result;
      } finally {
        entry.working -= 1;
        lookForHoles(entry);
      }
    },
    restore: (run, sequence) => {
      const entry = entryOf(run, sequence);
      markStored(entry.marks, sequence);
      forgetOldest(entry.marks, limits.eventGapsMax);
      evict();
    },
    restored: () => {
      let missing = 0;
      for (const { marks } of entries.values()) missing += countOf(giveUpAll(marks));
      return missing;
    },
    size: () => entries.size,
    close: () => cancelSweep?.(),
  };
};

export const countOf = (holes: readonly Range[]): number => holes.reduce((sum, { from, to }) => sum + to - from + 1, 0);
