/** Targets of all kinds on 127.0.0.1, whose connections are counted, and requests to them through the outbound as the proxy makes them. */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Test } from 'tap';
import type { Fault } from '../../../src/core/fault.ts';
import type { HeaderList } from '../../../src/core/headers.ts';
import { createDialer, createResolver } from '../../../src/net/dial.ts';
import { createOutbound, type Outbound, type OutboundOptions, type OutboundRequest, type Sending } from '../../../src/net/outbound.ts';
import { createTestAuthority } from '../../support/certificates.ts';

export const host = 'target.outrider.test';
export const authority = createTestAuthority();

export interface RunningTarget {
  readonly port: number;
  /** Open now. */
  readonly sockets: ReadonlySet<Socket>;
  /** Ever accepted. */
  readonly accepted: () => number;
}

/** Any server of Node: net, tls, http, https or http2. */
export const listen = async (t: Test, server: Pick<Server, 'listen' | 'address' | 'on' | 'close' | 'once'>): Promise<RunningTarget> => {
  const sockets = new Set<Socket>();
  let accepted = 0;
  server.on('connection', (socket: Socket) => {
    accepted += 1;
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server as Server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, sockets, accepted: () => accepted };
};

/** A target that answers the first bytes of every connection with these, then does what `after` says. */
export const scripted = (bytes: string, after: (socket: Socket) => void = () => undefined): Server =>
  createServer((socket) => {
    socket.once('data', () => socket.write(bytes, 'latin1', () => after(socket)));
  });

export const outboundFor = (t: Test, port: number, options: Partial<OutboundOptions> = {}): Outbound => {
  const pins = [80, 443].map((pinned) => ({ host, port: pinned, address: '127.0.0.1', addressPort: port }));
  const dialer = createDialer({ resolver: createResolver(pins), chain: undefined });
  const outbound = createOutbound({ dialer, trustPems: [authority.pem], ...options });
  t.teardown(() => outbound.close());
  return outbound;
};

export const bodyOf = (chunks: AsyncIterable<Uint8Array> | readonly string[], trailers: HeaderList = []): OutboundRequest['body'] => ({
  chunks: Array.isArray(chunks) ? fromStrings(chunks) : (chunks as AsyncIterable<Uint8Array>),
  trailers: () => trailers,
});

async function* fromStrings(chunks: readonly string[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) yield Buffer.from(chunk);
}

type Changes = Partial<Omit<OutboundRequest, 'connection' | 'destination'>> & {
  readonly scheme?: 'http' | 'https';
  readonly connection?: Partial<OutboundRequest['connection']>;
};

export const requestOf = ({ scheme = 'http', connection, ...rest }: Changes = {}): OutboundRequest => ({
  destination: { scheme, host, port: scheme === 'https' ? 443 : 80 },
  connection: { protocol: 'auto', trustBundlePem: '', tlsVersionMin: 'TLSv1.2', clientCertificate: undefined, ...connection },
  dialPolicy: { privateAllowed: true, named: [] },
  address: undefined,
  method: 'GET',
  path: '/',
  headers: [],
  body: undefined,
  upgrade: undefined,
  expectsContinue: false,
  ...rest,
});

export interface Received {
  readonly sending: Sending;
  readonly informational: { readonly status: number; readonly headers: HeaderList }[];
  /** In the order things arrived: '1xx 103', 'head 200', 'data 5', 'upgraded'. */
  readonly log: string[];
  status: number;
  reason: string;
  headers: HeaderList;
  text: string;
  bytes: number;
  target: Duplex | undefined;
  /** Trailers, or the Fault: never rejects. */
  readonly ended: Promise<
    { readonly trailers: HeaderList; readonly fault: undefined } | { readonly trailers: undefined; readonly fault: Fault }
  >;
  /** The next time anything is received. */
  readonly next: () => Promise<void>;
  /** Reads no more until `resume`. */
  pause: () => void;
  resume: () => void;
}

export const send = (outbound: Outbound, request: OutboundRequest, { isPaused = false } = {}): Received => {
  let paused = isPaused;
  let drain: (() => void) | undefined;
  let wake = Promise.withResolvers<void>();
  const tell = (what: string): void => {
    received.log.push(what);
    wake.resolve();
    wake = Promise.withResolvers();
  };
  const received: Omit<Received, 'sending' | 'ended'> = {
    informational: [],
    log: [],
    status: 0,
    reason: '',
    headers: [],
    text: '',
    bytes: 0,
    target: undefined,
    next: () => wake.promise,
    pause: () => {
      paused = true;
    },
    resume: () => {
      paused = false;
      drain?.();
    },
  };
  const sending = outbound.send(request, {
    informational: (status, headers) => {
      received.informational.push({ status, headers });
      tell(`1xx ${status}`);
    },
    head: (status, reason, headers) => {
      Object.assign(received, { status, reason, headers });
      tell(`head ${status}`);
    },
    data: (chunk) => {
      received.bytes += chunk.length;
      if (received.bytes < 1_000_000) received.text += Buffer.from(chunk).toString('latin1');
      tell(`data ${chunk.length}`);
      return !paused;
    },
    onDrain: (resume) => {
      drain = resume;
    },
    upgraded: (headers, target) => {
      Object.assign(received, { headers, target });
      tell('upgraded');
    },
  });
  const ended = sending.done.then(
    (trailers) => ({ trailers, fault: undefined }),
    (fault: Fault) => ({ trailers: undefined, fault }),
  );
  return Object.assign(received, { sending, ended });
};

/** The whole exchange; throws its Fault. */
export const whole = async (outbound: Outbound, request: OutboundRequest): Promise<Received & { readonly trailers: HeaderList }> => {
  const received = send(outbound, request);
  const trailers = await received.sending.done;
  return Object.assign(received, { trailers });
};

/** The code of the Fault an exchange ends with; '' when it succeeds. */
export const faultOf = async (outbound: Outbound, request: OutboundRequest): Promise<string> =>
  (await send(outbound, request).ended).fault?.code ?? '';

/** Asks again after every turn of the event loop until it holds; the test's own time limit is the bound. */
export const until = async (holds: () => boolean): Promise<void> => {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
};

/** Until a number has not changed for 200 turns of the loop: what is written into a connection that nobody reads, once every buffer is full. */
export const untilStill = async (number: () => number): Promise<void> => {
  let last = -1;
  for (let still = 0; still < 200; still = number() === last ? still + 1 : 0) {
    last = number();
    await new Promise((resolve) => setImmediate(resolve));
  }
};
