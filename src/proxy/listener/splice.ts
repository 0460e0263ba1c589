/**
 * Joins two connections until both ends are done: bytes both ways with back-pressure, half-closes kept, a reset passed on as one. An idle
 * one is nobody's business (database sessions, event streams): TCP keepalive finds the peers that are gone.
 */
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { limits } from '../../core/limits.ts';

export interface Spliced {
  readonly fromClientBytes: number;
  readonly fromTargetBytes: number;
}

/** `head` is what the program sent after CONNECT and before our answer. Resolves when the tunnel is closed; never rejects. */
export const splice = (client: Duplex, target: Duplex, head: Buffer): Promise<Spliced> =>
  new Promise((resolve) => {
    let open = 2;
    const bytes = { fromClientBytes: head.length, fromTargetBytes: 0 };
    const closed = (other: Duplex) => (): void => {
      finish(other);
      open -= 1;
      if (open === 0) resolve(bytes);
    };
    for (const [one, other] of [
      [client, target],
      [target, client],
    ] as const) {
      // One side may be done while the other goes on, whatever the connection was opened for.
      one.allowHalfOpen = true;
      one.on('error', () => breakOff(other));
      if (one.destroyed) closed(other)();
      else one.once('close', closed(other));
    }
    if (head.length > 0) target.write(head);
    client.on('data', (chunk: Buffer) => void (bytes.fromClientBytes += chunk.length));
    target.on('data', (chunk: Buffer) => void (bytes.fromTargetBytes += chunk.length));
    client.pipe(target);
    target.pipe(client);
  });

/** The other end is gone in good order: what was read is still delivered, within a bound, then this one goes too. */
const finish = (socket: Duplex): void => {
  if (socket.destroyed) return;
  const timer = setTimeout(() => socket.destroy(), limits.tunnelFlushTimeoutMs);
  socket.once('close', () => clearTimeout(timer));
  // Also ended already, with bytes that are still on their way out.
  if (socket.writableFinished) socket.destroy();
  else socket.once('finish', () => socket.destroy());
  socket.end();
};

/** A reset stays one: to a protocol without an end of its own an orderly close would be a whole message. TLS tells by what is missing. */
const breakOff = (socket: Duplex): void => {
  if (socket instanceof Socket && !(socket instanceof TLSSocket)) socket.resetAndDestroy();
  else socket.destroy();
};
