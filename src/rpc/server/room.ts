/**
 * Room for connections whose client has not proved who it is. When it is full, the one that has been there the longest goes, if that is long
 * enough for what it came for; else whoever comes is turned away, so that a crowd of honest clients does not push each other out.
 */
import type { Clock } from '../../ops/clock.ts';

interface Guest {
  destroy(): unknown;
}

export interface Room {
  /** false: there is none. `name`: to leave by. */
  readonly enter: (name: string, guest: Guest) => boolean;
  readonly leave: (name: string) => void;
}

export const createRoom = (o: { readonly guestsMax: number; readonly reclaimMs: number; readonly clock: Clock }): Room => {
  /** In the order in which they came. */
  const guests = new Map<string, { readonly guest: Guest; readonly sinceMs: number }>();
  return {
    enter: (name, guest) => {
      const nowMs = o.clock.monotonic();
      const [oldest] = guests;
      if (guests.size >= o.guestsMax && oldest !== undefined) {
        if (nowMs - oldest[1].sinceMs < o.reclaimMs) return false;
        guests.delete(oldest[0]);
        oldest[1].guest.destroy();
      }
      guests.set(name, { guest, sinceMs: nowMs });
      return true;
    },
    leave: (name) => void guests.delete(name),
  };
};
