/**
 * listener: the ways in. The explicit forward proxy (absolute-form and CONNECT), reverse routes, and connections that transparent mode
 * hands over all come to the same two HTTP engines and make one kind of Accepted. Knows sockets; nothing of policy or credentials.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { defaultPort, type Destination, hostPort } from '../core/destination.ts';
import type { Fault } from '../core/fault.ts';
import { fromRaw } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import { listening } from '../ops/admin.ts';
import type { Clock } from '../ops/clock.ts';
import { type ConnectionClaims, type EngineHandlers, identifiers, ordinaryPatience, type Patience } from './listener/connection.ts';
import type { TlsTerms } from './listener/handshake.ts';
import { createHttp1 } from './listener/http1.ts';
import { createHttp2 } from './listener/http2.ts';
import { createServing, type Serve } from './listener/serving.ts';
import { type Spliced, splice } from './listener/splice.ts';
import { problemBytes } from './respond.ts';

export type { TlsTerms } from './listener/handshake.ts';
export type { Purpose, Serve } from './listener/serving.ts';

/** A CONNECT that waits to be answered. */
export interface Tunnel {
  readonly id: string;
  readonly acceptedAtMs: number;
  readonly acceptedAtMonotonic: number;
  readonly traceId: string;
  /** CONNECT's request target as received. */
  readonly connect: string;
  /** Answers 200 and takes the program's TLS (or HTTP in clear text) itself; its requests come through `request`. */
  readonly intercept: (destination: Destination, tls: TlsTerms) => void;
  /** Answers 200 and joins the two connections. */
  readonly splice: (target: Socket) => Promise<Spliced>;
  readonly refuse: (fault: Fault) => void;
}

export interface ListenerHandlers extends EngineHandlers {
  readonly tunnel: (tunnel: Tunnel) => Promise<void>;
}

/** A port of this machine that stands for one destination. */
export interface RouteOptions {
  readonly listen: { readonly host: string; readonly port: number };
  readonly to: Destination;
}

export interface ListenerOptions {
  readonly host: string;
  readonly port: number;
  readonly routes?: readonly RouteOptions[];
  readonly clock: Clock;
  readonly handlers: ListenerHandlers;
  /** limits.ts unless a test says otherwise. */
  readonly patience?: Partial<Patience>;
  readonly onConnections?: (kind: 'client' | 'tunnel', delta: 1 | -1) => void;
}

export interface Listener {
  readonly address: AddressInfo;
  /** Of the reverse routes, in their order. */
  readonly routes: readonly AddressInfo[];
  /** Takes a connection that came in by another way and is for one place. */
  readonly serve: Serve;
  /** Counts a connection as a program's, and ends it when the drain's time is over. */
  readonly track: (socket: Socket) => void;
  /** Joins a program's connection to a target's and counts it as a tunnel. */
  readonly join: (client: Socket, target: Socket, head: Buffer) => Promise<Spliced>;
  /** No new connections; those that wait for a request are closed, those in a request finish it. */
  readonly drain: (timeoutMs: number) => Promise<void>;
}

export const startListener = async (options: ListenerOptions): Promise<Listener> => {
  const { clock, handlers, onConnections } = options;
  const connections = new WeakMap<object, ConnectionClaims>();
  const sockets = new Set<Socket>();

  const counted = async <T>(kind: 'client' | 'tunnel', until: Promise<T>): Promise<T> => {
    onConnections?.(kind, 1);
    try {
      return await until;
    } finally {
      onConnections?.(kind, -1);
    }
  };
  const track = (socket: Socket): void => {
    // A tunnel's inner connection, and what is handed to the engine from another way in, come by here again.
    if (sockets.has(socket) || connections.has(socket)) return;
    sockets.add(socket);
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    void counted('client', closed).then(() => sockets.delete(socket));
  };
  const join = (client: Socket, target: Socket, head: Buffer): Promise<Spliced> => counted('tunnel', splice(client, target, head));

  const onConnect = (request: IncomingMessage, socket: Socket, head: Buffer): void => {
    const connect = request.url as string;
    void handlers.tunnel({
      ...identifiers(fromRaw(request.rawHeaders), clock),
      connect,
      intercept: ({ scheme }, tls) => {
        socket.write(established);
        void serve(socket, head, { connect, schemes: { tls: scheme, clear: 'http' }, tls });
      },
      splice: (target) => {
        socket.write(established);
        return join(socket, target, head);
      },
      refuse: (fault) => void socket.end(problemBytes(fault, randomUUID())),
    });
  };
  const patience = { ...ordinaryPatience, ...options.patience };
  const http1 = createHttp1({ clock, patience, handlers, connections, onConnect });
  const http2 = createHttp2({ clock, patience, handlers, connections });
  const serve = createServing({ connections, http1, http2, refused: handlers.refused });

  http1.server.on('connection', track);
  const routes: Server[] = [];
  const servers = (): Server[] => [http1.server, ...routes];
  try {
    await listening(http1.server, options.host, options.port);
    for (const route of options.routes ?? []) {
      const server = createRoute(route, (socket, ownAuthorities) => {
        track(socket);
        const { scheme } = route.to;
        void serve(socket, noBytes, {
          connect: hostPort(route.to),
          schemes: { tls: scheme, clear: scheme },
          tls: undefined,
          ownAuthorities,
        });
      });
      await listening(server, route.listen.host, route.listen.port);
      routes.push(server);
    }
  } catch (error) {
    for (const server of servers()) server.close();
    throw error;
  }

  return {
    address: http1.server.address() as AddressInfo,
    routes: routes.map((server) => server.address() as AddressInfo),
    serve,
    track,
    join,
    drain: async (timeoutMs) => {
      const closed = servers().map((server) => new Promise((resolve) => server.close(resolve)));
      const gone = [...sockets].map((socket) => new Promise((resolve) => socket.once('close', resolve)));
      http1.drain();
      http2.drain();
      const timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, timeoutMs);
      await Promise.all([...closed, ...gone]);
      clearTimeout(timer);
    },
  };
};

const createRoute = ({ listen }: RouteOptions, take: (socket: Socket, ownAuthorities: readonly string[]) => void): Server => {
  const server = createServer(
    { noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.tcpKeepAliveDelayMs, allowHalfOpen: true },
    (socket) => {
      socket.on('error', () => undefined);
      // The names by which programs on this machine may call the port; any other Host must be the destination's own (DNS rebinding).
      const { port } = server.address() as AddressInfo;
      const names = [listen.host, 'localhost', '127.0.0.1', '::1'].map((host) => hostPort({ host, port }));
      take(socket, port === defaultPort('http') ? names.flatMap((name) => [name, name.replace(/:80$/, '')]) : names);
    },
  );
  server.maxConnections = limits.clientConnectionsMax;
  return server;
};

const established = 'HTTP/1.1 200 Connection Established\r\n\r\n';
const noBytes = Buffer.alloc(0);
