/**
 * HTTPS for the API server alone: POST /mutate, a body within its bound, an answer. Knows nothing of reviews. Without a certificate nobody
 * gets past the handshake. On closing, requests under way are answered, and answers say that they are the last of their connection.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { limits } from '../core/limits.ts';
import { listening } from '../ops/admin.ts';
import { watchPressure } from '../ops/pressure.ts';
import type { ListenAddress } from '../settings/injector.ts';
import { type Bodies, createBodies } from './bodies.ts';
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
  requestTimeout: limits.webhookRequestTimeoutMs,
  // Above the API server's own pool (90 s), so that it closes first and no review meets a closed connection.
  keepAliveTimeout: limits.clientKeepAliveTimeoutMs,
};

export interface WebhookServerOptions {
  readonly residentBytes?: () => number;
}

type Mutate = (body: string) => Promise<WebhookAnswer>;

const memoryBounds = {
  collectBytes: limits.webhookMemoryCollectBytes,
  soonBytes: limits.webhookMemoryCollectSoonBytes,
  growthBytes: limits.webhookMemoryCollectGrowthBytes,
  highBytes: limits.webhookMemoryHighBytes,
  lowBytes: limits.webhookMemoryLowBytes,
  sampleMs: limits.webhookMemorySampleMs,
  collectEveryMs: limits.webhookMemoryCollectEveryMs,
};

/** `mutate` never rejects. */
export const startWebhookServer = async (
  listen: ListenAddress,
  mutate: Mutate,
  options: WebhookServerOptions = {},
): Promise<WebhookServer> => {
  let isClosing = false;
  const pressure = watchPressure({ ...memoryBounds, ...options, onHigh: () => undefined, onSample: () => undefined });
  const bodies = createBodies({
    eachBytesMax: limits.webhookBodyBytesMax,
    shortBytesMax: limits.webhookShortBodyBytesMax,
    longBytesMax: () => (pressure.isHigh() ? limits.webhookBodyBytesMax : limits.webhookLongBodiesBytesMax),
  });
  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { status, body } = await answerTo(request, response, mutate, bodies);
    if (response.closed) return;
    const text = typeof body === 'string' ? `${body}\n` : JSON.stringify(body);
    response.writeHead(status, {
      'content-type': typeof body === 'string' ? 'text/plain; charset=utf-8' : 'application/json',
      'content-length': Buffer.byteLength(text),
      ...(status === 503 ? { 'retry-after': String(limits.webhookRetryAfterMs / 1_000) } : {}),
      // What was not read of a body would be taken for the next request.
      ...(isClosing || !request.complete ? { connection: 'close' } : {}),
    });
    response.end(text);
    // An answer that nobody reads is held no longer than a body that nobody ends.
    const deadline = setTimeout(() => response.destroy(), limits.webhookRequestTimeoutMs);
    response.once('close', () => clearTimeout(deadline));
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
      pressure.close();
      return new Promise((resolve) => {
        server.close(() => resolve());
        server.closeIdleConnections();
      });
    },
  };
};

const answerTo = async (request: IncomingMessage, response: ServerResponse, mutate: Mutate, bodies: Bodies): Promise<WebhookAnswer> => {
  if ((request.url ?? '').split('?', 1)[0] !== '/mutate') return { status: 404, body: 'there is /mutate' };
  if (request.method !== 'POST') return { status: 405, body: 'only POST' };
  if (!(request.headers['content-type'] ?? '').startsWith('application/json')) return { status: 415, body: 'only application/json' };
  const { text, refusal, release } = await bodies.read(request);
  if (refusal === 'too long') return { status: 413, body: `at most ${limits.webhookBodyBytesMax} bytes` };
  if (refusal === 'no room') return { status: 503, body: 'too many bytes at a time, try again' };
  // The answer to a long body is long.
  if (response.closed) release();
  else response.once('close', release);
  return mutate(text);
};
