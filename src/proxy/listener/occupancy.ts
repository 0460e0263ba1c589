/**
 * Who is connected, within a bound. When it is reached, whoever has kept us waiting the longest makes room: a connection without a
 * request, a body that does not come, an answer that nobody reads. Nobody is closed for being slow while there is room, nobody who waits
 * for us ever. Knows sockets; what each is in the middle of it asks the engines.
 */
import type { Socket } from 'node:net';
import { limits } from '../../core/limits.ts';
import type { Patience } from './connection.ts';

/**
 * What a connection is in the middle of. new: it has not asked for anything; idle: between requests; sending: a request body that does not come;
 * reading: an answer that is not read; stuck: a body that the target does not take; waiting: it waits for us, or is joined to a target.
 */
export type Standing = 'new' | 'idle' | 'sending' | 'reading' | 'stuck' | 'waiting';

export type Closure = 'connections_idle' | 'connections_slow';

export interface OccupancyOptions {
  readonly max: number;
  readonly patience: Pick<Patience, 'idleReclaimMs' | 'slowReclaimMs'>;
  /** Monotonic ms. */
  readonly now: () => number;
  readonly standingOf: (socket: Socket) => Standing;
  readonly onClosed: (why: Closure) => void;
}

export interface Occupancy {
  /** Takes it in, if need be in the place of others; false: there is no room. */
  readonly admit: (socket: Socket) => boolean;
  readonly has: (socket: Socket) => boolean;
  readonly sockets: () => Iterable<Socket>;
  /** Whether somebody is connected, or was within this time: who comes and goes comes again. */
  readonly wasUsedWithin: (ms: number) => boolean;
  /** While it is set, the connection waits for us whatever the engines say: a CONNECT that is being answered, a tunnel. */
  readonly hold: (socket: Socket, isHeld: boolean) => void;
  /**
   * Closes some that have kept us waiting, the longest first; returns how many it has chosen. While memory is short, `slowMs` is
   * how long slow ones are borne, and bodies that a target does not take count as slow.
   */
  readonly makeRoom: (slowMs?: number) => number;
  /** What is idle now and has said nothing when `closeQuiet` comes is closed by it. */
  readonly remember: () => void;
  readonly closeQuiet: () => void;
  readonly closeAll: () => void;
}

interface Place {
  readonly socket: Socket;
  isHeld: boolean;
  /** Chosen to make room. */
  isLeaving: boolean;
  /** Bytes either way when it was last looked at. */
  readBytes: number;
  writtenBytes: number;
  lookedAtMs: number;
  /** It has kept us waiting since then. */
  sinceMs: number;
}

