/**
 * A process with nothing but the interception authority in it. For every host it is told of it opens a TLS server on a port of its
 * own that answers one request. serve.ts DIRECTORY HOST…; further sets of hosts come as lines on standard input. For each set a line
 * with the ports, as JSON, is printed when it is in force.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, isIPv6 } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { TLSSocket } from 'node:tls';
import { systemClock } from '../../../src/ops/clock.ts';
import { createLog } from '../../../src/ops/log.ts';
import { createInterception } from '../../../src/proxy/listener/interception.ts';

const [directory = '', ...hosts] = process.argv.slice(2);
const interception = createInterception({
  bundleFile: join(directory, 'public', 'ca-bundle.pem'),
  trustStoreFile: join(directory, 'public', 'trust-store.p12'),
  stateFile: join(directory, 'private', 'authority.pem'),
  id: String(process.pid),
  clock: systemClock,
  log: createLog({ role: 'proxy', level: 'error' }),
});

const serve = async (host: string): Promise<[string, number]> => {
  const server = createServer((plain) => {
    const socket = new TLSSocket(plain, { isServer: true, secureContext: interception.contextFor(host) });
    socket.on('error', () => plain.destroy());
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n'));
  });
  server.listen(0, isIPv6(host) ? '::1' : '127.0.0.1');
  await once(server, 'listening');
  return [host, (server.address() as AddressInfo).port];
};

const permit = async (names: readonly string[]): Promise<void> => {
  interception.permit(names);
  process.stdout.write(`${JSON.stringify(Object.fromEntries(await Promise.all(names.map(serve))))}\n`);
};

await permit(hosts);
for await (const line of createInterface({ input: process.stdin })) await permit(line.split(' '));
