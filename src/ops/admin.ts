/**
 * The operators' HTTP endpoint of every role: /metrics, /livez, /readyz. Read-only, no secrets, no debugging: it may share
 * the loopback interface with a hostile program (THREATS D-3).
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { limits } from '../core/limits.ts';
import type { Metrics } from './metrics.ts';

/** What is still missing before a request would be treated correctly; empty means ready. */
export type Readiness = () => readonly string[];

export interface AdminServer {
  readonly address: AddressInfo;
  readonly close: () => Promise<void>;
}

export interface AdminOptions {
  readonly host: string;
  readonly port: number;
  readonly metrics: Metrics;
  readonly readiness: Readiness;
}

export const startAdmin = async ({ host, port, metrics, readiness }: AdminOptions): Promise<AdminServer> => {
  const server = createServer(
    { maxHeaderSize: 8 * 1024, headersTimeout: limits.requestHeadersTimeoutMs, requestTimeout: 30_000, keepAliveTimeout: 5_000 },
    (request, response) => {
      request.resume();
      const answer = (status: number, type: string, body: string): void => {
        response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
        response.end(request.method === 'HEAD' ? '' : body);
      };
      const text = 'text/plain; charset=utf-8';
      if (request.method !== 'GET' && request.method !== 'HEAD') return answer(405, text, 'only GET and HEAD\n');
      const path = (request.url ?? '/').split('?', 1)[0];
      if (path === '/livez') return answer(200, text, 'ok\n');
      if (path === '/readyz') {
        const missing = readiness();
        if (missing.length === 0) return answer(200, text, 'ready\n');
        return answer(503, text, missing.map((what) => `waiting for ${what}\n`).join(''));
      }
      if (path === '/metrics') {
        metrics.expose().then(
          (body) => answer(200, metrics.contentType, body),
          () => answer(500, text, 'metrics could not be collected\n'),
        );
        return undefined;
      }
      return answer(404, text, 'there are /metrics, /livez and /readyz\n');
    },
  );
  server.maxConnections = 256;
  await listening(server, host, port);
  return {
    address: server.address() as AddressInfo,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
};

/** Listens, or throws an error that says what to do about a port in use. */
export const listening = (
  server: {
    listen: (port: number, host: string) => unknown;
    once: (event: string, listener: (error: Error) => void) => unknown;
    off: (event: string, listener: (error: Error) => void) => unknown;
  },
  host: string,
  port: number,
): Promise<void> =>
  new Promise((resolve, reject) => {
    const failed = (error: Error): void => reject(listenError(error, host, port));
    server.once('error', failed);
    server.once('listening', () => {
      server.off('error', failed);
      resolve();
    });
    server.listen(port, host);
  });

/** The sentence an operator reads when a listener cannot be opened. */
export class ListenError extends Error {
  constructor(message: string, cause: unknown) {
    super(message, { cause });
    this.name = 'ListenError';
  }
}

const listenError = (error: Error, host: string, port: number): Error => {
  const { code } = error as { code?: string };
  const where = `${host}:${port}`;
  if (code === 'EADDRINUSE') {
    return new ListenError(
      `${where} is in use: stop the program that listens there (find it with "ss -ltnp sport = :${port}") or choose another port.`,
      error,
    );
  }
  if (code === 'EACCES') return new ListenError(`${where} may not be opened by this user: choose a port above 1023.`, error);
  if (code === 'EADDRNOTAVAIL')
    return new ListenError(`${where} is not an address of this machine: choose one that is, or 0.0.0.0.`, error);
  return new ListenError(`${where} cannot be opened: ${error.message}`, error);
};
