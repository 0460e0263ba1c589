/**
 * Where accepted events wait for their acknowledgement. The interface is the seam for the crash-safe log on disk: event.ts
 * decides what is kept and numbers it, event/sender.ts reads and drops, and neither knows where events lie.
 */
import assert from 'node:assert/strict';
import type { AccessEvent } from '../../core/access-event.ts';

export interface EventQueue {
  size(): number;
  /** Appends the event that follows the last in sequence. The caller has made sure of a place. */
  append(event: AccessEvent): void;
  /** Up to `max` events that follow sequence `after`, in order; they stay. */
  peek(after: number, max: number): readonly AccessEvent[];
  /** Forgets every event up to and including `through`; returns how many. */
  drop(through: number): number;
}

/** A ring of `places` events in memory. */
export const createMemoryQueue = (places: number): EventQueue => {
  const ring: (AccessEvent | undefined)[] = Array.from({ length: places });
  let head = 0;
  let size = 0;
  /** Sequence of the event at `head`, or of the next one appended. */
  let first = 1;
  return {
    size: () => size,
    append: (event) => {
      assert(size < places, 'a place for the event');
      if (size === 0) first = event.sequence;
      assert.equal(event.sequence, first + size, 'sequence without gaps');
      ring[(head + size) % places] = event;
      size += 1;
    },
    peek: (after, max) => {
      const skipped = Math.max(0, after + 1 - first);
      const count = Math.max(0, Math.min(max, size - skipped));
      return Array.from({ length: count }, (_, i) => ring[(head + skipped + i) % places] as AccessEvent);
    },
    drop: (through) => {
      const count = Math.max(0, Math.min(size, through - first + 1));
      for (let i = 0; i < count; i += 1) ring[(head + i) % places] = undefined;
      head = (head + count) % places;
      size -= count;
      first += count;
      return count;
    },
  };
};
