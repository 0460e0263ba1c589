/** What those can take from a server who do not show who they are: a bounded number of connections and calls, for a bounded time. */
import { EventEmitter, once } from 'node:events';
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2';
import net from 'node:net';
import tls from 'node:tls';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { attest, openBroker } from '../../src/rpc/client.ts';
import type { RpcServer } from '../../src/rpc/server.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { endOf, rawCall, rawSession } from './raw-session.ts';
import { broker, collector, createDomain, evidence, handlersOf, peerOf } from './trust-domain.ts';

const domain = createDomain();
const attestPath = '/outrider.v1.CredentialBroker/Attest';
const watchPath = '/grpc.health.v1.Health/Watch';
const emptyMessage = Buffer.alloc(5);

const connectTo = (t: Test, server: RpcServer, certificate: boolean): ClientHttp2Session =>
  rawSession(t, server, domain, certificate ? domain.svid() : undefined);

/** Resolves with what became of it: 'open' once the server's SETTINGS are there. */
const outcomeOf = (session: ClientHttp2Session): Promise<'open' | 'closed'> =>
  new Promise((resolve) => session.once('remoteSettings', () => resolve('open')).once('close', () => resolve('closed')));

/** Comes again and again until it is let in, for as long as the test may last: who left may not have been missed yet. */
const roomAgain = async (connect: () => ClientHttp2Session): Promise<void> => {
  while ((await outcomeOf(connect())) !== 'open');
};

const request = (session: ClientHttp2Session, path: string, body: Buffer, isWhole: boolean): ClientHttp2Stream => {
  const stream = rawCall(session, path);
  if (isWhole) stream.end(body);
  else stream.write(body);
  return stream;
};

const closed = (closing: net.Socket | ClientHttp2Session): Promise<void> =>
  new Promise((resolve) => (closing.destroyed ? resolve() : closing.once('close', () => resolve())));

t.test('a server is watched over its health by so many and no more, and who leaves makes room', async (t) => {
  const server = await broker(t, domain);
  const session = connectTo(t, server, true);
  await outcomeOf(session);
  const watch = (): { stream: ClientHttp2Stream; answer: Promise<string> } => {
    const stream = request(session, watchPath, emptyMessage, true);
    return { stream, answer: Promise.race([once(stream, 'data').then(() => 'told'), endOf(stream)]) };
  };
  const watches = Array.from({ length: limits.healthWatchesMax }, watch);
  t.strictSame(new Set(await Promise.all(watches.map(({ answer }) => answer))), new Set(['told']));
  t.equal(await watch().answer, '8 overloaded');
  watches[0]?.stream.close(http2.constants.NGHTTP2_CANCEL);
  let answer = '';
  // Until the server has heard of it.
  while (answer !== 'told') answer = await watch().answer;
  t.equal(await watch().answer, '8 overloaded');
});

t.test('who shows no certificate has few calls at a time, and small ones', async (t) => {
  const server = await broker(t, domain);
  const [anonymous, known] = [connectTo(t, server, false), connectTo(t, server, true)];
  await Promise.all([outcomeOf(anonymous), outcomeOf(known)]);
  t.equal(anonymous.remoteSettings.maxConcurrentStreams, limits.anonymousStreamsMax);
  t.equal(known.remoteSettings.maxConcurrentStreams, limits.grpcStreamsMax);
  const message = Buffer.alloc(5);
  message.writeUInt32BE(limits.anonymousMessageBytesMax + 1, 1);
  t.match(await endOf(request(anonymous, attestPath, message, false)), '8 ');
});

t.test('a connection without a certificate is over after a time, whether it asks nothing or never to the end', async (t) => {
  const clock = createFakeClock();
  const server = await broker(t, domain, { clock });
  const [idle, unfinished, known] = [connectTo(t, server, false), connectTo(t, server, false), connectTo(t, server, true)];
  await Promise.all([idle, unfinished, known].map(outcomeOf));
  const calls = [
    request(unfinished, attestPath, emptyMessage.subarray(0, 3), false),
    request(unfinished, attestPath, Buffer.alloc(0), false),
  ];
  const ends = Promise.all(calls.map(endOf));
  clock.advance(limits.anonymousLifetimeMs - 1);
  t.equal(await endOf(request(idle, watchPath, Buffer.of(0, 0, 0, 0, 1, 0xff), true)), '3 request_malformed', 'until then it is answered');
  clock.advance(1);
  await Promise.all([closed(idle), closed(unfinished)]);
  t.strictSame(await ends, ['cut', 'cut']);
  t.equal(known.destroyed, false, 'a client that has shown who it is stays');
});

