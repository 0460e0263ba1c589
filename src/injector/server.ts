/**
 * HTTPS for the API server alone: POST /mutate, a body within its bound, an answer. Knows nothing of reviews. Without a certificate nobody
 * gets past the handshake. On closing, requests under way are answered, and answers say that they are the last of their connection.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { limits } from '../core/limits.ts';
import { listening } from '../ops/admin.ts';
import type { ListenAddress } from '../settings/injector.ts';
import type { ServingPair } from './certificate.ts';

export interface WebhookAnswer {
  readonly status: number;
  /** JSON, or a sentence. */
  readonly body: object | string;
}

export interface WebhookServer {
  readonly address: AddressInfo;
  /** For handshakes from now on. Throws when key and certificate do not belong together; the one before then stays. */
  readonly setCertificate: (pair: ServingPair) => void;
  readonly close: () => Promise<void>;
}

const bounds: ServerOptions = {
  maxHeaderSize: 8 * 1024,
  handshakeTimeout: limits.clientHandshakeTimeoutMs,
  headersTimeout: limits.requestHeadersTimeoutMs,
  requestTimeout: 10_000,
  // Above the API server's own pool (90 s), so that it closes first and no review meets a closed connection.
  keepAliveTimeout: limits.clientKeepAliveTimeoutMs,
};

/** `mutate` never rejects. */
export const startWebhookServer = async (
  listen: ListenAddress,
  mutate: (body: string) => Promise<WebhookAnswer>,
): Promise<WebhookServer> => {
  let isClosing = false;
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { status, body } = await answerTo(request, mutate);
    const text = typeof body === 'string' ? `${body}\n` : JSON.stringify(body);
    response.writeHead(status, {
      'content-type': typeof body === 'string' ? 'text/plain; charset=utf-8' : 'application/json',
      'content-length': Buffer.byteLength(text),
      // What was not read of a body would be taken for the next request.
      ...(isClosing || !request.complete ? { connection: 'close' } : {}),
    });
    response.end(text);
  };
  const server = createServer({ ...bounds, minVersion: 'TLSv1.2' }, (request, response) => void handle(request, response));
  server.maxConnections = limits.webhookConnectionsMax;
  await listening(server, listen.host, listen.port);
  return {
    address: server.address() as AddressInfo,
    setCertificate: ({ certificatePem, privateKeyPem }) =>
      server.setSecureContext({ cert: certificatePem, key: privateKeyPem.reveal(), minVersion: 'TLSv1.2' }),
    close: () => {
      isClosing = true;
      return new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
      });
    },
  };
};

const answerTo = async (request: IncomingMessage, mutate: (body: string) => Promise<WebhookAnswer>): Promise<WebhookAnswer> => {
  if ((request.url ?? '').split('?', 1)[0] !== '/mutate') return { status: 404, body: 'there is /mutate' };
  if (request.method !== 'POST') return { status: 405, body: 'only POST' };
  if (!(request.headers['content-type'] ?? '').startsWith('application/json')) return { status: 415, body: 'only application/json' };
  const body = await readBody(request);
  return body === undefined ? { status: 413, body: `at most ${limits.webhookBodyBytesMax} bytes` } : mutate(body);
};

/** Undefined when it is too long; one that is cut off ends with its connection. */
const readBody = async (request: IncomingMessage): Promise<string | undefined> => {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    // Left early, the connection still has to carry the answer.
    for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > limits.webhookBodyBytesMax) return undefined;
      chunks.push(chunk);
    }
  } catch {
    return '';
  }
  return Buffer.concat(chunks).toString('utf8');
};
