/**
 * The HTTP/1 engine, over node:http: makes one kind of Accepted of absolute-form requests, of requests inside a connection that is
 * for one place, and of upgrades. One request at a time on a connection, whatever it pipelines. Knows HTTP/1.1 and sockets; nothing
 * of policy or credentials.
 */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { asFault, Fault, type FaultCode } from '../../core/fault.ts';
import { fromRaw, type HeaderList } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { Accepted } from '../exchange.ts';
import { problemBytes, respond } from '../respond.ts';
import { type Admitted, admit, readRequestTarget, upgradeAsked } from './admit.ts';
import { type Aside, drainListeners, setAside } from './aside.ts';
import { type EngineOptions, hostClaim, identifiers, type Patience } from './connection.ts';
import { Http1Sink } from './http1-sink.ts';
import { leave } from './leave.ts';
import type { Standing } from './occupancy.ts';
import { StreamBody } from './stream-body.ts';

export interface Http1Engine {
  readonly serve: (socket: Socket) => void;
  readonly standingOf: (socket: Socket) => Standing;
  /** From now on every answer says that it is the connection's last. */
  readonly announce: () => void;
  /** Idle connections are closed, now and after each answer. */
  readonly drain: () => void;
  /** Once no connection is left. */
  readonly close: () => void;
}

export interface Http1Options extends EngineOptions {
  /** CONNECT on a connection to the forward proxy itself; it has been admitted. */
  readonly onConnect: (request: IncomingMessage, socket: Socket, aside: Aside) => void;
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly body: StreamBody | undefined;
}

/** A request's time until its answer is closed. One listener does for all who wait for that: there are several for every request. */
interface Turn {
  isOver: boolean;
  readonly afterwards: (() => void)[];
}

const turnOf = (response: ServerResponse): Turn => {
  const turn: Turn = { isOver: false, afterwards: [] };
  response.on('close', () => {
    turn.isOver = true;
    for (const afterwards of turn.afterwards.splice(0)) afterwards();
  });
  return turn;
};

/** What one connection is in the middle of. */
interface Line {
  current: Exchange | undefined;
  /** Of the request before: when it is over, the connection may take its next one. */
  turn: Turn | undefined;
  /** Requests that wait for their turn. */
  waiting: number;
  /** The parser has given up: what it had not read whole by then never will be. */
  failure: Fault | undefined;
  /** How node:http hears that there is room again. */
  drains: ReturnType<typeof drainListeners>;
}

