/**
 * As much of S3 as a PUT and a GET of one object need (path style): `Expect: 100-continue`, bodies in `aws-chunked` coding with their
 * checksum in the trailer, ETags. Signatures are not verified: the credential here is the proxy's.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
 */
import { createHash } from 'node:crypto';
import type { Handler } from './http.ts';

/** Size in hexadecimal, extensions, CRLF, data, CRLF; a chunk of no bytes, then trailer fields. */
const withoutChunks = (body: Buffer): Buffer => {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const lineEnd = body.indexOf('\r\n', at);
    const size = Number.parseInt(body.toString('latin1', at, lineEnd), 16);
    if (lineEnd < 0 || Number.isNaN(size)) throw new Error('not aws-chunked');
    if (size === 0) return Buffer.concat(parts);
    parts.push(body.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
  }
};

export const createObjectStore = (): Handler => {
  const objects = new Map<string, Buffer>();
  return (request, response) => {
    const key = new URL(request.url ?? '/', 'http://origin.invalid').pathname;
    const found = objects.get(key);
    if (request.method === 'GET' || request.method === 'HEAD') {
      if (!found) return void response.writeHead(404).end();
      response.writeHead(200, { 'content-length': found.length, etag: etagOf(found), 'last-modified': new Date(0).toUTCString() });
      return void response.end(request.method === 'GET' ? found : undefined);
    }
    if (request.headers.expect !== undefined) response.writeContinue();
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const whole = Buffer.concat(chunks);
      const isChunked = request.headers['content-encoding']?.includes('aws-chunked') === true;
      const body = isChunked ? withoutChunks(whole) : whole;
      objects.set(key, body);
      response.writeHead(200, { etag: etagOf(body), 'content-length': 0 }).end();
    });
  };
};

const etagOf = (body: Buffer): string => `"${createHash('md5').update(body).digest('hex')}"`;
