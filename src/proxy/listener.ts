/**
 * listener: the ways in. The explicit forward proxy (absolute-form and CONNECT), reverse routes, and connections that transparent mode
 * hands over all come to the same two HTTP engines and make one kind of Accepted. Knows sockets; nothing of policy or credentials.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { defaultPort, type Destination, hostPort } from '../core/destination.ts';
import { Fault } from '../core/fault.ts';
import { fromRaw } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import { listening } from '../ops/admin.ts';
import type { Clock } from '../ops/clock.ts';
import { destroyWhenLost } from '../ops/connection-end.ts';
import { type ConnectionClaims, type EngineHandlers, identifiers, ordinaryPatience, type Patience } from './listener/connection.ts';
import type { TlsTerms } from './listener/handshake.ts';
import type { Aside } from './listener/aside.ts';
import { createConcurrency, type Excess } from './listener/concurrency.ts';
import { createHttp1 } from './listener/http1.ts';
import { createHttp2 } from './listener/http2.ts';
import { leave } from './listener/leave.ts';
import { type Closure, createOccupancy } from './listener/occupancy.ts';
import { createServing, type Serve } from './listener/serving.ts';
import { type Spliced, splice } from './listener/splice.ts';
import type { Accepted } from './exchange.ts';
import { problemBytes, respond } from './respond.ts';

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

export interface ListenerHandlers extends Pick<EngineHandlers, 'refused'> {
  /** Never rejects: it has answered, one way or the other. */
  readonly request: (accepted: Accepted) => Promise<void>;
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
  /** limits.ts unless a test, or the system, says otherwise. */
  readonly connectionsMax?: number;
  readonly noticeMs?: number;
  /** Whether memory is short: then only a few requests run at a time. */
  readonly isMemoryShort?: () => boolean;
  readonly onOverload?: (reason: Overload) => void;
}

/** Why somebody was turned away, or closed, for load. */
export type Overload = Closure | Excess | 'connections' | 'connections_dropped' | 'descriptors';

export interface Listener {
  readonly address: AddressInfo;
  /** Of the reverse routes, in their order. */
  readonly routes: readonly AddressInfo[];
  /** Takes a connection that came in by another way and is for one place. */
  readonly serve: Serve;
  /**
   * Takes a connection in as a program's, and ends it when the drain's time is over; false: it was closed, there is no room. `refuse` says
   * so to the program first.
   */
  readonly track: (socket: Socket, refuse?: (fault: Fault) => void) => boolean;
  /** Closes some connections that have kept us waiting; for when memory is short. */
  readonly makeRoom: () => void;
  /** Joins a program's connection to a target's and counts it as a tunnel. */
  readonly join: (client: Socket, target: Socket, head: Buffer) => Promise<Spliced>;
  /**
   * Tells everybody that this is the end, and a moment later takes no new connections: those that wait for a request are closed, those in
   * one finish it, within the time.
   */
  readonly drain: (timeoutMs: number) => Promise<void>;
}

