/**
 * Peers that do wrong, one way each: nothing there, silence, garbage, wrong certificates, HTTP that is not gRPC, messages that are none.
 * A switchboard in front of them, so that the same caller finds a sound peer at the same address afterwards.
 */
import { once } from 'node:events';
import { createSecureServer, type Http2Session, type ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import type { Test } from 'tap';
import type { ServerIdentity } from '../../../src/rpc/server.ts';

export interface Switchboard {
  readonly address: { readonly port: number };
  /** Where connections go from now on; those that are open are ended. */
  readonly leadTo: (port: number) => void;
}

const openServer = async (t: Test, server: Server): Promise<number> => {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
};

/** To nowhere at first: connections are ended at once. */
export const startSwitchboard = async (t: Test): Promise<Switchboard> => {
  let to = 0;
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    if (to === 0) return void socket.resetAndDestroy();
    const onward = connect({ port: to, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    for (const [one, other] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      one.on('error', () => other.destroy()).once('close', () => other.destroy());
      one.pipe(other);
    }
  });
  const port = await openServer(t, server);
  return {
    address: { port },
    leadTo: (next) => {
      to = next;
      for (const socket of open) socket.destroy();
    },
  };
};

export interface Identities {
  readonly sound: ServerIdentity;
  /** What is wrong with a certificate → one that is wrong so. */
  readonly wrong: Readonly<Record<string, ServerIdentity>>;
}

const filesOf = ({ certificateChainPem, privateKey }: ServerIdentity) => ({
  cert: certificateChainPem,
  key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
});

const onTcp = (t: Test, onSocket: (socket: Socket) => void): Promise<number> => openServer(t, createServer({ noDelay: true }, onSocket));

const onTls = (t: Test, identity: ServerIdentity, onSocket: (socket: TLSSocket) => void, protocols = ['h2']): Promise<number> => {
  const server = createTlsServer({ ...filesOf(identity), ALPNProtocols: protocols }, (socket) => {
    socket.on('error', () => undefined);
    onSocket(socket);
  });
  server.on('tlsClientError', () => undefined);
  return openServer(t, server);
};

export type Answer = (stream: ServerHttp2Stream, session: Http2Session) => void;

/** gRPC's transport with a server that answers every call like this. */
export const onGrpc = (t: Test, identity: ServerIdentity, answer: Answer): Promise<number> => {
  const server = createSecureServer(filesOf(identity));
  server.on('session', (session) => session.on('error', () => undefined));
  server.on('sessionError', () => undefined);
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => undefined);
    stream.resume();
    if (stream.session) answer(stream, stream.session);
  });
  return openServer(t, server);
};

/** One message as it travels: uncompressed, its length before it (gRPC over HTTP/2, "Length-Prefixed-Message"). */
export const framed = (message: Uint8Array, { length = message.length, flag = 0 } = {}): Buffer => {
  const head = Buffer.alloc(5);
  head[0] = flag;
  head.writeUInt32BE(length, 1);
  return Buffer.concat([head, message]);
};