export const createHttp1 = ({ clock, patience, handlers, connections, onConnect }: Http1Options): Http1Engine => {
  const lines = new WeakMap<Socket, Line>();
  const open = new Set<ServerResponse>();
  let isLast = false;
  let isDraining = false;

  const lineOf = (socket: Socket): Line => {
    const known = lines.get(socket);
    if (known) return known;
    const line: Line = { current: undefined, turn: undefined, waiting: 0, failure: undefined, drains: [] };
    lines.set(socket, line);
    return line;
  };

  /**
   * A pipelined request waits for the answer before it, so that an unsafe one never overtakes (RFC 9112 section 9.3.2). After an answer
   * that ends the connection, whatever else it has sent is nobody's request. `turn`, of `response`, is what the next one waits for.
   */
  const inTurn = (socket: Socket, line: Line, own: { turn: Turn; response: ServerResponse } | undefined, take: () => void): void => {
    const before = line.turn;
    if (own) line.turn = own.turn;
    if (before === undefined) return take();
    const takeIfOpen = (): void => {
      if (!socket.destroyed && !socket.writableEnded && !own?.response.destroyed) take();
    };
    if (before.isOver) return takeIfOpen();
    line.waiting += 1;
    if (line.waiting > limits.clientPipelinedRequestsMax) {
      if (!socket.destroyed) handlers.refused(new Fault('overloaded', { detail: 'Too many requests wait on one connection.' }));
      return void socket.destroy();
    }
    return void before.afterwards.push(() =>
      queueMicrotask(() => {
        line.waiting -= 1;
        takeIfOpen();
      }),
    );
  };

  const accept = (request: IncomingMessage, headers: HeaderList, admitted: Admitted): Omit<Accepted, 'body' | 'upgrade' | 'sink'> => {
    const claims = connections.get(request.socket);
    const { scheme, absolute, rawTarget } = readRequestTarget(request.url as string, claims?.scheme);
    return {
      ...identifiers(headers, clock),
      protocol: request.httpVersion === '1.0' ? 'http/1.0' : 'http/1.1',
      scheme,
      method: request.method as string,
      rawTarget,
      claims: { connect: claims?.connect, sni: claims?.sni, absolute, host: hostClaim(admitted.host, claims) },
      headers,
      expectsContinue: admitted.expectsContinue,
      originalAddress: claims?.originalAddress,
    };
  };

  const refuse = (request: IncomingMessage, sink: Http1Sink, thrown: unknown): void => {
    const fault = asFault(thrown);
    handlers.refused(fault);
    respond(sink, fault, { id: randomUUID(), headers: fromRaw(request.rawHeaders) });
  };

  const track = (response: ServerResponse, turn: Turn): void => {
    if (isLast) response.shouldKeepAlive = false;
    open.add(response);
    turn.afterwards.push(() => {
      open.delete(response);
      if (isDraining) server.closeIdleConnections();
    });
  };

  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const { socket } = request;
    const line = lineOf(socket);
    const turn = turnOf(response);
    inTurn(socket, line, { turn, response }, () => {
      const sink = new Http1Sink({ request, response, onClose: (then) => turn.afterwards.push(then), now: clock.monotonic });
      track(response, turn);
      try {
        if (line.failure && !request.complete) throw line.failure;
        const head = headOf(request);
        const admitted = admit(head);
        const body = admitted.hasBody ? bodyOf(request, sink, admitted, patience) : undefined;
        line.current = { request, response, body };
        const handled = handlers.request({ ...accept(request, head.headers, admitted), body, upgrade: undefined, sink }, false);
        if (body) void handled.then(() => body.return());
      } catch (thrown) {
        refuse(request, sink, thrown);
      }
    });
  };

  const aside = (socket: Socket, head: Buffer): Aside => setAside(socket, head, lineOf(socket).drains, () => onTimeout(socket));

  /** From here the connection is no longer the HTTP server's: its answer, errors and time limits are ours. */
  const onUpgrade = (request: IncomingMessage, socket: Socket, early: Buffer): void => {
    const { take } = aside(socket, early);
    const response = new ServerResponse(request);
    const turn = turnOf(response);
    const line = lineOf(socket);
    inTurn(socket, line, { turn, response }, () => {
      // Here and not before: the answer to the request before this one has set the time limit of an idle connection.
      socket.setTimeout(patience.stallMs);
      response.assignSocket(socket);
      response.shouldKeepAlive = false;
      response.once('finish', () => {
        take();
        leave(socket);
      });
      const beforeUpgrade = (): Buffer => {
        socket.setTimeout(0);
        return take();
      };
      const onClose = (then: () => void): void => void turn.afterwards.push(then);
      const sink = new Http1Sink({ request, response, onClose, now: clock.monotonic, beforeUpgrade });
      track(response, turn);
      line.current = { request, response, body: undefined };
      // Taken from the response when it is joined to the target, so that the response's own end never comes.
      socket.once('close', () => open.delete(response));
      try {
        const head = headOf(request);
        const admitted = admit(head);
        void handlers.request({ ...accept(request, head.headers, admitted), body: undefined, upgrade: admitted.upgrade, sink }, false);
      } catch (thrown) {
        refuse(request, sink, thrown);
      }
    });
  };

  const onConnectMethod = (request: IncomingMessage, socket: Socket, head: Buffer): void => {
    const waits = aside(socket, head);
    inTurn(socket, lineOf(socket), undefined, () => {
      socket.setTimeout(0);
      try {
        if (connections.has(socket))
          throw new Fault('method_refused', { detail: 'CONNECT is for the forward proxy itself, and never inside a tunnel.' });
        const { host } = admit(headOf(request));
        // RFC 9112 section 3.2.3: Host repeats the authority. One without a port, as some clients send, is completed.
        if (host !== undefined && !isSameAuthority(request.url as string, host)) throw new Fault('authority_mismatch');
        onConnect(request, socket, waits);
      } catch (thrown) {
        const fault = asFault(thrown);
        handlers.refused(fault);
        waits.take();
        leave(socket, problemBytes(fault, randomUUID()));
      }
    });
  };

  const onClientError = (error: Error & { code?: string }, socket: Socket): void => {
    const line = lineOf(socket);
    if (line.failure || socket.destroyed || socket.writableEnded) return;
    const fault = clientFault(error);
    line.failure = fault;
    const { current } = line;
    const isInBody = current !== undefined && !current.request.complete;
    // The head is being handled, perhaps already sent on: the target's connection must not be reused (THREATS F-5).
    if (isInBody) current.body?.fail(fault);
    if (fault.code === 'client_closed' || (isInBody && current.response.headersSent)) return void socket.destroy();
    if (isInBody && current.body) return undefined;
    return inTurn(socket, line, undefined, () => {
      handlers.refused(fault);
      leave(socket, problemBytes(fault, randomUUID()));
    });
  };

  /** Nothing moved for long: ends a program that has stopped reading, never one that waits for a quiet target. */
  const onTimeout = (socket: Socket): void => {
    const exchange = lines.get(socket)?.current;
    const isWaiting = exchange !== undefined && !exchange.response.writableFinished && !exchange.response.writableNeedDrain;
    if (!isWaiting) socket.destroy();
  };

  const server: Server = createServer({
    insecureHTTPParser: false,
    // A missing Host is answered by admit(), as a problem.
    requireHostHeader: false,
    // Room for the request line beside the fields; the exact bounds are admit()'s.
    maxHeaderSize: limits.headerBytesMax + limits.requestTargetBytesMax,
    headersTimeout: limits.requestHeadersTimeoutMs,
    requestTimeout: 0,
    connectionsCheckingInterval: 1_000,
    keepAliveTimeout: patience.keepAliveMs,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: limits.tcpKeepAliveDelayMs,
    // What is no upgrade for us (h2c, HTTP/1.0) is an ordinary request, whose Upgrade ends here.
    shouldUpgradeCallback: (request) => upgradeAsked(request.httpVersion, fromRaw(request.rawHeaders)) !== undefined,
  });
  server.maxHeadersCount = 0;
  server.maxRequestsPerSocket = 0;
  server.timeout = patience.stallMs;
  server.on('request', onRequest);
  server.on('checkContinue', onRequest);
  server.on('checkExpectation', onRequest);
  server.on('upgrade', onUpgrade);
  server.on('clientError', onClientError);
  server.on('timeout', onTimeout);
  server.on('connect', onConnectMethod);
  server.on('connection', (socket: Socket) => {
    // How the server ends a connection after the last answer. Its own way would close at once, and what a program still sends would
    // then be answered by a reset, which may overtake the answer.
    socket.destroySoon = () => leave(socket);
    lineOf(socket).drains = drainListeners(socket);
  });

  // It begins to look after its time limits when it listens, which is the listener's to do here.
  server.emit('listening');

  return {
    serve: (socket) => {
      // Whoever accepted it: node:http asks this server what to do with one that has been quiet.
      (socket as { server?: unknown }).server = server;
      server.emit('connection', socket);
    },
    standingOf: (socket) => {
      const line = lines.get(socket);
      return line === undefined ? 'new' : standingOf(line);
    },
    announce: () => {
      isLast = true;
      for (const response of open) if (!response.headersSent) response.shouldKeepAlive = false;
    },
    drain: () => {
      isDraining = true;
      server.closeIdleConnections();
    },
    close: () => void server.close(),
  };
};

