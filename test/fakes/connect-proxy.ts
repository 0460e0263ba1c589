/**
 * A company's proxy as programs meet it: speaks CONNECT over HTTP or HTTPS on loopback, may ask for Basic credentials, and leads every
 * tunnel where the test says. Keeps the heads it was sent and counts its connections. Misbehaves by `answer`.
 */
import { createServer, type IncomingMessage } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ServerFiles } from '../support/certificates.ts';
import type { RecordedRequest } from './recorder.ts';

export interface ConnectProxy {
  readonly port: number;
  /** What was asked for, with all fields. */
  readonly asked: Omit<RecordedRequest, 'body'>[];
  /** Connections from programs that are open now. */
  readonly open: () => number;
  readonly close: () => Promise<void>;
}

export interface ConnectProxyOptions {
  /** Served over TLS with these. */
  readonly files?: ServerFiles;
  /** `user:password` without which the answer is 407. */
  readonly credential?: string;
  /** Where a tunnel leads; undefined is answered 502. */
  readonly to?: (authority: string) => { readonly host: string; readonly port: number } | undefined;
  /** Answers in its own way instead. */
  readonly answer?: (socket: Duplex, authority: string) => void;
}

export const startConnectProxy = async ({ files, credential, to, answer }: ConnectProxyOptions): Promise<ConnectProxy> => {
  const asked: Omit<RecordedRequest, 'body'>[] = [];
  const sockets = new Set<Socket>();
  const server = files ? createTlsServer({ ...files }) : createServer();
  server.on(files ? 'secureConnection' : 'connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
  });
  server.on('connect', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const authority = request.url as string;
    asked.push({ method: request.method as string, url: authority, rawHeaders: request.rawHeaders });
    if (credential !== undefined && request.headers['proxy-authorization'] !== `Basic ${Buffer.from(credential).toString('base64')}`) {
      socket.end('HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="corp"\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    // An HTTP server's sockets stay half open when the other end closes.
    socket.once('end', () => socket.end());
    if (answer) return answer(socket.resume(), authority);
    const where = to?.(authority);
    if (!where) return void socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n');
    const target = connect({ ...where, noDelay: true }, () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      if (head.length > 0) target.write(head);
      socket.pipe(target).pipe(socket);
    });
    target.on('error', () => socket.destroy()).on('close', () => socket.destroy());
    socket.on('close', () => target.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    asked,
    open: () => sockets.size,
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
};
