/** Plain HTTP at the origin: an echo of what arrived, and a stream of events whose next waits until the last was seen to arrive. */
import type { IncomingMessage, ServerResponse } from 'node:http';

/** For both engines: node:http2 offers the same surface. */
export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export const eventCount = 3;

/** Streams that wait, by the id their client gave. */
const waiting = new Map<string, () => void>();

const echo: Handler = (request, response) => {
  let body = '';
  request.setEncoding('latin1').on('data', (chunk: string) => (body += chunk));
  request.on('end', () => {
    response.setHeader('content-type', 'application/json');
    const { method, url: path, headers, httpVersion } = request;
    response.end(JSON.stringify({ method, path, headers: Object.fromEntries(Object.entries(headers)), body, originSpoke: httpVersion }));
  });
};

/**
 * `/events?id=X` sends an event, and the next only after `/events/seen?id=X`: a stream that anything on the way holds back never ends.
 * The last event carries nothing more to wait for, and the stream ends.
 */
const events = (id: string, response: ServerResponse): void => {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  let sent = 0;
  const send = (): void => {
    sent += 1;
    response.write(`id: ${sent}\nevent: tick\ndata: event ${sent}\n\n`);
    if (sent < eventCount) waiting.set(id, send);
    else response.end();
  };
  send();
};

export const answerHttp: Handler = (request, response) => {
  const { pathname, searchParams } = new URL(request.url ?? '/', 'http://origin.invalid');
  const id = searchParams.get('id') ?? '';
  if (pathname === '/events') return events(id, response);
  if (pathname === '/events/seen') {
    const next = waiting.get(id);
    waiting.delete(id);
    response.writeHead(next ? 204 : 409).end();
    return next?.();
  }
  if (request.headers.expect !== undefined) response.writeContinue();
  return echo(request, response);
};
