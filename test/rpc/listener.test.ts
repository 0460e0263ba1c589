/** The port itself: TLS 1.2 or later with HTTP/2 and nothing else, whoever knocks. */
import { once } from 'node:events';
import net from 'node:net';
import tls from 'node:tls';
import t from 'tap';
import { openBroker } from '../../src/rpc/client.ts';
import { broker, createDomain, peerOf } from './trust-domain.ts';

const domain = createDomain();
const known = { host: '127.0.0.1', ca: domain.authority.certificatePem, checkServerIdentity: () => undefined };

/** Unlike `once`, does not mind an error before. */
const closed = (socket: net.Socket): Promise<void> =>
  new Promise((resolve) => (socket.closed ? resolve() : socket.once('close', () => resolve())));

const outcome = async (options: tls.ConnectionOptions): Promise<string> => {
  const socket = tls.connect({ ...known, ...options });
  const shaken = new Promise<string>((resolve) => {
    socket.once('secureConnect', () => resolve(`${socket.getProtocol()} ${String(socket.alpnProtocol)}`));
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
  const result = await shaken;
  if (options.ALPNProtocols === undefined && !socket.destroyed) {
    socket.resume();
    await closed(socket);
  }
  socket.destroy();
  return result;
};

t.test('it speaks HTTP/2 over TLS 1.2 or later', async (t) => {
  const server = await broker(t, domain);
  const { port } = server.address;
  t.equal(await outcome({ port, ALPNProtocols: ['h2'] }), 'TLSv1.3 h2');
  t.equal(await outcome({ port, ALPNProtocols: ['h2'], maxVersion: 'TLSv1.2' }), 'TLSv1.2 h2');
  t.match(await outcome({ port, ALPNProtocols: ['http/1.1'] }), 'NO_APPLICATION_PROTOCOL');
  t.match(await outcome({ port }), 'TLSv1.3', 'without ALPN the handshake succeeds, and the connection is closed');
  t.match(
    await outcome({ port, ALPNProtocols: ['h2'], maxVersion: 'TLSv1.1', minVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' }),
    /PROTOCOL_VERSION|NO_PROTOCOLS|alert/i,
  );
});

t.test('a session is never resumed: each connection shows its certificate anew', async (t) => {
  const server = await broker(t, domain);
  const { port } = server.address;
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const first = tls.connect({ ...known, port, ALPNProtocols: ['h2'], maxVersion });
    let session: Buffer | undefined;
    first.on('session', (ticket: Buffer) => (session = ticket));
    await once(first, 'secureConnect');
    first.end();
    first.resume();
    await once(first, 'close');
    const second = tls.connect({ ...known, port, ALPNProtocols: ['h2'], maxVersion, ...(session === undefined ? {} : { session }) });
    await once(second, 'secureConnect');
    t.equal(second.isSessionReused(), false, maxVersion);
    second.destroy();
  }
});

t.test('garbage, half handshakes and sudden ends harm nobody else', async (t) => {
  const server = await broker(t, domain);
  const channel = openBroker({ broker: peerOf(server), svid: domain.svid() });
  t.teardown(() => channel.close());
  const knock = async (bytes: Buffer, end: 'end' | 'resetAndDestroy'): Promise<void> => {
    const socket = net
      .connect(server.address.port, '127.0.0.1')
      .on('error', () => undefined)
      .resume();
    await once(socket, 'connect');
    socket.write(bytes, () => socket[end]());
    await closed(socket);
  };
  for (const end of ['end', 'resetAndDestroy'] as const) {
    await knock(Buffer.from('GET / HTTP/1.1\r\nhost: a\r\n\r\n'), end);
    await knock(Buffer.from('160301', 'hex'), end);
    await knock(Buffer.alloc(70_000, 0x16), end);
  }
  const raw = tls
    .connect({ ...known, port: server.address.port, ALPNProtocols: ['h2'] })
    .on('error', () => undefined)
    .resume();
  await once(raw, 'secureConnect');
  raw.write('PRI * HTTP/2.0\r\n\r\nXX\r\n\r\nnot a frame at all, and long enough to be read as one');
  await closed(raw);
  t.equal((await channel.getGrant('echo', 'v1')).target, 'echo');
});

t.test('close() does not wait for those who are still shaking hands', async (t) => {
  const server = await broker(t, domain);
  const socket = net
    .connect(server.address.port, '127.0.0.1')
    .on('error', () => undefined)
    .resume();
  await once(socket, 'connect');
  await server.close();
  await closed(socket);
  t.ok(socket.destroyed);
});
