/** Joins two connections until both ends are done: bytes both ways with back-pressure, half-closes kept, idle ones ended. */
import type { Socket } from 'node:net';
import { limits } from '../../core/limits.ts';

export interface Spliced {
  readonly fromClientBytes: number;
  readonly fromTargetBytes: number;
}

/** `head` is what the program sent after CONNECT and before our answer. Resolves when the tunnel is closed; never rejects. */
export const splice = (client: Socket, target: Socket, head: Buffer): Promise<Spliced> =>
  new Promise((resolve) => {
    let open = 2;
    const closed = (other: Socket) => (): void => {
      other.destroySoon();
      open -= 1;
      if (open === 0) resolve({ fromClientBytes: target.bytesWritten, fromTargetBytes: target.bytesRead });
    };
    for (const [one, other] of [
      [client, target],
      [target, client],
    ] as const) {
      one.setTimeout(limits.tunnelIdleTimeoutMs, () => one.destroy());
      one.on('error', () => other.destroy());
      one.once('close', closed(other));
    }
    if (head.length > 0) target.write(head);
    client.pipe(target);
    target.pipe(client);
  });