export const startListener = async (options: ListenerOptions): Promise<Listener> => {
  const { clock, handlers, onConnections, onOverload = () => undefined } = options;
  const connections = new WeakMap<object, ConnectionClaims>();
  /** Where TLS was taken off: the engine knows the inner socket. */
  const inner = new WeakMap<Socket, TLSSocket>();
  const patience = { ...ordinaryPatience, ...options.patience };
  const occupancy = createOccupancy({
    patience,
    max: options.connectionsMax ?? limits.clientConnectionsMax,
    now: clock.monotonic,
    standingOf: (socket) => {
      const end = inner.get(socket) ?? socket;
      return http2.standingOf(end) ?? http1.standingOf(end);
    },
    onClosed: onOverload,
  });
  let refusals = 0;

  const counted = async <T>(kind: 'client' | 'tunnel', until: Promise<T>): Promise<T> => {
    onConnections?.(kind, 1);
    try {
      return await until;
    } finally {
      onConnections?.(kind, -1);
    }
  };
  const turnAway = (socket: Socket, refuse: ((fault: Fault) => void) | undefined): void => {
    if (refuse === undefined || refusals >= limits.clientRefusalsMax) {
      onOverload('connections_dropped');
      return void socket.destroy();
    }
    refusals += 1;
    socket.once('close', () => (refusals -= 1));
    onOverload('connections');
    const fault = new Fault('overloaded', { detail: 'There are too many connections.' });
    handlers.refused(fault);
    return refuse(fault);
  };
  const track = (socket: Socket, refuse?: (fault: Fault) => void): boolean => {
    if (!occupancy.admit(socket)) {
      turnAway(socket, refuse);
      return false;
    }
    destroyWhenLost(socket, patience.lostLookMs);
    void counted('client', new Promise<void>((resolve) => socket.once('close', () => resolve())));
    return true;
  };
  const join = async (client: Socket, target: Socket, head: Buffer): Promise<Spliced> => {
    occupancy.hold(client, true);
    return counted('tunnel', splice(client, target, head));
  };
  const refuseIn = (socket: Socket) => (fault: Fault) => leave(socket, problemBytes(fault, randomUUID()));

  const onConnect = (request: IncomingMessage, socket: Socket, { take }: Aside): void => {
    const connect = request.url as string;
    const turnBack = (fault: Fault): void => {
      occupancy.hold(socket, false);
      take();
      refuseIn(socket)(fault);
    };
    if (concurrency.isFull()) return turnBack(refusedFor('memory'));
    // While it is dialled for, it waits for us.
    occupancy.hold(socket, true);
    void handlers.tunnel({
      ...identifiers(fromRaw(request.rawHeaders), clock),
      connect,
      intercept: ({ scheme }, tls) => {
        occupancy.hold(socket, false);
        socket.write(established);
        void serve(socket, take(), { connect, schemes: { tls: scheme, clear: 'http' }, tls });
      },
      splice: (target) => {
        socket.write(established);
        return join(socket, target, take());
      },
      refuse: turnBack,
    });
  };
  const concurrency = createConcurrency(() => options.isMemoryShort?.() === true);
  const refusedFor = (excess: Excess): Fault => {
    onOverload(excess);
    const fault = new Fault('overloaded', { detail: excess === 'memory' ? 'Memory is short.' : 'Too many requests are under way.' });
    handlers.refused(fault);
    return fault;
  };
  const refuse = (accepted: Accepted, fault: Fault): Promise<void> => {
    respond(accepted.sink, fault, accepted);
    return Promise.resolve();
  };
  const engineHandlers: EngineHandlers = {
    request: (accepted, isFurther) => {
      const entered = concurrency.enter(isFurther);
      return 'excess' in entered ? refuse(accepted, refusedFor(entered.excess)) : handlers.request(accepted).then(entered.leave);
    },
    refused: handlers.refused,
  };
  const http1 = createHttp1({ clock, patience, handlers: engineHandlers, connections, onConnect });
  const http2 = createHttp2({ clock, patience, handlers: engineHandlers, connections });
  const serve = createServing({
    connections,
    http1,
    http2,
    refused: handlers.refused,
    secured: (socket, secured) => inner.set(socket, secured),
  });

  const servers: Server[] = [];
  const open = async (host: string, port: number, take: (socket: Socket, server: Server) => void): Promise<AddressInfo> => {
    const server = createServer(socketOptions, (socket) => {
      socket.on('error', () => undefined);
      if (track(socket, refuseIn(socket))) take(socket, server);
    });
    // Accepting goes on when there are descriptors again: libuv keeps one to turn away with.
    await listening(server, host, port);
    server.on('error', () => onOverload('descriptors'));
    servers.push(server);
    return server.address() as AddressInfo;
  };
  const stop = (): Promise<unknown> => Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  const addresses: AddressInfo[] = [];
  try {
    addresses.push(await open(options.host, options.port, (socket) => http1.serve(socket)));
    for (const route of options.routes ?? []) {
      const { scheme } = route.to;
      addresses.push(
        await open(route.listen.host, route.listen.port, (socket, server) => {
          const purpose = { connect: hostPort(route.to), schemes: { tls: scheme, clear: scheme }, tls: undefined };
          void serve(socket, noBytes, { ...purpose, ownAuthorities: ownAuthorities(route, server) });
        }),
      );
    }
  } catch (error) {
    void stop();
    throw error;
  }

  return {
    address: addresses[0] as AddressInfo,
    routes: addresses.slice(1),
    serve,
    track,
    makeRoom: () => void occupancy.makeRoom(limits.memoryShortSlowMs),
    join,
    drain: async (timeoutMs) => {
      http1.announce();
      http2.announce();
      const noticeMs = options.noticeMs ?? limits.drainNoticeMs;
      if (occupancy.wasUsedWithin(noticeMs)) await pause(noticeMs);
      const stopped = stop();
      const gone = [...occupancy.sockets()].map((socket) => new Promise((resolve) => socket.once('close', resolve)));
      http1.drain();
      http2.drain();
      const ends = [setTimeout(() => occupancy.closeQuiet(), limits.drainQuietMs), setTimeout(() => occupancy.closeAll(), timeoutMs)];
      occupancy.remember();
      await Promise.all([stopped, ...gone]);
      for (const timer of ends) clearTimeout(timer);
      http1.close();
    },
  };
};

const socketOptions = { noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.tcpKeepAliveDelayMs, allowHalfOpen: true } as const;

/** The names by which programs on this machine may call a reverse route; any other Host must be the destination's own (DNS rebinding). */
const ownAuthorities = ({ listen }: RouteOptions, server: Server): readonly string[] => {
  const { port } = server.address() as AddressInfo;
  const names = [listen.host, 'localhost', '127.0.0.1', '::1'].map((host) => hostPort({ host, port }));
  return port === defaultPort('http') ? names.flatMap((name) => [name, name.replace(/:80$/, '')]) : names;
};

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const established = 'HTTP/1.1 200 Connection Established\r\n\r\n';
const noBytes = Buffer.alloc(0);
