/**
 * The HTTP/1 engine, over node:http: makes one kind of Accepted of absolute-form requests, of requests inside a connection that is
 * for one place, and of upgrades. One request at a time on a connection, whatever it pipelines. Knows HTTP/1.1 and sockets; nothing
 * of policy or credentials.
 */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { asFault, Fault, type FaultCode } from '../../core/fault.ts';
import { fromRaw } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { Accepted } from '../exchange.ts';
import { closesConnection, problemBytes, respond } from '../respond.ts';
import { type Admitted, admit, readRequestTarget, upgradeAsked } from './admit.ts';
import { type EngineOptions, hostClaim, identifiers } from './connection.ts';
import { Http1Sink } from './http1-sink.ts';
import { StreamBody } from './stream-body.ts';

export interface Http1Engine {
  /** Give it connections by `emit('connection', socket)`, or let it listen. */
  readonly server: Server;
  /** Requests in flight end their connection; idle connections are closed. */
  readonly drain: () => void;
}

export interface Http1Options extends EngineOptions {
  /** CONNECT on a connection to the forward proxy itself; it has been admitted. */
  readonly onConnect: (request: IncomingMessage, socket: Socket, head: Buffer) => void;
}

interface Exchange {
  readonly body: StreamBody | undefined;
  readonly response: ServerResponse;
}

