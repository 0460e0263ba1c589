/** A program that asks over HTTP/2 through the proxy, and stops in the middle of the answer, as on a frozen machine. What it trusts: PEM, on stdin. */
import { connect as connectH2 } from 'node:http2';
import { text } from 'node:stream/consumers';
import { connect as connectTls } from 'node:tls';
import { tunnelTo } from '../../support/path.ts';

const [port = '', host = ''] = process.argv.slice(2);
const { socket } = await tunnelTo(Number(port), `${host}:443`);
const secured = connectTls({ socket, ca: await text(process.stdin), servername: host, ALPNProtocols: ['h2'] });
const window = 2 ** 30;
const session = connectH2(`https://${host}`, { settings: { initialWindowSize: window }, createConnection: () => secured });
session.once('connect', () => session.setLocalWindowSize(window));
session.request({ ':path': '/' }).once('data', () => {
  process.stdout.write('stopped\n', () => process.kill(process.pid, 'SIGSTOP'));
});
