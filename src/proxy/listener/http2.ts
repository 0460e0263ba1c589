/**
 * The HTTP/2 engine, over node:http2: makes the same Accepted of streams as the HTTP/1 engine does of requests. It speaks on
 * connections that are for one place (after interception, on a reverse route) and never listens. nghttp2 has checked the framing; what
 * it lets through and HTTP/1.1 could not carry is refused here (THREATS F-8).
 */
import { randomUUID } from 'node:crypto';
import { constants, createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Duplex } from 'node:stream';
import { asFault } from '../../core/fault.ts';
import { fromRaw, type HeaderList, valuesOf } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import { endSession } from '../../ops/connection-end.ts';
import { respond } from '../respond.ts';
import { admitH2, readRequestTarget } from './admit.ts';
import { type ConnectionClaims, type EngineOptions, hostClaim, identifiers, type Patience } from './connection.ts';
import { Http2Sink } from './http2-sink.ts';
import type { Standing } from './occupancy.ts';
import { StreamBody } from './stream-body.ts';

export interface Http2Engine {
  readonly serve: (socket: Duplex) => void;
  /** Undefined when the connection is not one of HTTP/2. */
  readonly standingOf: (socket: Duplex) => Standing | undefined;
  /**
   * Tells those who are connected to open no more streams here (GOAWAY); those in flight finish. One that was on its way is named as not
   * taken, and may be asked again elsewhere (RFC 9113 section 6.8). node:http2 cannot give the earlier notice that this section has.
   */
  readonly announce: () => void;
  /** The same, and for whoever comes yet. */
  readonly drain: () => void;
}

interface Line {
  readonly claims: ConnectionClaims | undefined;
  /** Requests that are being handled; some may outlive their streams. */
  underWay: number;
}

export const createHttp2 = ({ clock, patience, handlers, connections }: EngineOptions): Http2Engine => {
  const sessions = new Set<ServerHttp2Session>();
  /** Streams of each connection that are open. */
  const open = new WeakMap<Duplex, ReadonlySet<ServerHttp2Stream>>();
  let wideOpen = 0;
  let isDraining = false;
  /** Of the connection that is being taken: node:http2 makes its session within that very call, and shows the socket by a stand-in. */
  let taken: { readonly socket: Duplex; readonly claims: ConnectionClaims | undefined } | undefined;

  const onStream = (stream: ServerHttp2Stream, line: Line, raw: HeaderList, hasBody: boolean): void => {
    const { claims } = line;
    const sink = new Http2Sink({ stream, isHead: valuesOf(raw, ':method')[0] === 'HEAD', now: clock.monotonic });
    try {
      const { method, authority, path, headers, expectsContinue, isEmpty } = admitH2(raw);
      const { scheme, rawTarget } = readRequestTarget(path, claims?.scheme);
      const body = hasBody && !isEmpty ? bodyOf(stream, sink, expectsContinue, patience) : undefined;
      const accepted = {
        ...identifiers(headers, clock),
        protocol: 'h2' as const,
        scheme,
        method,
        rawTarget,
        claims: { connect: claims?.connect, sni: claims?.sni, absolute: undefined, host: hostClaim(authority, claims) },
        headers,
        body,
        upgrade: undefined,
        expectsContinue,
        originalAddress: claims?.originalAddress,
        sink,
      };
      const handled = handlers.request(accepted, line.underWay > 0);
      line.underWay += 1;
      void handled.then(() => {
        line.underWay -= 1;
        void body?.return();
      });
    } catch (thrown) {
      const fault = asFault(thrown);
      handlers.refused(fault);
      respond(sink, fault, { id: randomUUID(), headers: raw });
    }
  };

  const serverFor = (maxConcurrentStreams: number): Http2Server =>
    createServer({
      maxSessionMemory: limits.clientH2SessionMemoryMaxMb,
      maxHeaderListPairs: limits.headerCountMax + pseudoFields,
      maxSettings: limits.clientH2SettingsMax,
      maxSessionInvalidFrames: limits.clientH2InvalidFramesMax,
      maxSessionRejectedStreams: limits.clientH2RejectedStreamsMax,
      maxOutstandingPings: 2,
      // Rapid reset (CVE-2023-44487): past the burst, resets faster than this end the connection.
      streamResetBurst: limits.clientH2ResetBurst,
      streamResetRate: limits.clientH2ResetsPerSecond,
      maxSendHeaderBlockLength: limits.headerBytesMax * 2,
      // Fields are written as the target sent them; Node would refuse what some send twice.
      strictSingleValueFields: false,
      settings: {
        maxConcurrentStreams,
        maxHeaderListSize: limits.headerBytesMax + limits.requestTargetBytesMax,
        initialWindowSize: limits.clientH2WindowBytes,
        enableConnectProtocol: false,
        enablePush: false,
      },
    } as Parameters<typeof createServer>[0]);
  const wide = serverFor(limits.clientH2StreamsMax);
  const narrow = serverFor(limits.clientH2NarrowStreamsMax);
  const onSession = (session: ServerHttp2Session, isWide: boolean): void => {
    const { socket, claims } = taken as NonNullable<typeof taken>;
    const line: Line = { claims, underWay: 0 };
    const streams = new Set<ServerHttp2Stream>();
    open.set(socket, streams);
    sessions.add(session);
    if (isWide) wideOpen += 1;
    session.once('close', () => {
      sessions.delete(session);
      if (isWide) wideOpen -= 1;
    });
    session.on('error', () => undefined);
    session.once('connect', () => {
      if (isWide) session.setLocalWindowSize(limits.clientH2SessionWindowBytes);
    });
    const mayAsk = allowance(limits.clientH2ControlBurst, limits.clientH2ControlsPerSecond, clock.monotonic);
    const asked = (): void => {
      if (!mayAsk()) endSession(socket, () => session.destroy(constants.NGHTTP2_ENHANCE_YOUR_CALM as never));
    };
    session.on('ping', asked);
    session.on('remoteSettings', asked);
    // Silence between streams ends the connection; a stream may be silent for as long as it likes. Not the callback of setTimeout, which
    // is called once and never again.
    session.setTimeout(patience.keepAliveMs);
    session.on('timeout', () => {
      if (streams.size > 0) return;
      session.setTimeout(0);
      endSession(socket, () => session.close());
    });
    session.on('stream', (stream, _headers, flags, raw) => {
      streams.add(stream);
      stream.once('close', () => {
        streams.delete(stream);
        if (!session.destroyed) session.setTimeout(patience.keepAliveMs);
      });
      stream.on('error', () => undefined);
      // Nothing moved for long: ends a program that has stopped reading, never one that waits for a quiet target.
      stream.setTimeout(patience.stallMs);
      stream.on('timeout', () => {
        if (!stream.writableNeedDrain) return;
        stream.close(constants.NGHTTP2_CANCEL);
        // Else it would stay until that was taken, too.
        stream.destroy();
      });
      onStream(stream, line, fromRaw(raw), (flags & constants.NGHTTP2_FLAG_END_STREAM) === 0);
    });
    if (isDraining) session.close();
  };
  for (const server of [wide, narrow]) {
    server.on('session', (session) => onSession(session, server === wide));
    server.on('sessionError', () => undefined);
  }

  const closeAll = (): void => {
    for (const session of sessions) session.close();
  };

  return {
    serve: (socket) => {
      // A program that has closed its side asks nothing more, and HTTP/2 has no use for half a connection.
      socket.allowHalfOpen = false;
      taken = { socket, claims: connections.get(socket) };
      (wideOpen < limits.clientH2WideSessionsMax ? wide : narrow).emit('connection', socket);
      taken = undefined;
    },
    standingOf: (socket) => {
      const streams = open.get(socket);
      return streams && standingOf(streams);
    },
    announce: closeAll,
    drain: () => {
      isDraining = true;
      closeAll();
    },
  };
};