const standingOf = ({ current, waiting }: Line): Standing => {
  if (current === undefined) return waiting > 0 ? 'waiting' : 'new';
  if (current.response.writableFinished || current.response.destroyed) return waiting > 0 ? 'waiting' : 'idle';
  const { request, response } = current;
  if (response.writableNeedDrain || response.writableEnded) return 'reading';
  if (response.headersSent || request.complete) return 'waiting';
  // As much of a body as we take ahead of the target waits for that; with less, there is room for what does not come.
  return request.readableLength >= request.readableHighWaterMark ? 'stuck' : 'sending';
};

const bodyOf = (request: IncomingMessage, sink: Http1Sink, { expectsContinue }: Admitted, { bodyIdleMs }: Patience): StreamBody =>
  new StreamBody({
    stream: request,
    isComplete: () => request.complete,
    trailers: () => fromRaw(request.rawTrailers),
    idleMs: bodyIdleMs,
    // Once the answer has begun both ends talk when they like; before, a program that has stopped sending can still be told so.
    mayPause: () => sink.hasStarted(),
    // The target did not say it and yet its body is wanted: the engine has waited long enough.
    onFirstRead: () => {
      if (expectsContinue) sink.informational(100, []);
    },
  });

const headOf = (request: IncomingMessage) => ({
  method: request.method as string,
  target: request.url as string,
  httpVersion: request.httpVersion,
  headers: fromRaw(request.rawHeaders),
});

const isSameAuthority = (connect: string, hostField: string): boolean => {
  const lower = connect.toLowerCase();
  const given = hostField.toLowerCase();
  return given === lower || given === lower.replace(/:[0-9]+$/, '');
};

/** What Node's parser found, as a Fault. Codes are llhttp's. */
const clientFault = (error: Error & { code?: string }): Fault => {
  const options = { cause: error };
  const byCode: Readonly<Record<string, FaultCode>> = {
    HPE_HEADER_OVERFLOW: 'headers_too_large',
    HPE_CHUNK_EXTENSIONS_OVERFLOW: 'framing_invalid',
    ERR_HTTP_REQUEST_TIMEOUT: 'request_timeout',
    HPE_INVALID_CONTENT_LENGTH: 'framing_invalid',
    HPE_UNEXPECTED_CONTENT_LENGTH: 'framing_invalid',
    HPE_INVALID_TRANSFER_ENCODING: 'framing_invalid',
    HPE_INVALID_CHUNK_SIZE: 'framing_invalid',
    HPE_INVALID_EOF_STATE: 'client_closed',
    ECONNRESET: 'client_closed',
    EPIPE: 'client_closed',
  };
  return new Fault(byCode[error.code ?? ''] ?? 'request_malformed', options);
};
