/** Programs that behave, at a steady rate, on connections they keep and on new ones; and what they met with. */
import type { Socket } from 'node:net';
import { dial, exchange, wholeResponse } from '../../support/path.ts';

export interface Good {
  readonly sent: () => number;
  readonly failures: readonly string[];
  /**
   * Requests sent a second time, on a new connection: GETs on a kept one that was closed at the same moment, without a byte of an answer. HTTP/1.1 has no
   * way to tell, so that clients repeat them (RFC 9112 section 9.3.1), as curl, Go and Java do.
   */
  readonly repeated: () => number;
  /** Of answered requests, ms: the share `q` was quicker. */
  readonly quantile: (q: number) => number;
  readonly stop: () => Promise<void>;
}

/** A request that is not answered 200 within this is a failed one. */
const patienceMs = 10_000;

/**
 * One that was closed while nobody used it is no loss. It is looked at before it is written to, as curl, urllib3 and Go do: this process may
 * have stood still, and what came meanwhile is read only after the timers have run.
 */
const stillOpen = async (kept: Socket[]): Promise<Socket | undefined> => {
  for (let socket = kept.pop(); socket; socket = kept.pop()) {
    await new Promise((resolve) => setImmediate(resolve));
    if (!socket.destroyed && !socket.readableEnded) return socket;
  }
  return undefined;
};

export const startGood = (port: number, host: string, perSecond: number): Good => {
  const failures: string[] = [];
  const tookMs: number[] = [];
  const kept: Socket[] = [];
  const underWay = new Set<Promise<void>>();
  let sent = 0;
  let repeated = 0;
  const ask = async (socket: Socket, fields: string): Promise<string> => {
    const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), patienceMs);
    try {
      return await exchange(socket, `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n`, wholeResponse);
    } finally {
      clearTimeout(timer);
    }
  };
  const once = async (isFresh: boolean): Promise<void> => {
    const startedAt = performance.now();
    const fields = isFresh ? 'Connection: close\r\n' : '';
    try {
      const known = isFresh ? undefined : await stillOpen(kept);
      let socket = known ?? (await dial(port));
      let text = await ask(socket, fields);
      if (known && text === '') {
        repeated += 1;
        socket = await dial(port);
        text = await ask(socket, fields);
      }
      tookMs.push(performance.now() - startedAt);
      if (!text.startsWith('HTTP/1.1 200 ')) failures.push(text === '' ? 'closed without an answer' : text.slice(0, 400));
      if (!isFresh && wholeResponse(text) && !/\r\nconnection: close/i.test(text)) kept.push(socket);
      else socket.destroy();
    } catch (error) {
      failures.push((error as Error).message);
    }
  };
  const startedAt = performance.now();
  const timer = setInterval(() => {
    // What is due by now, should a tick have been late.
    while (sent < ((performance.now() - startedAt) / 1_000) * perSecond) {
      sent += 1;
      const one = once(sent % 5 === 0);
      underWay.add(one);
      void one.then(() => underWay.delete(one));
    }
  }, 5);
  return {
    sent: () => sent,
    failures,
    repeated: () => repeated,
    quantile: (q) => tookMs.toSorted((a, b) => a - b)[Math.floor(q * (tookMs.length - 1))] ?? Number.NaN,
    stop: async () => {
      clearInterval(timer);
      await Promise.all(underWay);
      for (const socket of kept) socket.destroy();
    },
  };
};
