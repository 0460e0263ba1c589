/**
 * listener: the explicit forward proxy over node:http. Turns absolute-form requests, CONNECT tunnels and the requests inside them
 * into one kind of Accepted, whatever shape they came in. Knows HTTP/1.1 and sockets; nothing of policy or credentials.
 */
import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { SecureContext, TLSSocket } from 'node:tls';
import type { Destination, Scheme } from '../core/destination.ts';
import { asFault, Fault, type FaultCode } from '../core/fault.ts';
import { fromRaw } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import { listening } from '../ops/admin.ts';
import type { Clock } from '../ops/clock.ts';
import type { Accepted } from './exchange.ts';
import { type Admitted, admit, readRequestTarget } from './listener/admit.ts';
import { acceptTls, startsWithTls } from './listener/handshake.ts';
import { NodeBody } from './listener/node-body.ts';
import { NodeSink } from './listener/node-sink.ts';
import { type Spliced, splice } from './listener/splice.ts';
import { closesConnection, problemBytes, respond } from './respond.ts';

/** A CONNECT that waits to be answered. */
export interface Tunnel {
  readonly id: string;
  readonly acceptedAtMs: number;
  readonly acceptedAtMonotonic: number;
  readonly traceId: string;
  /** CONNECT's request target as received. */
  readonly connect: string;
  /** Answers 200 and takes the program's TLS (or plain HTTP) itself; its requests come through `request`. */
  readonly intercept: (destination: Destination, secureContext: SecureContext) => void;
  /** Answers 200 and joins the two connections. */
  readonly splice: (target: Socket) => Promise<Spliced>;
  readonly refuse: (fault: Fault) => void;
}

export interface ListenerHandlers {
  /** Never rejects: it has answered, one way or the other. */
  readonly request: (accepted: Accepted) => Promise<void>;
  readonly tunnel: (tunnel: Tunnel) => Promise<void>;
  /** A request that never became an exchange. */
  readonly refused: (fault: Fault) => void;
}

export interface ListenerOptions {
  readonly host: string;
  readonly port: number;
  readonly clock: Clock;
  readonly handlers: ListenerHandlers;
  readonly onConnections?: (kind: 'client' | 'tunnel', delta: 1 | -1) => void;
}

export interface Listener {
  readonly address: AddressInfo;
  /** No new connections; those that wait for a request are closed, those in a request finish it. */
  readonly drain: (timeoutMs: number) => Promise<void>;
}

/** What a tunnel has established about the requests inside it. */
interface TunnelClaims {
  readonly connect: string;
  readonly sni: string | undefined;
  readonly scheme: Scheme;
}

