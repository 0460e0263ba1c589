import { once } from 'node:events';
import { connect as connectH2, createSecureServer } from 'node:http2';
import { connect, createServer, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectTls, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import { destroyWhenLost, endSession } from '../../src/ops/connection-end.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { listen } from '../net/outbound/targets.ts';

const lookMs = 1_000;
const host = 'end.outrider.test';
const authority = createTestAuthority();
const files = authority.serverFor(host);

/** Both ends of a connection that the server's side does not read from. */
const pair = async (t: Test): Promise<{ near: Socket; far: Socket }> => {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  const { port } = await listen(t, server);
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const far = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  far.on('error', () => undefined);
  const [near] = await accepted;
  return { near, far };
};
/** What the other end did has arrived here by then: it was told so itself. */
const settle = async (): Promise<void> => {
  for (let turns = 0; turns < 20; turns += 1) await new Promise((resolve) => setImmediate(resolve));
};

t.test('a connection that is reset while nobody reads from it is destroyed at the next look', async (t) => {
  const { near, far } = await pair(t);
  const clock = createFakeClock();
  destroyWhenLost(near, lookMs, clock);
  clock.advance(lookMs);
  t.notOk(near.destroyed, 'while it lives it stays');
  far.resetAndDestroy();
  await once(far, 'close');
  await settle();
  t.notOk(near.destroyed, 'nobody was told');
  clock.advance(lookMs - 1);
  t.notOk(near.destroyed);
  clock.advance(1);
  t.ok(near.destroyed);
  await once(near, 'close');
  t.equal(clock.waiting(), 0, 'and nobody looks any more');
});

t.test('an orderly end of the other side is no loss', async (t) => {
  const { near, far } = await pair(t);
  const clock = createFakeClock();
  destroyWhenLost(near, lookMs, clock);
  far.end('the last word');
  await once(far, 'finish');
  await settle();
  clock.advance(10 * lookMs);
  t.notOk(near.destroyed);
  near.resume();
  const [word] = (await once(near, 'data')) as [Buffer];
  t.equal(String(word), 'the last word');
});

t.test('TLS is looked through, also TLS within TLS; a connection over a stream of another kind stays', async (t) => {
  const inner = createTlsServer({ ...files });
  const outer = createTlsServer({ ...files }, (socket) => inner.emit('connection', socket));
  const { port } = await listen(t, outer);
  const trusted = { ca: authority.pem, servername: host };
  const nested = async (wrap: (socket: TLSSocket) => Duplex): Promise<TLSSocket> => {
    const first = connectTls({ port, host: '127.0.0.1', ...trusted });
    first.on('error', () => undefined);
    const second = connectTls({ socket: wrap(first), ...trusted });
    second.on('error', () => undefined);
    t.teardown(() => second.destroy());
    t.teardown(() => first.destroy());
    await once(second, 'secureConnect');
    return second;
  };
  const clock = createFakeClock();
  const direct = await nested((socket) => socket);
  const overStream = await nested((socket) => Duplex.from({ readable: socket, writable: socket }));
  for (const socket of [direct, overStream]) destroyWhenLost(socket, lookMs, clock);
  clock.advance(lookMs);
  t.notOk(direct.destroyed);
  t.notOk(overStream.destroyed);
});

t.test('a session is ended with its connection, and its goodbye arrives before', async (t) => {
  const server = createSecureServer(files);
  const { port } = await listen(t, server);
  const session = once(server, 'session');
  const secured = once(server, 'secureConnection') as Promise<[TLSSocket]>;
  const program = connectH2(`https://${host}`, { host: '127.0.0.1', port, ca: authority.pem, servername: host });
  program.on('error', () => undefined);
  t.teardown(() => program.destroy());
  const [[taken], [socket]] = await Promise.all([session, secured, once(program, 'connect')]);
  const goodbye = once(program, 'goaway');
  endSession(socket, () => taken.close());
  await Promise.all([goodbye, once(socket, 'close')]);
  t.ok(socket.destroyed);
});
