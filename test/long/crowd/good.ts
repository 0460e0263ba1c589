/** Programs that behave, at a steady rate, on connections they keep and on new ones; and what they met with. */
import type { Socket } from 'node:net';
import { dial, exchange, wholeResponse } from '../../support/path.ts';

export interface Good {
  readonly sent: () => number;
  readonly failures: readonly string[];
  /** Of answered requests, ms: the share `q` was quicker. */
  readonly quantile: (q: number) => number;
  readonly stop: () => Promise<void>;
}

/** A request that is not answered 200 within this is a failed one. */
const patienceMs = 10_000;

export const startGood = (port: number, host: string, perSecond: number): Good => {
  const failures: string[] = [];
  const tookMs: number[] = [];
  const kept: Socket[] = [];
  const underWay = new Set<Promise<void>>();
  let sent = 0;
  const once = async (isFresh: boolean): Promise<void> => {
    const startedAt = performance.now();
    let socket: Socket | undefined;
    let timer: NodeJS.Timeout | undefined;
    let isKept = false;
    try {
      socket = isFresh ? undefined : kept.pop();
      // One that was closed while nobody used it is no loss.
      while (socket && (socket.destroyed || socket.readableEnded)) socket = kept.pop();
      socket ??= await dial(port);
      const opened = socket;
      isKept = opened.bytesWritten > 0;
      timer = setTimeout(() => opened.destroy(), patienceMs);
      const fields = isFresh ? 'Connection: close\r\n' : '';
      const text = await exchange(opened, `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n`, wholeResponse);
      tookMs.push(performance.now() - startedAt);
      if (!text.startsWith('HTTP/1.1 200 '))
        failures.push(text === '' ? `closed without an answer, ${isKept ? 'kept' : 'fresh'}` : text.slice(0, 400));
      if (!isFresh && wholeResponse(text) && !/\r\nconnection: close/i.test(text)) kept.push(opened);
      else opened.destroy();
    } catch (error) {
      failures.push(`${(error as Error).message}, ${isKept ? 'kept' : 'fresh'}`);
      socket?.destroy();
    } finally {
      clearTimeout(timer);
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
    quantile: (q) => tookMs.toSorted((a, b) => a - b)[Math.floor(q * (tookMs.length - 1))] ?? Number.NaN,
    stop: async () => {
      clearInterval(timer);
      await Promise.all(underWay);
      for (const socket of kept) socket.destroy();
    },
  };
};
