// A Node program that is told what to trust by NODE_EXTRA_CA_CERTS or by its own flags: client.mjs ADDRESS PORT HOST
import { isIP } from 'node:net';
import { connect, checkServerIdentity } from 'node:tls';

const [address, port, host] = process.argv.slice(2);
const socket = connect({
  host: address,
  port: Number(port),
  ...(isIP(host) ? {} : { servername: host }),
  checkServerIdentity: (_, certificate) => checkServerIdentity(host, certificate),
});
socket.once('secureConnect', () => socket.end('GET / HTTP/1.0\r\n\r\n'));
socket.pipe(process.stdout);
socket.once('error', (error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
