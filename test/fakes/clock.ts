/** A clock that stands still until a test moves it. Timers fire while it moves, in order, each at its own time. */
import type { Clock } from '../../src/ops/clock.ts';

export interface FakeClock extends Clock {
  readonly advance: (ms: number) => void;
  /** Timers that have not fired. */
  readonly waiting: () => number;
  /** Sets the wall clock forward or back; the monotonic one and its timers know nothing of it. */
  readonly setWall: (byMs: number) => void;
  /** The wall clock stands still while the monotonic one goes on, or goes on from where it stood. */
  readonly freezeWall: (isFrozen: boolean) => void;
}

export const createFakeClock = (startMs = Date.now()): FakeClock => {
  let elapsedMs = 0;
  let nextId = 0;
  let wallShiftMs = 0;
  let frozenAtMs: number | undefined;
  const wall = (): number => frozenAtMs ?? startMs + elapsedMs + wallShiftMs;
  const timers = new Map<number, { readonly atMs: number; readonly callback: () => void }>();
  const due = (untilMs: number): [number, { atMs: number; callback: () => void }] | undefined =>
    [...timers].filter(([, { atMs }]) => atMs <= untilMs).toSorted(([a, x], [b, y]) => x.atMs - y.atMs || a - b)[0];
  return {
    now: wall,
    monotonic: () => elapsedMs,
    after: (ms, callback) => {
      const id = nextId++;
      timers.set(id, { atMs: elapsedMs + Math.max(ms, 0), callback });
      return () => void timers.delete(id);
    },
    advance: (ms) => {
      const untilMs = elapsedMs + ms;
      for (let next = due(untilMs); next; next = due(untilMs)) {
        const [id, { atMs, callback }] = next;
        timers.delete(id);
        elapsedMs = atMs;
        callback();
      }
      elapsedMs = untilMs;
    },
    waiting: () => timers.size,
    setWall: (byMs) => {
      wallShiftMs += byMs;
      if (frozenAtMs !== undefined) frozenAtMs += byMs;
    },
    freezeWall: (isFrozen) => {
      if (isFrozen) frozenAtMs ??= wall();
      else if (frozenAtMs !== undefined) {
        wallShiftMs = frozenAtMs - startMs - elapsedMs;
        frozenAtMs = undefined;
      }
    },
  };
};
