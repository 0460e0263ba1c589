/**
 * The way in for connections that steering rules turn to this proxy (iptables REDIRECT, which sends them to loopback): finds where each was
 * going, offers to look at its first bytes, and hands it on. Knows sockets; nothing of targets, policy or credentials.
 */
import { randomUUID } from 'node:crypto';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { DialAddress } from '../../net/dial.ts';
import { loadOriginalDestination, type OriginalDestination } from '../../net/original-destination.ts';
import { listening } from '../../ops/admin.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Listener, Purpose } from '../listener.ts';
import { problemBytes } from '../respond.ts';
import { readClientHello } from './client-hello.ts';
import { hostOfHead, httpStart } from './http-head.ts';
import { peek, startsTls } from './sniff.ts';
import type { Spliced } from './splice.ts';

/** What the first bytes say; `name` is canonical, and what the program claims, no more. */
export type FirstBytes =
  | { readonly kind: 'tls' | 'http1'; readonly name: string | undefined }
  /** HTTP/2 in clear text: only its requests have names. */
  | { readonly kind: 'h2' }
  /** Another protocol, or one in which the server speaks first. */
  | { readonly kind: 'other' };

export interface SteeredConnection {
  readonly id: string;
  readonly acceptedAtMs: number;
  readonly acceptedAtMonotonic: number;
  /** Where the program sent it. */
  readonly original: DialAddress;
  /** Looks at the first bytes, which stay where they are; `silent` programs are waited for a moment only. */
  readonly look: () => Promise<FirstBytes>;
  /** Takes it for one place, or (HTTP/2 in clear text) for whatever its requests name. */
  readonly serve: (purpose: Omit<Purpose, 'originalAddress'>) => void;
  /** Joins it to a connection to its original destination. */
  readonly splice: (target: Socket) => Promise<Spliced>;
  /** Ends it, with a reason where the program's protocol is known to have room for one. */
  readonly refuse: (fault: Fault) => void;
}

export interface TransparentOptions {
  readonly port: number;
  readonly clock: Clock;
  readonly listener: Pick<Listener, 'serve' | 'track' | 'join'>;
  /** Never rejects: it has served, joined or refused. */
  readonly handler: (connection: SteeredConnection) => Promise<void>;
  /** A connection that nothing steered here: it has no destination but ourselves. */
  readonly refused: (fault: Fault) => void;
  readonly originalOf?: OriginalDestination;
}

export interface TransparentListener {
  /** One for each IP version that this machine has. */
  readonly addresses: readonly AddressInfo[];
  /** No new connections; those there are stay, and are the listener's to drain. */
  readonly close: () => void;
}

export const startTransparentListener = async (options: TransparentOptions): Promise<TransparentListener> => {
  const originalOf = options.originalOf ?? (await loadOriginalDestination());
  const onConnection = (socket: Socket): void => {
    socket.on('error', () => undefined);
    const original = originalOf(socket);
    if (original === undefined) {
      options.refused(new Fault('authority_invalid', { detail: 'The connection was not steered here: it has no destination.' }));
      return void socket.resetAndDestroy();
    }
    if (!options.listener.track(socket)) return undefined;
    return void options.handler(steered(socket, original, options));
  };
  const servers: Server[] = [];
  try {
    const first = await listenOn('127.0.0.1', options.port, onConnection);
    servers.push(first);
    const second = await listenOn('::1', (first.address() as AddressInfo).port, onConnection).catch(unlessAbsent);
    if (second) servers.push(second);
  } catch (error) {
    for (const server of servers) server.close();
    throw error;
  }
  return {
    addresses: servers.map((server) => server.address() as AddressInfo),
    close: () => {
      for (const server of servers) server.close();
    },
  };
};

const listenOn = async (host: string, port: number, onConnection: (socket: Socket) => void): Promise<Server> => {
  const server = createServer(
    { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: limits.tcpKeepAliveDelayMs },
    onConnection,
  );
  await listening(server, host, port);
  return server;
};

/** A machine without IPv6 steers none of it. */
const unlessAbsent = (error: Error): undefined => {
  const { code } = (error.cause ?? error) as NodeJS.ErrnoException;
  if (code !== 'EADDRNOTAVAIL' && code !== 'EAFNOSUPPORT') throw error;
};

const noBytes = Buffer.alloc(0);

const bounds = {
  silenceMs: limits.serverFirstAfterMs,
  headMs: limits.peekTimeoutMs,
  // Room for records around a ClientHello; above the bounds of an HTTP head too.
  bytesMax: 2 * limits.clientHelloBytesMax,
};

const read = (bytes: Buffer): FirstBytes | 'more' => {
  if (startsTls(bytes)) {
    const hello = readClientHello(bytes);
    if (hello === 'more') return 'more';
    return hello === 'not-tls' ? { kind: 'other' } : { kind: 'tls', name: hello.serverName };
  }
  const start = httpStart(bytes);
  if (start !== 'http1') return start === 'more' ? 'more' : { kind: start };
  const head = hostOfHead(bytes);
  return head === 'more' ? 'more' : { kind: 'http1', name: head.host };
};

/** Fatal, access_denied (RFC 8446 section 6), in a record of the version that every client takes before it knows another. */
const accessDenied = Buffer.from([21, 3, 1, 0, 2, 2, 49]);

/** The rest of what the program sends is read and dropped: a reset would take the answer back from under its eyes. */
const endWith = (socket: Socket, answer: Buffer | string): void => {
  socket.setTimeout(limits.earlyAnswerDrainMs, () => socket.destroy());
  socket.end(answer);
  socket.resume();
};

const steered = (socket: Socket, original: DialAddress, { clock, listener }: TransparentOptions): SteeredConnection => {
  const id = randomUUID();
  let seen: FirstBytes = { kind: 'other' };
  /** What could not be put back into the socket. */
  let rest: Buffer = noBytes;
  return {
    id,
    acceptedAtMs: clock.now(),
    acceptedAtMonotonic: clock.monotonic(),
    original,
    look: async () => {
      const peeked = await peek(socket, noBytes, bounds, read);
      rest = peeked.rest;
      seen = peeked.found ?? { kind: 'other' };
      return seen;
    },
    serve: (purpose) => void listener.serve(socket, rest, { ...purpose, originalAddress: original }),
    splice: (target) => listener.join(socket, target, rest),
    refuse: (fault) => {
      if (seen.kind === 'http1') return endWith(socket, problemBytes(fault, id));
      if (seen.kind === 'tls') return endWith(socket, accessDenied);
      return void socket.resetAndDestroy();
    },
  };
};