export const createHttp1 = ({ clock, handlers, connections, onConnect }: Http1Options): Http1Engine => {
  /** The exchange that a connection is in the middle of. */
  const current = new WeakMap<Socket, Exchange>();
  /** Settles when the connection may take its next request. */
  const busy = new WeakMap<Socket, Promise<void>>();
  /** Connections that were answered with an end: whatever else they have sent is nobody's request. */
  const ending = new WeakSet<Socket>();
  const open = new Set<ServerResponse>();
  let isDraining = false;

  /** A pipelined request waits for the answer before it, so that an unsafe one never overtakes (RFC 9112 section 9.3.2). */
  const inTurn = (socket: Socket, response: ServerResponse, take: () => void): void => {
    const before = busy.get(socket);
    busy.set(socket, new Promise((resolve) => response.once('close', () => resolve())));
    if (before === undefined) return take();
    return void before.then(() => {
      if (!socket.destroyed && !response.destroyed) take();
    });
  };

  const accept = (request: IncomingMessage, admitted: Admitted): Omit<Accepted, 'body' | 'upgrade' | 'sink'> => {
    const claims = connections.get(request.socket);
    const headers = fromRaw(request.rawHeaders);
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
    if (closesConnection(fault)) ending.add(request.socket);
    handlers.refused(fault);
    respond(sink, fault, { id: randomUUID(), headers: fromRaw(request.rawHeaders) });
  };

  const track = (response: ServerResponse): void => {
    if (isDraining) response.shouldKeepAlive = false;
    open.add(response);
    response.once('close', () => {
      open.delete(response);
      if (isDraining) server.closeIdleConnections();
    });
  };

  const onRequest = (request: IncomingMessage, response: ServerResponse): void =>
    inTurn(request.socket, response, () => {
      if (ending.has(request.socket)) return;
      const sink = new Http1Sink({ request, response, now: clock.monotonic });
      track(response);
      try {
        const admitted = admit(headOf(request));
        const body = admitted.hasBody ? bodyOf(request, response, admitted) : undefined;
        current.set(request.socket, { body, response });
        const accepted: Accepted = { ...accept(request, admitted), body, upgrade: undefined, sink };
        void handlers.request(accepted).then(() => body?.return());
      } catch (thrown) {
        refuse(request, sink, thrown);
      }
    });

  /** From here the connection is no longer the HTTP server's: its answer, errors and time limits are ours. */
  const onUpgrade = (request: IncomingMessage, socket: Socket, early: Buffer): void => {
    socket.setTimeout(0);
    socket.on('error', () => undefined);
    const response = new ServerResponse(request);
    inTurn(socket, response, () => {
      response.assignSocket(socket);
      response.shouldKeepAlive = false;
      response.once('finish', () => socket.end());
      const sink = new Http1Sink({ request, response, now: clock.monotonic, early });
      track(response);
      // Taken from the response when it is joined to the target, so that the response's own end never comes.
      socket.once('close', () => open.delete(response));
      const stopWatching = watchLeaving(socket);
      try {
        const admitted = admit(headOf(request));
        if (admitted.hasBody) throw new Fault('framing_invalid', { detail: 'A request to upgrade has no body.' });
        sink.beforeUpgrade = stopWatching;
        void handlers.request({ ...accept(request, admitted), body: undefined, upgrade: admitted.upgrade, sink });
      } catch (thrown) {
        refuse(request, sink, thrown);
      }
    });
  };

  const onClientError = (error: Error & { code?: string }, socket: Socket): void => {
    if (ending.has(socket)) return;
    ending.add(socket);
    const fault = clientFault(error);
    const exchange = current.get(socket);
    if (exchange && !exchange.response.writableFinished) {
      // The head is being handled, perhaps already sent on: the target's connection must not be reused (THREATS F-5).
      exchange.body?.fail(fault);
      if (exchange.response.headersSent || !exchange.body) return void socket.destroy();
      return;
    }
    handlers.refused(fault);
    if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy();
    return void socket.end(problemBytes(fault, randomUUID()));
  };

  /** Nothing moved for long: ends a program that has stopped reading, never one that waits for a quiet target. */
  const onTimeout = (socket: Socket): void => {
    const exchange = current.get(socket);
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
    keepAliveTimeout: limits.clientKeepAliveTimeoutMs,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: limits.tcpKeepAliveDelayMs,
    // What is no upgrade for us (h2c, HTTP/1.0) is an ordinary request, whose Upgrade ends here.
    shouldUpgradeCallback: (request) => upgradeAsked(request.httpVersion, fromRaw(request.rawHeaders)) !== undefined,
  });
  server.maxHeadersCount = 0;
  server.maxConnections = limits.clientConnectionsMax;
  server.maxRequestsPerSocket = 0;
  server.timeout = limits.clientStallTimeoutMs;
  server.on('request', onRequest);
  server.on('checkContinue', onRequest);
  server.on('checkExpectation', onRequest);
  server.on('upgrade', onUpgrade);
  server.on('clientError', onClientError);
  server.on('timeout', onTimeout);
  server.on('connect', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.setTimeout(0);
    socket.on('error', () => undefined);
    try {
      if (connections.has(socket)) throw new Fault('method_refused', { detail: 'CONNECT inside a tunnel.' });
      const { host } = admit(headOf(request));
      // RFC 9112 section 3.2.3: Host repeats the authority. One without a port, as some clients send, is completed.
      if (host !== undefined && !isSameAuthority(request.url as string, host)) throw new Fault('authority_mismatch');
      onConnect(request, socket, head);
    } catch (thrown) {
      const fault = asFault(thrown);
      handlers.refused(fault);
      socket.end(problemBytes(fault, randomUUID()));
    }
  });

  return {
    server,
    drain: () => {
      isDraining = true;
      // Requests in flight end their connection, and say so if their answer has not begun.
      for (const response of open) if (!response.headersSent) response.shouldKeepAlive = false;
      server.closeIdleConnections();
    },
  };
};

const bodyOf = (request: IncomingMessage, response: ServerResponse, { expectsContinue }: Admitted): StreamBody =>
  new StreamBody({
    stream: request,
    isComplete: () => request.complete,
    trailers: () => fromRaw(request.rawTrailers),
    mayPause: false,
    // The target did not say it and yet its body is wanted: the engine has waited long enough.
    onFirstRead: () => {
      if (expectsContinue && !response.headersSent) response.writeContinue();
    },
  });

const headOf = (request: IncomingMessage) => ({
  method: request.method as string,
  target: request.url as string,
  httpVersion: request.httpVersion,
  headers: fromRaw(request.rawHeaders),
});

/**
 * A connection that waits for its upgrade is read by nobody, so its end would go unnoticed: reads into the socket's own buffer (a
 * bound), and breaks the connection when the program leaves. Returns what stops it, with all that was read still in the socket.
 */
const watchLeaving = (socket: Socket): (() => void) => {
  const look = (): void => {
    // read() of an empty buffer is what makes the end known.
    if (socket.readableLength === 0) socket.read();
  };
  const gone = (): void => void socket.destroy();
  socket.on('readable', look);
  socket.once('end', gone);
  look();
  return () => {
    socket.off('readable', look);
    socket.off('end', gone);
  };
};

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
