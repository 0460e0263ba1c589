// A port of this machine for a program that cannot be told of a proxy: `connect-bridge.mjs HOST:PORT`. Prints the port; each connection
// to it becomes a CONNECT through HTTPS_PROXY.
import { connect, createServer } from 'node:net';

const [, , authority] = process.argv;
const proxy = new URL(process.env.HTTPS_PROXY);

const server = createServer({ pauseOnConnect: true }, (client) => {
  const way = connect(Number(proxy.port), proxy.hostname);
  for (const [socket, other] of [
    [client, way],
    [way, client],
  ]) {
    socket.on('error', () => other.destroy());
  }
  way.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
  let head = '';
  way.on('readable', function read() {
    // A byte at a time: what follows the answer's head is the other end's.
    for (let byte = way.read(1); byte !== null; byte = way.read(1)) {
      head += byte.toString('latin1');
      if (!head.endsWith('\r\n\r\n')) continue;
      way.off('readable', read);
      if (!/^HTTP\/1.1 200 /.test(head)) return void client.destroy(way.destroy());
      client.pipe(way);
      way.pipe(client);
      return;
    }
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
