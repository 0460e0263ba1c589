/**
 * One HTTP/2 session with a target: opened and greeted, asked whether it lives while streams are silent, closed when idle, retired when
 * the target says that it goes away. Knows of streams only how many there are.
 */
import { type ClientHttp2Session, connect, constants } from 'node:http2';
import type { Socket } from 'node:net';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { destroyWhenLost, endSession } from '../../ops/connection-end.ts';
import type { Open, Patience } from './engine.ts';
import { mishap } from './mishap.ts';

export interface TargetSession {
  readonly session: ClientHttp2Session;
  /** Takes new streams at all. */
  readonly isUsable: () => boolean;
  /** Takes one more stream now. */
  readonly hasRoom: () => boolean;
  /** Counts a stream; call what is returned when it has closed. */
  readonly enter: () => () => void;
  /** Something of the target arrived. */
  readonly heard: () => void;
  /** Whether the target has said that it did not process this stream (RFC 9113 section 6.8). */
  readonly isUnprocessed: (streamId: number | undefined) => boolean;
  readonly retire: () => void;
  readonly destroy: () => void;
}

export interface SessionOwner {
  readonly onRoom: (session: TargetSession) => void;
  readonly onClosed: (session: TargetSession) => void;
}

/** `:status`, and one more so that a block that is too large is seen rather than cut. */
const pseudoFields = 2;

const sessionOptions = {
  maxSessionMemory: limits.targetSessionMemoryMaxMb,
  maxHeaderListPairs: limits.headerCountMax + pseudoFields,
  // Fields are written as they came; Node would refuse what some programs send twice.
  strictSingleValueFields: false,
  settings: {
    enablePush: false,
    maxHeaderListSize: limits.headerBytesMax,
    initialWindowSize: limits.targetStreamWindowBytes,
  },
};

/** Resolves once the target's SETTINGS have arrived: then it speaks HTTP/2, and how many streams it takes is known. */
export const openSession = async (open: Open, patience: Patience, owner: SessionOwner, abandoned: AbortSignal): Promise<TargetSession> => {
  const socket = await open('h2');
  const session = connect('http://target', { ...sessionOptions, createConnection: () => socket });
  const unwanted = (): void => endSession(socket, () => session.destroy());
  abandoned.addEventListener('abort', unwanted);
  if (abandoned.aborted) unwanted();
  await greeted(session, socket, patience).finally(() => abandoned.removeEventListener('abort', unwanted));
  session.setLocalWindowSize(limits.targetSessionWindowBytes);
  return live(session, socket, patience, owner);
};

const greeted = (session: ClientHttp2Session, socket: Socket, { settingsMs }: Patience): Promise<void> =>
  new Promise((resolve, reject) => {
    let failure: unknown;
    const timer = setTimeout(() => endSession(socket, () => session.destroy(new Fault('target_timeout'))), settingsMs);
    const failed = (error: unknown): void => {
      failure ??= error;
    };
    const closed = (): void => {
      clearTimeout(timer);
      reject(greetingFault(failure));
    };
    // Kept: an error without a listener would end the process.
    session.on('error', failed);
    socket.on('error', failed);
    session.once('close', closed);
    session.once('remoteSettings', () => {
      clearTimeout(timer);
      session.off('close', closed);
      resolve();
    });
  });

/** Bytes that are no frames are an answer too: the target speaks something else. */
const greetingFault = (failure: unknown): Fault => {
  const { code } = (failure ?? {}) as { code?: string };
  if (code === 'ERR_HTTP2_ERROR' || code === 'ERR_HTTP2_SESSION_ERROR') return new Fault('target_protocol', { cause: failure });
  return mishap(failure, false);
};

const live = (session: ClientHttp2Session, socket: Socket, patience: Patience, { onRoom, onClosed }: SessionOwner): TargetSession => {
  let streams = 0;
  let goneAfter: number | undefined;
  let hasHeard = true;
  let idle: NodeJS.Timeout | undefined;
  let answer: NodeJS.Timeout | undefined;

  const rest = (): void => {
    clearTimeout(idle);
    if (streams === 0) idle = setTimeout(() => endSession(socket, () => session.close()), patience.sessionIdleMs);
  };
  const ask = (): void => {
    if (streams === 0 || hasHeard || session.destroyed) {
      hasHeard = false;
      return;
    }
    clearTimeout(answer);
    answer = setTimeout(
      () => endSession(socket, () => session.destroy(new Error('no answer to a ping'), constants.NGHTTP2_CANCEL)),
      patience.pingTimeoutMs,
    );
    session.ping((error) => {
      if (!error) clearTimeout(answer);
    });
  };
  const asking = setInterval(ask, patience.pingIntervalMs);
  destroyWhenLost(socket, patience.lostLookMs);
  const isUsable = (): boolean => !session.closed && !session.destroyed && goneAfter === undefined;

  const self: TargetSession = {
    session,
    isUsable,
    hasRoom: () =>
      isUsable() && streams < Math.min(session.remoteSettings.maxConcurrentStreams ?? Infinity, limits.targetSessionStreamsMax),
    enter: () => {
      streams += 1;
      clearTimeout(idle);
      return () => {
        streams -= 1;
        rest();
        onRoom(self);
      };
    },
    heard: () => {
      hasHeard = true;
    },
    isUnprocessed: (id) => id === undefined || (goneAfter !== undefined && id > goneAfter),
    retire: () => session.close(),
    destroy: () => endSession(socket, () => session.destroy()),
  };
  session.on('goaway', (_code: number, lastStreamId: number) => {
    goneAfter = Math.min(goneAfter ?? Infinity, lastStreamId);
  });
  session.on('remoteSettings', () => onRoom(self));
  session.once('close', () => {
    clearTimeout(idle);
    clearTimeout(answer);
    clearInterval(asking);
    onClosed(self);
  });
  rest();
  return self;
};
