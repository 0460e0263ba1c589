/** How a connection is left after a last answer, so that its program reads that rather than a reset. Knows sockets, nothing of HTTP. */
import type { Socket } from 'node:net';
import { limits } from '../../core/limits.ts';

/** Ends our side and drops what still comes for a moment, so that the program reads the answer rather than a reset (THREATS F-3). */
export const leave = (socket: Socket, last: Buffer | string = ''): void => {
  socket.end(last);
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), limits.earlyAnswerDrainMs);
  socket.once('close', () => clearTimeout(timer));
};
