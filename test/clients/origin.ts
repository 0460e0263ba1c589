/**
 * The far end of every client's calls: one port for TLS and one for clear text, each speaking HTTP/1.1, HTTP/2, gRPC, WebSocket,
 * server-sent events, git and a little of S3, told apart by server name, ALPN and first bytes. It serves nobody who brings no
 * credential, and keeps which credential each request brought.
 */
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttp2Server } from 'node:http2';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { createSecureContext, createServer as createTlsServer, type SecureContext, type TLSSocket } from 'node:tls';
import type { TestAuthority } from '../support/certificates.ts';
import { answerGit, type GitRepository } from './origin/git.ts';
import { createGrpcService, type GrpcService } from './origin/grpc.ts';
import { answerHttp, type Handler } from './origin/http.ts';
import { createObjectStore } from './origin/object-store.ts';
import { createWebSocketEcho } from './origin/websocket.ts';
import { awsKeys, awsRegion } from './place.ts';

export interface Arrival {
  readonly protocol: '1.0' | '1.1' | '2.0' | 'grpc' | 'websocket';
  readonly method: string;
  readonly path: string;
  /** Every Authorization that came. */
  readonly authorization: readonly string[];
  readonly expect: string | undefined;
}

export interface Origin {
  readonly httpPort: number;
  readonly httpsPort: number;
  /** What arrived since it was last asked. */
  readonly taken: () => readonly Arrival[];
  readonly grpc: GrpcService;
  readonly close: () => Promise<void>;
}

export interface OriginOptions {
  readonly authority: TestAuthority;
  /** An address of this machine; port 0 for any. */
  readonly listen: { readonly host: string; readonly httpPort: number; readonly httpsPort: number };
  readonly git: GitRepository;
}

const preface = 'PRI * HTTP/2.0\r\n';
const isGrpcHost = (name: string): boolean => name.startsWith('grpc.');

/** Values of one field in a raw list: what `headers` joins or drops is what matters here. */
const valuesIn = (raw: readonly string[], name: string): string[] =>
  raw.filter((_, i) => i % 2 === 1 && raw[i - 1]?.toLowerCase() === name);

export const startOrigin = async ({ authority, listen, git }: OriginOptions): Promise<Origin> => {
  let arrivals: Arrival[] = [];
  const sockets = new Set<Socket>();
  const arrived = (arrival: Arrival): boolean => {
    arrivals.push(arrival);
    return arrival.authorization.length > 0;
  };
  const answerObjects = createObjectStore(awsKeys, awsRegion);

  const handle: Handler = (request, response) => {
    const { method = '', url: path = '' } = request;
    const authorization = valuesIn(request.rawHeaders, 'authorization');
    const protocol = request.httpVersion as '1.0' | '1.1' | '2.0';
    if (!arrived({ protocol, method, path, authorization, expect: request.headers.expect })) {
      response.writeHead(401, { 'www-authenticate': 'Bearer' }).end();
    } else if (path.startsWith('/git/')) answerGit(git, request, response);
    else if (path.startsWith('/bucket')) answerObjects(request, response);
    else answerHttp(request, response);
  };
  // `checkContinue` would otherwise never be heard of: the interim answer is for the store to send.
  const http1 = createHttpServer(handle).on('checkContinue', handle);
  http1.on('upgrade', createWebSocketEcho(arrived, valuesIn));
  const http2 = createHttp2Server().on('request', handle as never);
  const grpc = createGrpcService(arrived);

  const keep = (socket: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
  };

  const contexts = new Map<string, SecureContext>();
  const contextFor = (name: string): SecureContext => {
    const context = contexts.get(name) ?? createSecureContext(authority.serverFor(name));
    contexts.set(name, context);
    return context;
  };
  const secure = createTlsServer({ ALPNProtocols: ['h2', 'http/1.1'], SNICallback: (name, done) => done(null, contextFor(name)) });
  secure.on('connection', keep);
  secure.on('secureConnection', (socket: TLSSocket) => {
    socket.on('error', () => undefined);
    const name = (socket as { servername?: string | false }).servername || '';
    if (socket.alpnProtocol !== 'h2') http1.emit('connection', socket);
    else if (isGrpcHost(name)) grpc.serve(socket);
    else http2.emit('connection', socket);
  });

  // In clear text only gRPC comes with the HTTP/2 preface here.
  const clear = createServer({ noDelay: true }, (socket) => {
    keep(socket);
    socket.once('readable', () => {
      const first = socket.read() as Buffer | null;
      if (first === null) return void socket.destroy();
      socket.unshift(first);
      if (first.subarray(0, preface.length).equals(Buffer.from(preface).subarray(0, first.length))) grpc.serve(socket);
      else http1.emit('connection', socket);
    });
  });

  const listening = (server: Server, port: number): Promise<number> =>
    new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, listen.host, () => resolve((server.address() as AddressInfo).port));
    });

  return {
    httpPort: await listening(clear, listen.httpPort),
    httpsPort: await listening(secure, listen.httpsPort),
    taken: () => {
      const taken = arrivals;
      arrivals = [];
      return taken;
    },
    grpc,
    close: async () => {
      const closed = [clear, secure].map((server) => new Promise((resolve) => server.close(resolve)));
      grpc.close();
      for (const socket of sockets) socket.destroy();
      await Promise.all(closed);
    },
  };
};
