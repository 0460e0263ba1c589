/**
 * As much of S3 as a PUT and a GET of one object need (path style): `Expect: 100-continue`, bodies in `aws-chunked` coding with their
 * checksum in the trailer, ETags. Serves only what is signed with the keys that the broker has, verified as S3 does.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
 */
import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type AwsTestKeys, verifyAws } from '../../support/aws-verifier.ts';
import type { Handler } from './http.ts';

export const createObjectStore = (keys: AwsTestKeys, region: string): Handler => {
  const objects = new Map<string, Buffer>();
  const answer = ({ method, url = '' }: IncomingMessage, response: ServerResponse, content: Buffer): void => {
    if (method === 'PUT') {
      objects.set(keyOf(url), content);
      return void response.writeHead(200, { etag: etagOf(content), 'content-length': 0 }).end();
    }
    const found = objects.get(keyOf(url));
    if (!found) return void response.writeHead(404).end();
    response.writeHead(200, { 'content-length': found.length, etag: etagOf(found), 'last-modified': new Date(0).toUTCString() });
    response.end(method === 'GET' ? found : undefined);
  };
  return (request, response) => {
    if (request.headers.expect !== undefined) response.writeContinue();
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { method = '', url = '', rawHeaders } = request;
      const arrived = { method, url, headers: pairsOf(rawHeaders), body: Buffer.concat(chunks) };
      verifyAws(arrived, keys, { service: 's3', region, nowMs: Date.now() }).then(
        ({ problems, content }) => {
          if (problems.length > 0) response.writeHead(403).end(problems.join('\n'));
          else answer(request, response, content);
        },
        (error: Error) => response.writeHead(400).end(error.message),
      );
    });
  };
};

/** The path as it came; SDKs name the operation in a parameter. */
const keyOf = (url: string): string => url.split('?')[0] as string;

const pairsOf = (raw: readonly string[]): [string, string][] =>
  raw.flatMap((name, i) => (i % 2 === 0 ? [[name, raw[i + 1] as string] as [string, string]] : []));

const etagOf = (body: Buffer): string => `"${createHash('md5').update(body).digest('hex')}"`;
