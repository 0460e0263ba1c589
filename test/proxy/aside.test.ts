import { createHash, randomBytes } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { Duplex } from 'node:stream';
import { createServer as createTlsServer } from 'node:tls';
import t from 'tap';
import {
  between,
  type Between,
  files,
  host,
  httpTarget,
  outcomeOf,
  program,
  rawTarget,
  talk,
  tlsTunnel,
  tunnel,
  until,
} from '../support/between.ts';

/** Connections that node:http lets go of (upgrades, CONNECT) while they wait, THREATS F-3, R-1: nothing of them is forgotten. */
const get = (target: string, ...fields: readonly string[]): string =>
  [`GET ${target} HTTP/1.1`, `Host: ${host}`, ...fields, '', ''].join('\r\n');
const upgrade = (target: string): string =>
  get(target, 'Connection: Upgrade', 'Upgrade: websocket', `Sec-WebSocket-Key: ${'A'.repeat(22)}==`, 'Sec-WebSocket-Version: 13');
const connect = (authority = `${host}:443`): string => `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;

t.test('a CONNECT that is refused gives its place back, whatever came behind it and whoever stays', async (t) => {
  const gone: string[] = [];
  const { path } = await between(
    t,
    httpTarget((_request, response) => response.end('ok')),
    { onUnmatched: 'refuse', listener: { connectionsMax: 4 }, onConnections: (kind, delta) => void (delta < 0 && gone.push(kind)) },
  );
  for (let i = 0; i < 4; i += 1) {
    const client = await program(path, { allowHalfOpen: true });
    client.say(connect('nowhere.outrider.test:443'));
    client.say('\u0016\u0003');
    if (i % 2 === 0) client.socket.destroy();
    else t.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 403 /);
  }
  await until(() => gone.length === 4);
  const client = await program(path);
  client.say(get(`http://${host}/`));
  t.match(await client.until(/ok$/), /^HTTP\/1\.1 200 /);
  client.socket.destroy();
});

/** What is sent piece by piece, each when the one before has been taken, to a target that never answers. */
const leavings: Record<
  string,
  { readonly open: (between: Between) => Promise<Duplex>; readonly pieces: readonly string[]; readonly isTls?: true }
> = {
  'an upgrade with bytes behind it': {
    open: async ({ path }) => (await program(path)).socket,
    pieces: [upgrade(`http://${host}/`), 'abc', 'def'],
  },
  'an upgrade with bytes behind it, inside TLS': {
    open: ({ path }) => tlsTunnel(path, ['http/1.1']),
    pieces: [upgrade('/'), 'abc'],
    isTls: true,
  },
  'an upgrade with bytes behind it, behind a request': {
    open: ({ path }) => tunnel(path, `${host}:80`),
    pieces: [get('/'), upgrade('/'), 'abc'],
  },
  'CONNECT behind a request': {
    open: async ({ path }) => (await program(path)).socket,
    pieces: [get(`http://${host}/`), connect(), 'abc'],
  },
  'CONNECT behind a request, inside TLS': {
    open: ({ path }) => tlsTunnel(path, ['http/1.1']),
    pieces: [get('/'), connect(), 'abc'],
    isTls: true,
  },
};

for (const [what, { open, pieces, isTls }] of Object.entries(leavings))
  t.test(`a program that leaves is noticed: ${what}`, async (t) => {
    let connections = 0;
    const set = await between(t, isTls ? createTlsServer(files, (socket) => void talk(socket)) : rawTarget(() => undefined), {
      onConnections: (_kind, delta) => void (connections += delta),
    });
    const socket = await open(set);
    for (const piece of pieces) {
      await new Promise<void>((resolve) => socket.write(piece, () => resolve()));
      // Each in a packet of its own, and read by the proxy before the next.
      for (let i = 0; i < 20; i += 1) await new Promise(setImmediate);
    }
    await until(() => set.origin.sockets.size === 1);
    socket.end();
    t.match((await outcomeOf(set.path)).outcome, { fault: 'client_closed' });
    await until(() => connections === 0 && set.origin.sockets.size === 0);
    socket.destroy();
  });

const body = randomBytes(8 * 1024 * 1024);
const answer = (_request: IncomingMessage, response: ServerResponse): void =>
  void response.writeHead(200, { 'Content-Length': body.length }).end(body);

for (const [what, open, bytes, server] of [
  [
    'an answer that is no upgrade',
    ({ path }: Between) => program(path).then(({ socket }) => socket),
    upgrade(`http://${host}/`),
    httpTarget(answer),
  ],
  ['one inside TLS', ({ path }: Between) => tlsTunnel(path, ['http/1.1']), upgrade('/'), createHttpsServer(files, answer)],
  [
    'one that CONNECT waits behind',
    ({ path }: Between) => program(path).then(({ socket }) => socket),
    get(`http://${host}/`) + connect(),
    httpTarget(answer),
  ],
] as const)
  t.test(`${what} comes whole, however long it is`, async (t) => {
    const socket = await open(await between(t, server));
    socket.write(bytes);
    const chunks: Buffer[] = [];
    let head = '';
    let length = 0;
    await new Promise<void>((resolve) => {
      socket.on('data', (chunk: Buffer) => {
        chunks.push(chunk);
        length += chunk.length;
        if (head === '') head = /^[^]*?\r\n\r\n/.exec(Buffer.concat(chunks).toString('latin1'))?.[0] ?? '';
        if (head !== '' && length >= head.length + body.length) resolve();
      });
    });
    t.match(head, /^HTTP\/1\.1 200 /);
    t.ok(
      Buffer.concat(chunks)
        .subarray(head.length, head.length + body.length)
        .equals(body),
      'every byte',
    );
    socket.destroy();
  });

t.test('a quiet upgraded connection makes room for nobody, and has its time when the proxy ends', async (t) => {
  const closed: string[] = [];
  const { path } = await between(
    t,
    rawTarget(async ({ until: received, say }) => {
      const head = await received(/\r\n\r\n$/);
      const key = /sec-websocket-key: (.*)\r\n/i.exec(head)?.[1] ?? '';
      const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
      say(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    }),
    {
      clientPatience: { idleReclaimMs: 0 },
      listener: { connectionsMax: 4, noticeMs: 0, onOverload: (why: string) => void closed.push(why) },
    },
  );
  const upgraded = [];
  for (let i = 0; i < 4; i += 1) {
    const client = await program(path);
    client.say(upgrade(`http://${host}/`));
    await client.until(/^HTTP\/1\.1 101 [^]*\r\n\r\n$/);
    upgraded.push(client);
  }
  const late = await program(path);
  late.say(get(`http://${host}/`));
  t.match(await late.until(/\r\n\r\n/), /^HTTP\/1\.1 503 /);
  t.same(closed, ['connections']);
  // The first thing that a drain closes is whoever is idle.
  const idle = talk(late.socket);
  const drained = path.drain(1_000);
  await idle.end;
  t.ok(upgraded.every(({ socket }) => !socket.destroyed && !socket.readableEnded));
  for (const { socket } of upgraded) socket.destroy();
  await drained;
});