export const startListener = async ({ host, port, clock, handlers, onConnections }: ListenerOptions): Promise<Listener> => {
  const tunnels = new WeakMap<Socket, TunnelClaims>();
  /** The exchange that a connection is in the middle of. */
  const current = new WeakMap<Socket, { readonly body: NodeBody | undefined; readonly response: ServerResponse }>();
  /** Connections that were answered with an end: whatever else they have sent is nobody's request. */
  const ending = new WeakSet<Socket>();
  const sockets = new Set<Socket>();
  const open = new Set<ServerResponse>();
  let isDraining = false;

  const accept = (request: IncomingMessage, sink: NodeSink, admitted: Admitted, body: NodeBody | undefined): Accepted => {
    const inside = tunnels.get(request.socket);
    const { scheme, absolute, rawTarget } = readRequestTarget(request.url as string, inside?.scheme);
    return {
      ...identifiers(request, clock),
      scheme,
      method: request.method as string,
      rawTarget,
      claims: { connect: inside?.connect, sni: inside?.sni, absolute, host: admitted.host },
      headers: fromRaw(request.rawHeaders),
      body,
      sink,
    };
  };

  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    if (ending.has(request.socket)) return;
    const sink = new NodeSink(request, response, clock.monotonic);
    if (isDraining) response.shouldKeepAlive = false;
    open.add(response);
    response.once('close', () => {
      open.delete(response);
      if (isDraining) server.closeIdleConnections();
    });
    try {
      const admitted = admit(headOf(request));
      const sayContinue = (): void => {
        if (admitted.expectsContinue && !response.headersSent) response.writeContinue();
      };
      const body = admitted.hasBody ? new NodeBody(request, sayContinue) : undefined;
      current.set(request.socket, { body, response });
      const accepted = accept(request, sink, admitted, body);
      void handlers.request(accepted).then(() => body?.return());
    } catch (thrown) {
      const fault = asFault(thrown);
      if (closesConnection(fault)) ending.add(request.socket);
      handlers.refused(fault);
      respond(sink, fault, randomUUID());
    }
  };

  const onConnect = (request: IncomingMessage, socket: Socket, head: Buffer): void => {
    // From here the connection is no longer the HTTP server's: its errors and time limits are ours.
    socket.setTimeout(0);
    socket.on('error', () => undefined);
    const refuse = (fault: Fault): void => void socket.end(problemBytes(fault, randomUUID()));
    try {
      if (tunnels.has(socket)) throw new Fault('method_refused', { detail: 'CONNECT inside a tunnel.' });
      const { host: hostField } = admit(headOf(request));
      const connect = request.url as string;
      // RFC 9112 section 3.2.3: Host repeats the authority. One without a port, as some clients send, is completed.
      if (hostField !== undefined && !isSameAuthority(connect, hostField)) throw new Fault('authority_mismatch');
      void handlers.tunnel({
        ...identifiers(request, clock),
        connect,
        intercept: (destination, secureContext) => void intercept(socket, head, connect, destination, secureContext),
        splice: (target) => {
          socket.write(established);
          return counted('tunnel', splice(socket, target, head));
        },
        refuse,
      });
    } catch (thrown) {
      const fault = asFault(thrown);
      handlers.refused(fault);
      refuse(fault);
    }
  };

  const intercept = async (
    socket: Socket,
    head: Buffer,
    connect: string,
    destination: Destination,
    secureContext: SecureContext,
  ): Promise<void> => {
    socket.write(established);
    const isTls = await startsWithTls(socket, head);
    if (isTls === undefined) return void socket.destroy();
    if (!isTls) {
      tunnels.set(socket, { connect, sni: undefined, scheme: 'http' });
      return void server.emit('connection', socket);
    }
    const secured: TLSSocket | undefined = await acceptTls(socket, secureContext);
    if (!secured) return undefined;
    // `servername` is false when the program sent none.
    tunnels.set(secured, {
      connect,
      sni: (secured as { servername?: string | false }).servername || undefined,
      scheme: destination.scheme,
    });
    return void server.emit('connection', secured);
  };

  const counted = async <T>(kind: 'client' | 'tunnel', until: Promise<T>): Promise<T> => {
    onConnections?.(kind, 1);
    try {
      return await until;
    } finally {
      onConnections?.(kind, -1);
    }
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
  });
  server.maxHeadersCount = 0;
  server.maxConnections = limits.clientConnectionsMax;
  server.maxRequestsPerSocket = 0;
  server.timeout = limits.clientStallTimeoutMs;
  server.on('request', onRequest);
  server.on('checkContinue', onRequest);
  server.on('checkExpectation', onRequest);
  server.on('connect', onConnect);
  server.on('clientError', onClientError);
  server.on('connection', (socket: Socket) => {
    // A tunnel's inner connection, and plain HTTP on a tunnel's own, come by here again.
    if (sockets.has(socket)) return;
    sockets.add(socket);
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    void (tunnels.has(socket) ? closed : counted('client', closed)).then(() => sockets.delete(socket));
  });
  await listening(server, host, port);

  return {
    address: server.address() as AddressInfo,
    drain: async (timeoutMs) => {
      isDraining = true;
      const closed = new Promise((resolve) => server.close(resolve));
      // Requests in flight end their connection, and say so if their answer has not begun.
      for (const response of open) if (!response.headersSent) response.shouldKeepAlive = false;
      server.closeIdleConnections();
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, timeoutMs);
      await closed;
      clearTimeout(timer);
      for (const socket of sockets) socket.destroy();
    },
  };
};

const established = 'HTTP/1.1 200 Connection Established\r\n\r\n';

const headOf = (request: IncomingMessage) => ({
  method: request.method as string,
  target: request.url as string,
  httpVersion: request.httpVersion,
  headers: fromRaw(request.rawHeaders),
});

const identifiers = (request: IncomingMessage, clock: Clock) => ({
  id: randomUUID(),
  acceptedAtMs: clock.now(),
  acceptedAtMonotonic: clock.monotonic(),
  traceId: traceIdOf(request.headers['traceparent']),
});

/** The trace-id of a W3C traceparent (https://www.w3.org/TR/trace-context/#traceparent-header), or ''. */
const traceIdOf = (traceparent: string | string[] | undefined): string => {
  const match = typeof traceparent === 'string' ? /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(traceparent) : null;
  return match?.[1] ?? '';
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
