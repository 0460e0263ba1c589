/**
 * Which sequence numbers of one proxy run are stored: a few ranges, since events come in order but for gaps and late arrivals.
 * Pure bookkeeping; the ledger holds one Marks for each (reporter, boot id) and decides when a gap has waited long enough.
 */
import assert from 'node:assert/strict';

export interface Range {
  readonly from: number;
  readonly to: number;
}

export interface Marks {
  /** Ascending, apart from each other by at least one number. The first may be empty (`to = from - 1`): where counting began. */
  ranges: Range[];
  /** Holes up to here are given up: counted as missing, and no longer held against an acknowledgement. */
  givenUpThrough: number;
  /** Holes up to here were there at the last look (see `giveUp`). */
  seenThrough: number;
}

/** Nothing stored yet of a run whose first event offered is `first`. What came before it, if anything, is not known. */
export const marksFrom = (first: number): Marks => ({
  ranges: [{ from: first, to: first - 1 }],
  givenUpThrough: first - 1,
  seenThrough: first - 1,
});

const lastOf = ({ ranges }: Marks): Range => {
  const last = ranges.at(-1);
  assert(last !== undefined, 'marks have a range');
  return last;
};

export const isStored = ({ ranges }: Marks, sequence: number): boolean => {
  const range = ranges.findLast(({ from }) => from <= sequence);
  return range !== undefined && sequence <= range.to;
};

/** Marks one number as stored. */
export const markStored = (marks: Marks, sequence: number): void => {
  const { ranges } = marks;
  const before = ranges.findLastIndex(({ from }) => from <= sequence);
  const left = ranges[before];
  const right = ranges[before + 1];
  if (left !== undefined && sequence <= left.to) return;
  const joinsLeft = left !== undefined && sequence === left.to + 1;
  const joinsRight = right !== undefined && sequence === right.from - 1;
  const from = joinsLeft ? left.from : sequence;
  const to = joinsRight ? right.to : sequence;
  ranges.splice(joinsLeft ? before : before + 1, (joinsLeft ? 1 : 0) + (joinsRight ? 1 : 0), { from, to: Math.max(to, sequence) });
};

/** Every number up to this one, where counting began, is stored or given up: what may be acknowledged. */
export const storedThrough = (marks: Marks): number => {
  const end = marks.ranges.findIndex((_, i) => (marks.ranges[i + 1]?.from ?? Number.POSITIVE_INFINITY) - 1 > marks.givenUpThrough);
  return (marks.ranges[end] as Range).to;
};

const holesOf = (marks: Marks, through: number): Range[] =>
  marks.ranges.slice(1).flatMap(({ from }, i) => {
    const hole = { from: (marks.ranges[i] as Range).to + 1, to: from - 1 };
    return hole.to > marks.givenUpThrough && hole.to <= through ? [hole] : [];
  });

/** Whether a number is missing below one that is stored, and not given up. */
export const hasHoles = (marks: Marks): boolean => holesOf(marks, Number.POSITIVE_INFINITY).length > 0;

/** Gives up every hole now; returns them. */
export const giveUpAll = (marks: Marks): readonly Range[] => {
  const holes = holesOf(marks, Number.POSITIVE_INFINITY);
  marks.givenUpThrough = Math.max(marks.givenUpThrough, lastOf(marks).from - 1);
  return holes;
};

/** Gives up the holes that were there at the last call already, so that each waits for one to two intervals; returns them. */
export const giveUp = (marks: Marks): readonly Range[] => {
  const holes = holesOf(marks, marks.seenThrough);
  marks.givenUpThrough = Math.max(marks.givenUpThrough, marks.seenThrough);
  marks.seenThrough = lastOf(marks).from - 1;
  return holes;
};

/** Forgets the oldest holes until at most `rangesMax` ranges are left; returns those not given up before. */
export const forgetOldest = (marks: Marks, rangesMax: number): readonly Range[] => {
  const excess = marks.ranges.length - rangesMax;
  if (excess <= 0) return [];
  const forgotten = marks.ranges.slice(0, excess + 1);
  const last = forgotten.at(-1) as Range;
  const holes = holesOf(marks, last.from - 1);
  marks.ranges.splice(0, excess + 1, { from: (forgotten[0] as Range).from, to: last.to });
  marks.givenUpThrough = Math.max(marks.givenUpThrough, last.from - 1);
  return holes;
};
