/** An origin that keeps every byte it was sent: HTTP and HTTPS, answering by a handler, on loopback. */
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { ServerFiles } from '../support/certificates.ts';

export interface Recorder {
  readonly httpPort: number;
  readonly httpsPort: number;
  /** All bytes received, decrypted, connection by connection. */
  readonly raw: () => string[];
  /** Heads and bodies of the requests that were parsed. */
  readonly requests: RecordedRequest[];
  readonly close: () => Promise<void>;
}

export interface RecordedRequest {
  readonly method: string;
  readonly url: string;
  readonly rawHeaders: readonly string[];
  body: string;
}

export const field = (request: RecordedRequest, name: string): string[] => {
  const values: string[] = [];
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    if (request.rawHeaders[i]?.toLowerCase() === name) values.push(request.rawHeaders[i + 1] as string);
  }
  return values;
};

export const startRecorder = async (
  files: ServerFiles,
  answer: RequestListener = (_request, response) => response.end('ok'),
): Promise<Recorder> => {
  const requests: RecordedRequest[] = [];
  const connections: Buffer[][] = [];
  const listener: RequestListener = (request, response) => {
    const recorded: RecordedRequest = {
      method: request.method as string,
      url: request.url as string,
      rawHeaders: request.rawHeaders,
      body: '',
    };
    requests.push(recorded);
    request.on('data', (chunk: Buffer) => {
      if (recorded.body.length < 1_000_000) recorded.body += chunk.toString('latin1');
    });
    answer(request, response);
  };
  const record = (socket: Socket): void => {
    const chunks: Buffer[] = [];
    connections.push(chunks);
    socket.on('data', (chunk: Buffer) => {
      if (chunks.length < 100) chunks.push(chunk);
    });
  };
  const plain = createServer(listener);
  plain.on('connection', record);
  const secure = createTlsServer({ ...files }, listener);
  secure.on('secureConnection', record);
  const listen = (server: Server): Promise<number> =>
    new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)));
  const [httpPort, httpsPort] = [await listen(plain), await listen(secure)];
  const close = (server: Server): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return {
    httpPort,
    httpsPort,
    raw: () => connections.map((chunks) => Buffer.concat(chunks).toString('latin1')),
    requests,
    close: async () => {
      await Promise.all([close(plain), close(secure)]);
    },
  };
};
