/**
 * A connection that node:http has let go of, for an upgrade or CONNECT, while it waits for the answer before it or for its own. Nobody would
 * notice that its program leaves, and nobody would say that there is room again for an answer. Knows sockets, nothing of HTTP.
 */
import type { Socket } from 'node:net';
import { limits } from '../../core/limits.ts';

export interface Aside {
  /** The connection is the caller's again, with what the program has sent meanwhile. */
  readonly take: () => Buffer;
}

type Listener = (...args: unknown[]) => void;

/** What node:http listens with for room in a connection that it has just been given: it takes this away together with its parser. */
export const drainListeners = (socket: Socket): readonly Listener[] => socket.listeners('drain') as Listener[];

/**
 * Reads what comes, up to a bound, so that the program's end is heard: then the connection is broken. `first` was read before. `onDrain`
 * are node:http's own, for an answer that is still on its way; `onTimeout` is told when nothing has moved for the socket's time limit.
 */
export const setAside = (socket: Socket, first: Buffer, onDrain: readonly Listener[], onTimeout: () => void): Aside => {
  const read: Buffer[] = [first];
  let bytes = first.length;
  const look = (): void => {
    // Beyond the bound it stays in the socket, whose own bound stops the program.
    while (bytes < limits.asideBytesMax) {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      read.push(chunk);
      bytes += chunk.length;
    }
  };
  const gone = (): void => void socket.destroy();
  socket.on('error', () => undefined);
  socket.on('readable', look);
  socket.once('end', gone);
  socket.on('timeout', onTimeout);
  for (const one of onDrain) socket.on('drain', one);
  look();
  return {
    take: () => {
      socket.off('readable', look);
      socket.off('end', gone);
      socket.off('timeout', onTimeout);
      for (const one of onDrain) socket.off('drain', one);
      return Buffer.concat(read.splice(0));
    },
  };
};