const grpcHead = { ':status': 200, 'content-type': 'application/grpc' };
const endWith = (stream: ServerHttp2Stream, trailers: Record<string, string>): void => {
  stream.once('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end();
};

/** A whole answer of one message: what a peer that lies sends. */
export const answering =
  (message: Uint8Array): Answer =>
  (stream) => {
    stream.respond(grpcHead, { waitForTrailers: true });
    stream.write(framed(message));
    endWith(stream, { 'grpc-status': '0' });
  };

/** The message, and then nothing: what a stream does. */
export const beginning =
  (...messages: readonly Uint8Array[]): Answer =>
  (stream) => {
    stream.respond(grpcHead);
    for (const message of messages) stream.write(framed(message));
  };

const begun =
  (write: (stream: ServerHttp2Stream, session: Http2Session) => void): Answer =>
  (stream, session) => {
    stream.respond(grpcHead, { waitForTrailers: true });
    write(stream, session);
  };

/** When in an exchange it goes wrong. */
export type Stage = 'connect' | 'handshake' | 'head' | 'body' | 'trailer';

export interface Wrong {
  readonly stage: Stage;
  readonly what: string;
  /** Yields the port of a peer that does it. */
  readonly start: (t: Test) => Promise<number>;
  /** Whether it says nothing and keeps the connection, so that only a deadline ends it. */
  readonly isSilent?: true;
  readonly isUntrusted?: true;
}

const junk = Buffer.from(Array.from({ length: 512 }, (_, i) => (i * 137 + 91) & 255));

/** All that can go wrong below the meaning of a message; `message` is a sound one. */
export const wrongPeers = ({ sound, wrong }: Identities, message: Uint8Array): readonly Wrong[] => {
  const tcp = (stage: Stage, what: string, onSocket: (socket: Socket) => void, more: Partial<Wrong> = {}): Wrong => ({
    stage,
    what,
    start: (t) => onTcp(t, onSocket),
    ...more,
  });
  const tls = (
    stage: Stage,
    what: string,
    onSocket: (socket: TLSSocket) => void,
    more: Partial<Wrong> & { protocols?: string[] } = {},
  ): Wrong => ({
    stage,
    what,
    start: (t) => onTls(t, sound, onSocket, more.protocols),
    ...(more.isSilent ? { isSilent: true } : {}),
  });
  const grpc = (stage: Stage, what: string, answer: Answer, more: Partial<Wrong> = {}): Wrong => ({
    stage,
    what,
    start: (t) => onGrpc(t, sound, answer),
    ...more,
  });
  return [
    { stage: 'connect', what: 'nothing listens', start: async () => 1 },
    tcp('connect', 'it closes at once', (socket) => void socket.end()),
    tcp('connect', 'it resets at once', (socket) => void socket.resetAndDestroy()),
    tcp('handshake', 'it accepts and is silent', () => undefined, { isSilent: true }),
    tcp('handshake', 'it resets in the middle', (socket) => void socket.once('data', () => socket.resetAndDestroy())),
    tcp('handshake', 'it answers with garbage', (socket) => void socket.write(junk)),
    tcp('handshake', 'it answers in plain HTTP', (socket) => void socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')),
    tcp(
      'handshake',
      'it sends half a record and stops',
      (socket) => void socket.once('data', () => socket.write(Buffer.from([22, 3, 3, 0, 90, 2]))),
      { isSilent: true },
    ),
    ...Object.entries(wrong).map(
      ([what, identity]): Wrong => ({
        stage: 'handshake',
        what: `its certificate is ${what}`,
        start: (t) => onGrpc(t, identity, answering(message)),
        isUntrusted: true,
      }),
    ),
    tls('head', 'it speaks no HTTP/2', (socket) => void socket.end('HTTP/1.1 200 OK\r\n\r\n'), { protocols: ['http/1.1'] }),
    tls('head', 'TLS, then silence', () => undefined, { isSilent: true }),
    tls('head', 'TLS, then garbage', (socket) => void socket.write(junk)),
    tls('head', 'TLS, then it closes', (socket) => void socket.once('data', () => socket.end())),
    grpc('head', 'it takes the call and is silent', () => undefined, { isSilent: true }),
    grpc('head', 'it refuses the stream', (stream) => stream.close(7)),
    grpc('head', 'it resets the stream', (stream) => stream.close(2)),
    grpc('head', 'it says goodbye and no more', (_stream, session) => session.goaway(0), { isSilent: true }),
    grpc('head', 'it breaks the connection', (_stream, session) => session.destroy()),
    grpc('head', 'a gateway answers 503 in HTML', (stream) => {
      stream.respond({ ':status': 503, 'content-type': 'text/html' });
      stream.end('<h1>no healthy upstream</h1>');
    }),
    grpc('head', 'a captive portal answers 200 in HTML', (stream) => {
      stream.respond({ ':status': 200, 'content-type': 'text/html' });
      stream.end('<form>');
    }),
    grpc('head', 'a status that does not exist', (stream) => stream.respond({ ...grpcHead, 'grpc-status': '99' }, { endStream: true })),
    grpc('head', 'a fault that does not exist', (stream) =>
      stream.respond(
        { ...grpcHead, 'grpc-status': '13', 'outrider-fault': 'no_such_fault', 'outrider-decision': '%%{' },
        { endStream: true },
      ),
    ),
    grpc(
      'body',
      'no message',
      begun((stream) => endWith(stream, { 'grpc-status': '0' })),
    ),
    grpc(
      'body',
      'a message that is none',
      begun((stream) => {
        stream.write(framed(junk));
        endWith(stream, { 'grpc-status': '0' });
      }),
    ),
    grpc(
      'body',
      'half a message and silence',
      begun((stream) => void stream.write(framed(message, { length: message.length + 50 }))),
      { isSilent: true },
    ),
    grpc(
      'body',
      'half a message and the end',
      begun((stream) => {
        stream.write(framed(message, { length: message.length + 50 }));
        endWith(stream, { 'grpc-status': '0' });
      }),
    ),
    grpc(
      'body',
      'half a message and a broken connection',
      begun((stream, session) => {
        stream.write(framed(message, { length: message.length + 50 }), () => session.destroy());
      }),
    ),
    grpc(
      'body',
      'a message of 2 GiB',
      begun((stream) => void stream.write(framed(message, { length: 2 ** 31 }))),
    ),
    grpc(
      'body',
      'a message in a compression nobody named',
      begun((stream) => void stream.write(framed(message, { flag: 1 }))),
    ),
    grpc(
      'trailer',
      'a message and the status of a failure',
      begun((stream) => {
        stream.write(framed(message));
        endWith(stream, { 'grpc-status': '13', 'grpc-message': 'canary-5e1f' });
      }),
    ),
    grpc(
      'trailer',
      'a message and a reset',
      begun((stream) => void stream.write(framed(message), () => setImmediate(() => stream.close(2)))),
    ),
  ];
};
