/** A client that watches a broker, takes as much as one likes, and stops with the first message, as on a frozen machine. Its TLS options: JSON, on stdin. */
import http2 from 'node:http2';
import { json } from 'node:stream/consumers';

const [port = ''] = process.argv.slice(2);
const window = 2 ** 30;
const session = http2.connect(`https://127.0.0.1:${port}`, {
  ...((await json(process.stdin)) as object),
  checkServerIdentity: () => undefined,
  settings: { initialWindowSize: window },
});
session.once('connect', () => session.setLocalWindowSize(window));
const call = session.request({
  ':method': 'POST',
  ':path': '/outrider.v1.CredentialBroker/Watch',
  'content-type': 'application/grpc',
  te: 'trailers',
});
call.end(Buffer.alloc(5));
call.once('data', () => process.stdout.write('stopped\n', () => process.kill(process.pid, 'SIGSTOP')));
