/**
 * A target to try things out with, over HTTP: answers every request with what it received, so that a newcomer sees the credential that the
 * program never had. It shows credentials by design: nothing but the demo, the sample for a cluster and tests may use it.
 */
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { Server as SecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { limits } from '../core/limits.ts';
import { listening } from '../ops/admin.ts';
import type { Running } from '../ops/drain.ts';

/** What of a body is shown; the rest is read and counted. */
const shownBytesMax = 64 * 1024;

/** Lower-case names in the order received; a repeated field is a list of its values. */
const headersOf = ({ rawHeaders }: IncomingMessage): Record<string, string | string[]> => {
  const headers = new Map<string, string | string[]>();
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase();
    const value = rawHeaders[i + 1] as string;
    const before = headers.get(name);
    headers.set(name, before === undefined ? value : [before, value].flat());
  }
  return Object.fromEntries(headers);
};

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  const shown: Buffer[] = [];
  let bytes = 0;
  let shownBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    const part = chunk.subarray(0, Math.max(0, shownBytesMax - shownBytes));
    shownBytes += part.length;
    if (part.length > 0) shown.push(part);
  }
  const text = Buffer.concat(shown).toString('utf8');
  return bytes > shownBytes ? `${text}… (${bytes} bytes in all)` : text;
};

export const echo: RequestListener = (request, response) => {
  bodyOf(request).then(
    (body) => {
      const { method, url: path } = request;
      response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' });
      response.end(`${JSON.stringify({ method, path, headers: headersOf(request), body }, null, 2)}\n`);
    },
    // The sender went away in the middle of its body: nobody is left to answer.
    () => response.destroy(),
  );
};

export const closed = (server: Server | SecureServer): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });

export const bounds = { maxHeaderSize: limits.headerBytesMax, headersTimeout: limits.requestHeadersTimeoutMs, requestTimeout: 0 };

/** Over HTTP alone. */
export const startHttpEcho = async (host: string, port: number): Promise<Running & { readonly address: AddressInfo }> => {
  const server = createServer(bounds, echo);
  await listening(server, host, port);
  return { address: server.address() as AddressInfo, close: () => closed(server) };
};