t.test('connections without a certificate are few: who comes is turned away, and later who was there first', async (t) => {
  const clock = createFakeClock();
  const server = await collector(t, domain, async () => 0, { clock });
  const first = connectTo(t, server, false);
  t.equal(await outcomeOf(first), 'open');
  const others = Array.from({ length: limits.healthConnectionsMax - 1 }, () => connectTo(t, server, false));
  t.ok((await Promise.all(others.map(outcomeOf))).every((outcome) => outcome === 'open'));
  t.equal(await outcomeOf(connectTo(t, server, false)), 'closed');
  t.equal(await outcomeOf(connectTo(t, server, true)), 'open', 'a client that shows who it is has its own room');
  clock.advance(limits.anonymousReclaimMs);
  t.equal(await outcomeOf(connectTo(t, server, false)), 'open');
  await closed(first);
  t.equal(others.filter((session) => session.destroyed).length, 0);
  others[0]?.destroy();
  await roomAgain(() => connectTo(t, server, false));
});

const knockAt = async (t: Test, { address }: RpcServer): Promise<net.Socket> => {
  const socket = net.connect(address.port, '127.0.0.1').on('error', () => undefined);
  t.teardown(() => socket.destroy());
  await once(socket, 'connect');
  return socket.resume();
};

t.test('handshakes that never end leave room for others', async (t) => {
  const clock = createFakeClock();
  const server = await broker(t, domain, { clock });
  const sockets: net.Socket[] = [];
  for (let i = 0; i < limits.grpcHandshakesMax; i += 1) sockets.push(await knockAt(t, server));
  await closed(await knockAt(t, server));
  t.equal(sockets.filter((socket) => socket.destroyed).length, 0);
  clock.advance(limits.anonymousReclaimMs);
  const channel = openBroker({ broker: peerOf(server), svid: domain.svid() });
  t.teardown(() => channel.close());
  t.equal((await channel.getGrant('echo', 'v1')).target, 'echo');
  await closed(sockets[0] as net.Socket);
});

t.test('a handshake gives its room back however it ends', async (t) => {
  const server = await broker(t, domain, { clock: createFakeClock() });
  for (let i = 1; i < limits.grpcHandshakesMax; i += 1) await knockAt(t, server);
  const connected = () => connectTo(t, server, true);
  const endings: Record<string, (socket: net.Socket) => unknown> = {
    'the client leaves': (socket) => socket.end(),
    'the client breaks off': (socket) => socket.resetAndDestroy(),
    'it breaks off in the middle': (socket) => socket.write(Buffer.from('160301', 'hex'), () => socket.resetAndDestroy()),
    'it is none': (socket) => socket.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n'),
  };
  for (const [name, end] of Object.entries(endings)) {
    const socket = await knockAt(t, server);
    end(socket);
    await closed(socket);
    await roomAgain(connected);
    t.pass(name);
  }
  const { port } = server.address;
  await closed(tls.connect({ host: '127.0.0.1', port, ca: [] }).on('error', () => undefined));
  await roomAgain(connected);
  await closed(tls.connect({ host: '127.0.0.1', port, ALPNProtocols: ['http/1.1'] }).on('error', () => undefined));
  await roomAgain(connected);
});

t.test('hundreds of pods that start together are attested together', async (t) => {
  const [pods, atOnce] = [300, 20];
  const issuing = handlersOf(domain);
  const arrivals = new EventEmitter();
  let underWay = 0;
  const server = await broker(t, domain, {
    clock: createFakeClock(),
    handlers: handlersOf(domain, {
      attest: async (shown, certificateRequest) => {
        const all = once(arrivals, String(pods));
        arrivals.emit(String((underWay += 1)));
        await all;
        return issuing.attest(shown, certificateRequest);
      },
    }),
  });
  arrivals.setMaxListeners(pods);
  const key = createKeyPair();
  const brokerCaPem = domain.authority.certificatePem;
  const start = () => attest({ broker: peerOf(server), brokerCaPem, evidence, key, timeoutMs: 120_000, clock: systemClock });
  const attested: ReturnType<typeof start>[] = [];
  // Some at a time, because one process does all the handshakes of both sides here.
  while (attested.length < pods) {
    const arrived = once(arrivals, String(attested.length + atOnce));
    for (let i = 0; i < atOnce; i += 1) attested.push(start());
    await Promise.race([arrived, Promise.all(attested)]);
  }
  t.equal(new Set((await Promise.all(attested)).map(({ certificateChainPem }) => certificateChainPem)).size, pods);
});
