/**
 * Joins two connections until both ends are done: bytes both ways with back-pressure, half-closes kept. An idle one is nobody's
 * business (database sessions, event streams): TCP keepalive finds the peers that are gone.
 */
import type { Duplex } from 'node:stream';

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
      // What was read is still delivered; then the other end goes too.
      if (other.writable) other.end(() => other.destroy());
      else other.destroy();
      open -= 1;
      if (open === 0) resolve(bytes);
    };
    for (const [one, other] of [
      [client, target],
      [target, client],
    ] as const) {
      one.on('error', () => other.destroy());
      if (one.destroyed) closed(other)();
      else one.once('close', closed(other));
    }
    if (head.length > 0) target.write(head);
    client.on('data', (chunk: Buffer) => void (bytes.fromClientBytes += chunk.length));
    target.on('data', (chunk: Buffer) => void (bytes.fromTargetBytes += chunk.length));
    client.pipe(target);
    target.pipe(client);
  });