export const createOccupancy = ({ max, patience, now: clock, standingOf, onClosed }: OccupancyOptions): Occupancy => {
  const places = new Map<Socket, Place>();
  let timer: NodeJS.Timeout | undefined;
  /** While it is crowded: how long we ourselves stood still, or had no processor. Who could not be heard then has not kept us waiting. */
  let stalledMs = 0;
  /** The time that counts against others. It goes back by what has been found to be a stall. */
  const now = (): number => clock() - stalledMs;
  /** Of the places, those that are being given up: whoever comes need not wait for that. */
  let leaving = 0;
  let isSearchedAgainAtMs = 0;
  let leftAtMs = Number.NEGATIVE_INFINITY;

  const look = (place: Place, at: number): Standing => {
    const { socket } = place;
    const standing = place.isHeld ? 'waiting' : standingOf(socket);
    if (hasMoved(place, standing, at)) place.sinceMs = at;
    place.readBytes = socket.bytesRead;
    place.writtenBytes = socket.bytesWritten;
    place.lookedAtMs = at;
    return standing;
  };
  /** Only when it begins to be crowded: what is looked at costs a microsecond each. */
  const watch = (): void => {
    if (timer !== undefined || places.size <= max / 2) return;
    let dueAt = performance.now() + tickMs;
    let ticks = 0;
    timer = setInterval(() => {
      const at = performance.now();
      if (at - dueAt > tickMs) stalledMs += at - dueAt;
      dueAt = at + tickMs;
      ticks += 1;
      if (ticks % ticksPerLook > 0) return;
      for (const place of places.values()) look(place, now());
      if (places.size > max / 2) return;
      clearInterval(timer);
      timer = undefined;
    }, tickMs).unref();
  };
  const search = (slowMs: number, isShort: boolean): { readonly place: Place; readonly standing: Standing }[] => {
    const at = now();
    const found: { readonly place: Place; readonly standing: Standing }[] = [];
    for (const place of places.values()) {
      const standing = place.isLeaving ? 'waiting' : look(place, at);
      if (standing === 'waiting' || (standing === 'stuck' && !isShort)) continue;
      const isSlow = standing !== 'new' && standing !== 'idle';
      if (at - place.sinceMs >= (isSlow ? slowMs : patience.idleReclaimMs)) found.push({ place, standing });
    }
    // Who has behaved and is between two requests goes last.
    const rank = (standing: Standing): number => (standing === 'idle' ? 1 : 0);
    found.sort((one, other) => rank(one.standing) - rank(other.standing) || one.place.sinceMs - other.place.sinceMs);
    return found.slice(0, Math.ceil(max / batches));
  };
  const makeRoom = (slowMs: number, isShort = false): number => {
    const chosen = search(slowMs, isShort);
    for (const { place } of chosen) {
      place.isLeaving = true;
      leaving += 1;
    }
    // What they had sent by now is read in this turn of the loop: one that has spoken after all stays.
    setImmediate(() =>
      setImmediate(() => {
        for (const { place, standing } of chosen) {
          const { socket, readBytes } = place;
          place.isLeaving = false;
          leaving -= 1;
          const hasSpoken = standing !== 'reading' && socket.bytesRead !== readBytes;
          if (!places.has(socket) || place.isHeld || (hasSpoken && (standing === 'idle' || standingOf(socket) !== standing))) continue;
          onClosed(standing === 'new' || standing === 'idle' ? 'connections_idle' : 'connections_slow');
          places.delete(socket);
          socket.destroy();
        }
      }),
    );
    return chosen.length;
  };

  return {
    admit: (socket) => {
      if (places.size - leaving >= max) {
        const at = clock();
        if (at < isSearchedAgainAtMs) return false;
        // Slow ones have their grace as long as there is somebody else.
        if (makeRoom(patience.slowReclaimMs) === 0 && makeRoom(Math.min(patience.slowReclaimMs, limits.clientSlowCrowdedMs)) === 0) {
          isSearchedAgainAtMs = at + searchPauseMs;
          return false;
        }
      }
      const at = now();
      places.set(socket, { socket, isHeld: false, isLeaving: false, readBytes: 0, writtenBytes: 0, lookedAtMs: at, sinceMs: at });
      socket.once('close', () => {
        places.delete(socket);
        leftAtMs = clock();
      });
      watch();
      return true;
    },
    has: (socket) => places.has(socket),
    sockets: () => places.keys(),
    wasUsedWithin: (ms) => places.size > 0 || clock() - leftAtMs < ms,
    hold: (socket, isHeld) => {
      const place = places.get(socket);
      if (!place) return;
      place.isHeld = isHeld;
      place.sinceMs = now();
    },
    makeRoom: (slowMs) => makeRoom(slowMs ?? patience.slowReclaimMs, slowMs !== undefined),
    remember: () => {
      for (const place of places.values()) look(place, now());
    },
    closeQuiet: () => {
      for (const { socket, isHeld, readBytes } of places.values())
        if (!isHeld && socket.bytesRead === readBytes && ['idle', 'new'].includes(standingOf(socket))) socket.destroy();
    },
    closeAll: () => {
      for (const socket of places.keys()) socket.destroy();
    },
  };
};

/** Whether it did since the last look what it is waited for. Between requests only an answer of ours shows that there was one. */
const hasMoved = ({ socket, readBytes, writtenBytes, lookedAtMs }: Place, standing: Standing, at: number): boolean => {
  const enough = (limits.clientSlowBytesPerSecond * (at - lookedAtMs)) / 1_000;
  if (standing === 'waiting') return true;
  if (standing === 'idle' || standing === 'new') return socket.bytesWritten > writtenBytes;
  const moved = standing === 'sending' || standing === 'stuck' ? socket.bytesRead - readBytes : socket.bytesWritten - writtenBytes;
  return moved > 0 && moved >= enough;
};

const tickMs = 50;
const ticksPerLook = 20;
/** Closed at a time: enough that a flood of new connections does not search for each of its own. */
const batches = 16;
/** When nobody could be closed, the next of a flood is turned away without a search. */
const searchPauseMs = 50;
