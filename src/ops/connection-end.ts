/**
 * Ends of connections that nobody is told of. Who reads from one hears of its end; but nobody reads from a program whose body its target does
 * not take, and node:http2 from none that something waits to be written to: when that one is gone it drops the error of the write, too, and
 * the connection would stay for good.
 */
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { limits } from '../core/limits.ts';
import { type Clock, systemClock } from './clock.ts';

/**
 * Of a connection that was established: false once it is broken, by a reset or because nothing was acknowledged. Then the system names no peer
 * any more (getpeername, POSIX: ENOTCONN). An orderly end of the other side leaves the peer what it was.
 */
const hasPeer = (socket: Socket): boolean => {
  // Not part of Node's interface, whose remoteAddress remembers; but of every release there is.
  const handle = (socket as { _handle?: { readonly getpeername?: (out: object) => number | undefined } })._handle;
  // Nothing is known of one that is no socket of the system's underneath.
  return (handle?.getpeername?.({}) ?? 0) === 0;
};

/** Destroys a connection that is broken, at most this long after it broke. */
export const destroyWhenLost = (socket: Socket, lookMs: number = limits.lostLookMs, clock: Clock = systemClock): void => {
  let cancel = (): void => undefined;
  const look = (): void => {
    if (!hasPeer(socket)) return void socket.destroy();
    cancel = clock.after(lookMs, look);
  };
  cancel = clock.after(lookMs, look);
  socket.once('close', () => cancel());
};

/**
 * Ends a session of HTTP/2 by `end`, which closes or destroys it, and its connection a moment later, so that a goodbye may be written: by
 * itself node:http2 waits until the other side has taken all that was written before.
 */
export const endSession = (socket: Duplex, end: () => void): void => {
  end();
  if (socket.destroyed) return;
  const timer = setTimeout(() => socket.destroy(), limits.goodbyeTimeoutMs).unref();
  socket.once('close', () => clearTimeout(timer));
};
