/**
 * The engine for HTTP/2 (RFC 9113): sessions with one destination, streams spread over them up to what the target allows, more sessions
 * when they are full, none when they are idle. Which stream goes where is decided here; what happens on it in h2-stream.ts, how a
 * session lives in h2-session.ts.
 */
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { OutboundRequest } from '../outbound.ts';
import { type Elsewhere, type Engine, isRefusal, type Open, type Patience } from './engine.ts';
import { openSession, type TargetSession } from './h2-session.ts';
import { runStream } from './h2-stream.ts';
import { mishap } from './mishap.ts';
import type { Reception } from './reception.ts';

interface Waiting {
  readonly request: OutboundRequest;
  readonly reception: Reception;
  readonly elsewhere: Elsewhere | undefined;
  /** The session that did not process it the first time: not to be tried again. */
  readonly refusedBy: TargetSession | undefined;
}

export const createH2 = (open: Open, patience: Patience): Engine => {
  const sessions = new Set<TargetSession>();
  const waiting = new Set<Waiting>();
  const abandoned = new AbortController();
  let isConnecting = false;
  let isRetired = false;
  let onEmpty: () => void = () => undefined;

  const emptied = (): void => {
    if (sessions.size === 0 && !isConnecting && waiting.size === 0) onEmpty();
  };
  const closed = (): Promise<void> =>
    new Promise((resolve) => {
      onEmpty = resolve;
      emptied();
    });

  /** Gives waiting requests to sessions with room, and opens one more session when that is not enough. */
  const serve = (): void => {
    for (const one of waiting) {
      const session = [...sessions].find((candidate) => candidate !== one.refusedBy && candidate.hasRoom());
      if (!session) continue;
      waiting.delete(one);
      start(session, one);
    }
    const usable = [...sessions].filter((session) => session.isUsable()).length;
    if (waiting.size > 0 && !isConnecting && usable < limits.targetSessionsMax) void connect();
  };

  const start = (session: TargetSession, one: Waiting): void => {
    const { request, reception, refusedBy } = one;
    runStream(session, request, reception, patience, () => {
      // Not processed, and not a byte of its body read: it may go once more (RFC 9113 section 8.7), over another session.
      if (refusedBy !== undefined || reception.isSettled) return false;
      wait({ ...one, refusedBy: session });
      return true;
    });
  };

  const wait = (one: Waiting): void => {
    waiting.add(one);
    one.reception.onCancel(() => {
      waiting.delete(one);
      emptied();
    });
    serve();
  };

  const connect = async (): Promise<void> => {
    isConnecting = true;
    try {
      const session = await openSession(
        open,
        patience,
        {
          onRoom: () => serve(),
          onClosed: (gone) => {
            sessions.delete(gone);
            serve();
            emptied();
          },
        },
        abandoned.signal,
      );
      sessions.add(session);
      isConnecting = false;
      if (isRetired && waiting.size === 0) session.retire();
    } catch (error) {
      isConnecting = false;
      const fault = mishap(error, false);
      for (const one of waiting) {
        waiting.delete(one);
        if (!isRefusal(fault) || !one.elsewhere?.(fault)) one.reception.fail(fault);
      }
    }
    serve();
    if (isRetired) retireSessions();
    emptied();
  };

  const retireSessions = (): void => {
    if (waiting.size === 0) for (const session of sessions) session.retire();
  };

  return {
    send: (request, reception, elsewhere) => wait({ request, reception, elsewhere, refusedBy: undefined }),
    retire: () => {
      isRetired = true;
      retireSessions();
      return closed();
    },
    destroy: () => {
      isRetired = true;
      for (const one of waiting) one.reception.fail(new Fault('target_closed'));
      waiting.clear();
      abandoned.abort();
      for (const session of sessions) session.destroy();
      return closed();
    },
  };
};