/** Of all its streams: one that waits for us keeps the connection. */
const standingOf = (streams: ReadonlySet<ServerHttp2Stream>): Standing => {
  let all: Standing = 'idle';
  for (const stream of streams) {
    const isAsking = !stream.headersSent && !stream.readableEnded && stream.readableLength === 0 && !stream.endAfterHeaders;
    const one: Standing = stream.writableNeedDrain || stream.writableEnded ? 'reading' : isAsking ? 'sending' : 'waiting';
    if (one === 'waiting') return one;
    all = one;
  }
  return all;
};

/** So many at once, and then so many a second; `now` in monotonic ms. */
const allowance = (burst: number, perSecond: number, now: () => number): (() => boolean) => {
  let left = burst;
  let countedAt = now();
  return () => {
    const at = now();
    left = Math.min(burst, left + ((at - countedAt) / 1_000) * perSecond) - 1;
    countedAt = at;
    return left >= 0;
  };
};

/** :method, :scheme, :authority and :path come beside the fields. */
const pseudoFields = 4;

const bodyOf = (stream: ServerHttp2Stream, sink: Http2Sink, expectsContinue: boolean, { bodyIdleMs }: Patience): StreamBody => {
  let trailers: HeaderList = [];
  let isWhole = false;
  stream.on('trailers', (_fields: unknown, _flags: unknown, raw: readonly string[]) => {
    trailers = fromRaw(raw);
  });
  // For node:http2 a stream that was reset, and one whose connection was lost, may end like one that was whole. It is closed by then.
  stream.once('end', () => {
    isWhole = !stream.closed;
  });
  return new StreamBody({
    stream,
    isComplete: () => isWhole,
    trailers: () => trailers,
    idleMs: bodyIdleMs,
    mayPause: () => true,
    onFirstRead: () => {
      if (expectsContinue) sink.informational(100, []);
    },
  });
};
