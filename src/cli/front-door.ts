/**
 * One local door to the operators' endpoints of every role: `/` is a status page, `/proxy/metrics`, `/broker/readyz` and so on are
 * passed to the role's admin server. Owns http-proxy, and lets it do little: the request that reaches it has been made by us, with
 * no credential, no cookie, no body and a fixed path, because a client's own headers have crashed or misled that library
 * before. Never on a workload's path. The Host check keeps web pages from reading it through a DNS name of theirs.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { Readable } from 'node:stream';
import httpProxy from 'http-proxy';
import { hostPort, parseAuthority } from '../core/destination.ts';
import { limits } from '../core/limits.ts';
import { listening } from '../ops/admin.ts';
import type { Running } from '../ops/drain.ts';

/** What a role's admin server has; nothing else is asked of it. */
const endpoints = new Set(['/metrics', '/livez', '/readyz']);
/** Fields of the client's request that the admin server may see. */
const passedFields = new Set(['accept', 'user-agent']);

export interface FrontDoorOptions {
  readonly host: string;
  readonly port: number;
  /** Role name → where its admin server is. */
  readonly backends: Readonly<Record<string, { readonly host: string; readonly port: number }>>;
  /** The status page as HTML, and the Content-Security-Policy it needs. */
  readonly page: () => Promise<{ readonly html: string; readonly policy: string }>;
}

export interface FrontDoor extends Running {
  readonly address: AddressInfo;
}

const answer = (response: ServerResponse, status: number, body: string, headers: Readonly<Record<string, string>> = {}): void => {
  if (response.headersSent) {
    // Too late for another answer: an end in the middle is the only honest sign.
    response.destroy();
    return;
  }
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
  });
  response.end(response.req.method === 'HEAD' ? '' : body);
};

/** Whether the client means us: an address or name of the loopback interface, whatever the port. */
const namesLoopback = (hosts: readonly string[]): boolean => {
  const authority = hosts.length === 1 ? parseAuthority(hosts[0] as string) : undefined;
  return authority !== undefined && ['127.0.0.1', 'localhost', '::1'].includes(authority.host);
};

/** Why a request gets no further, or undefined. */
const refusal = (request: IncomingMessage): readonly [status: number, sentence: string] | undefined => {
  if (!namesLoopback(request.headersDistinct['host'] ?? []))
    return [421, 'this door opens for http://127.0.0.1 and http://localhost only\n'];
  if (request.method !== 'GET' && request.method !== 'HEAD') return [405, 'only GET and HEAD\n'];
  if (request.headers.expect !== undefined) return [417, 'no expectations\n'];
  const hasBody = request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) !== 0;
  return hasBody ? [400, 'no request body\n'] : undefined;
};

/** `/proxy/metrics?x` → the backend's name and the endpoint. */
const splitPath = (url: string): readonly [name: string, endpoint: string] => {
  const [path = ''] = url.split('?', 1);
  const [, name = '', ...rest] = path.split('/');
  return [name, `/${rest.join('/')}`];
};

export const startFrontDoor = async ({ host, port, backends, page }: FrontDoorOptions): Promise<FrontDoor> => {
  const proxy = httpProxy.createProxyServer({});
  // A backend that dies in the middle of its answer: http-proxy only pipes, and would leave the client waiting.
  proxy.on('proxyRes', (fromBackend, _request, response) => fromBackend.once('error', () => response.destroy()));

  const pass = (request: IncomingMessage, response: ServerResponse, name: string, endpoint: string): void => {
    const backend = backends[name] as { host: string; port: number };
    request.resume();
    for (const field of Object.keys(request.headers)) if (!passedFields.has(field)) delete request.headers[field];
    const away = (): void => answer(response, 502, `the ${name} does not answer\n`);
    const options = {
      target: `http://${hostPort(backend)}${endpoint}`,
      // The client's path and body are never used.
      ignorePath: true,
      changeOrigin: true,
      buffer: Readable.from([]),
      connectTimeout: limits.targetConnectTimeoutMs,
      proxyTimeout: limits.outboundTimeoutMs,
    };
    try {
      proxy.web(request, response, options, away);
    } catch {
      away();
    }
  };

  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    const refused = refusal(request);
    if (refused) return answer(response, refused[0], refused[1], { connection: 'close' });
    const [name, endpoint] = splitPath(request.url ?? '/');
    if (Object.hasOwn(backends, name) && endpoints.has(endpoint)) return pass(request, response, name, endpoint);
    if (name !== '' || endpoint !== '/') {
      const known = Object.keys(backends).map((role) => `/${role}/`);
      return answer(response, 404, `there are / and, below ${known.join(', ')}: metrics, livez, readyz\n`);
    }
    page().then(
      ({ html, policy }) => answer(response, 200, html, { 'content-type': 'text/html; charset=utf-8', 'content-security-policy': policy }),
      () => answer(response, 500, 'the status page could not be made\n'),
    );
    return undefined;
  };

  const bounds = {
    maxHeaderSize: 8 * 1024,
    headersTimeout: limits.requestHeadersTimeoutMs,
    requestTimeout: 30_000,
    keepAliveTimeout: 5_000,
  };
  const server = createServer(bounds, handle);
  // Otherwise Node answers these by itself, and http-proxy would skip its hooks.
  server.on('checkContinue', handle);
  server.on('checkExpectation', handle);
  server.on('upgrade', (_request, socket: Socket) => socket.destroy());
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
