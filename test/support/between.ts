/** The proxy's whole request path between a program and a target that a test writes itself, both down to bytes if need be. */
import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { createServer as createHttpServer } from 'node:http';
import { type ClientHttp2Session, type ClientSessionOptions, connect as connectH2 } from 'node:http2';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Test } from 'tap';
import { listen, type RunningTarget } from '../net/outbound/targets.ts';
import { createTestAuthority } from './certificates.ts';
import { directoryOf } from './directory.ts';
import { type Path, type PathOptions, startPath, target, tunnelTo } from './path.ts';

export const host = 'echo.outrider.test';
export const authority = createTestAuthority();
export const files = authority.serverFor(host);

export interface Between {
  readonly path: Path;
  /** Its connections, open and ever accepted. */
  readonly origin: RunningTarget;
}

/** The target's port is dialled for `host`, 80 and 443; `target` changes what the broker says of it. */
export const between = async (
  t: Test,
  server: Pick<Server, 'listen' | 'address' | 'on' | 'close' | 'once'>,
  options: Partial<PathOptions> & { readonly target?: Parameters<typeof target>[1]; readonly morePins?: PathOptions['pins'] } = {},
): Promise<Between> => {
  const { target: changes, morePins = [], ...rest } = options;
  const origin = await listen(t, server);
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo', changes)],
    pins: [...[80, 443].map((port) => ({ host, port, address: '127.0.0.1', addressPort: origin.port })), ...morePins],
    trustPem: authority.pem,
    ...rest,
  });
  t.teardown(() => path.close());
  return { path, origin };
};

export const httpTarget = (answer: RequestListener): Server => createHttpServer(answer);

export interface Conversation {
  readonly socket: Duplex;
  readonly say: (text: string | Buffer) => void;
  /** All that was received, as latin1. */
  readonly text: () => string;
  /** Resolves with the text once it matches; rejects when the other end closes before. */
  readonly until: (pattern: RegExp) => Promise<string>;
  /** How the other end ended it: an orderly end, or a broken connection. */
  readonly end: Promise<'end' | 'broken'>;
}

/** Reads everything from the moment it is called. */
export const talk = (socket: Duplex): Conversation => {
  let text = '';
  let isOver = false;
  const waiting = new Set<() => void>();
  const wake = (): void => {
    for (const one of waiting) one();
  };
  const end = new Promise<'end' | 'broken'>((resolve) => {
    socket.once('end', () => resolve('end'));
    socket.on('error', () => resolve('broken'));
    socket.once('close', () => {
      isOver = true;
      resolve('broken');
      wake();
    });
  });
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
    wake();
  });
  return {
    socket,
    say: (more) => void socket.write(typeof more === 'string' ? Buffer.from(more, 'latin1') : more),
    text: () => text,
    until: (pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (pattern.test(text)) resolve(text);
          else if (isOver) reject(new Error(`closed after ${JSON.stringify(text.slice(-500))}, before ${pattern}`));
          else return;
          waiting.delete(look);
        };
        waiting.add(look);
        look();
      }),
    end,
  };
};

/** A target that is told every connection and the bytes it gets. What it still waits for when a test is over is nobody's. */
export const rawTarget = (
  onConnection: (conversation: Conversation & { readonly socket: Socket }) => void | Promise<void>,
  { allowHalfOpen = false } = {},
): Server =>
  createServer({ allowHalfOpen, noDelay: true }, (socket) => {
    const conversation = talk(socket) as Conversation & { readonly socket: Socket };
    Promise.resolve(onConnection(conversation)).catch(() => undefined);
  });

/** A connection to the forward proxy, or to one of its reverse routes. */
export const program = async (
  path: Path,
  { allowHalfOpen = false, port = path.port } = {},
): Promise<Conversation & { readonly socket: Socket }> => {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true, allowHalfOpen });
  const conversation = talk(socket) as Conversation & { readonly socket: Socket };
  await once(socket, 'connect');
  return conversation;
};

export const tunnel = async (path: Path, authorityOf = `${host}:443`): Promise<Socket> => {
  const { socket, refusal } = await tunnelTo(path.port, authorityOf);
  if (refusal !== undefined) throw new Error(refusal);
  return socket;
};

/** CONNECT and TLS inside, offering these protocols. */
export const tlsTunnel = async (path: Path, alpn: readonly string[] | undefined): Promise<TLSSocket> => {
  const socket = await tunnel(path);
  const secured = connectTls({ socket, ca: path.bundle, servername: host, ...(alpn ? { ALPNProtocols: [...alpn] } : {}) });
  await once(secured, 'secureConnect');
  return secured;
};

/** HTTP/2 over a connection; closed with the test. */
export const h2Over = (t: Test, socket: Duplex, options: ClientSessionOptions = {}): ClientHttp2Session => {
  const session = connectH2(`https://${host}`, { ...options, createConnection: () => socket });
  session.on('error', () => undefined);
  t.teardown(() => session.destroy());
  return session;
};

/** HTTP/2 through CONNECT and TLS. */
export const h2Program = async (t: Test, path: Path, options: ClientSessionOptions = {}): Promise<ClientHttp2Session> =>
  h2Over(t, await tlsTunnel(path, ['h2']), options);

/** An answer of HTTP/1.1 with a Content-Length, whole, as `until` takes it. */
export const whole = (status: number, body: string): RegExp => new RegExp(`^HTTP/1\\.1 ${status} [^]*\\r\\n\\r\\n${body}$`);

/** Resolves with the outcome of a request, once it is recorded. */
export const outcomeOf = async (path: Path, count = 1): Promise<Path['events'][number]> => {
  for (;;) {
    const outcomes = path.events.filter(({ kind }) => kind !== 'intent');
    const found = outcomes[count - 1];
    if (found) return found;
    await new Promise((resolve) => setImmediate(resolve));
  }
};

export { until } from '../net/outbound/targets.ts';
