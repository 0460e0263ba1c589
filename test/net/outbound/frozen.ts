/** A target of HTTP/2 over TLS that takes as much as one likes, and stops in the middle of a request, as on a frozen machine. Key and certificate: PEM, on stdin. */
import { createSecureServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';

const pem = await text(process.stdin);
const window = 2 ** 30;
const server = createSecureServer({ key: pem, cert: pem, settings: { initialWindowSize: window } });
server.on('session', (session) => session.setLocalWindowSize(window));
server.on('stream', (stream) => {
  stream.once('data', () => process.stdout.write('stopped\n', () => process.kill(process.pid, 'SIGSTOP')));
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
