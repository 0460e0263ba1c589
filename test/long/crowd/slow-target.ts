/**
 * The target of slow programs, in clear text and over TLS: an endless answer, a body that is read, one that is not. Key and certificate: PEM, on
 * stdin. Says its two ports. Its own process, so that what it writes for nobody is not the good target's time.
 */
import { createServer, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Server } from 'node:net';
import { text } from 'node:stream/consumers';

const answer: RequestListener = (request, response) => {
  request.on('error', () => undefined);
  response.on('error', () => undefined);
  if (request.url === '/stall') return;
  if (request.url === '/big') {
    const block = Buffer.alloc(64 * 1024);
    const more = (): void => {
      while (!response.destroyed && response.write(block));
      if (!response.destroyed) response.once('drain', more);
    };
    return more();
  }
  request.resume();
  request.once('end', () => response.end('ok'));
};

const listening = async (server: Server): Promise<number> => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
};

const pem = await text(process.stdin);
const terms = { keepAliveTimeout: 60_000 };
const ports = [await listening(createServer(terms, answer)), await listening(createTlsServer({ ...terms, key: pem, cert: pem }, answer))];
process.stdout.write(`${ports.join(' ')}\n`);
