import { createHash, randomBytes } from 'node:crypto';
import { createServer as createTcpServer, type Socket } from 'node:net';
import { createServer as createTlsTarget } from 'node:tls';
import type { Duplex } from 'node:stream';
import t, { type Test } from 'tap';
import {
  between,
  type Between,
  type Conversation,
  files,
  host,
  outcomeOf,
  program,
  rawTarget,
  talk,
  tlsTunnel,
  tunnel,
  until,
} from '../support/between.ts';

/** WebSocket and other upgrades (RFC 9110 section 7.8, RFC 6455), THREATS E-17, LESSONS 4. */
const key = randomBytes(16).toString('base64');
const acceptOf = (of: string): string => createHash('sha1').update(`${of}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');

const request = (line: string, ...fields: readonly string[]): string =>
  [`${line} HTTP/1.1`, `Host: ${host}`, ...fields, '', ''].join('\r\n');
const webSocket = (line = 'GET /chat', ...more: readonly string[]): string =>
  request(line, 'Connection: keep-alive, Upgrade', 'Upgrade: websocket', `Sec-WebSocket-Key: ${key}`, 'Sec-WebSocket-Version: 13', ...more);
const accepted = (...more: readonly string[]): string =>
  [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${acceptOf(key)}`,
    ...more,
    '',
    '',
  ].join('\r\n');
const absolute = (text: string): string => text.replace(' /', ` http://${host}/`);

type Meet = (conversation: Conversation & { readonly socket: Socket }) => void | Promise<void>;

const setUp = (t: Test, meet: Meet, options: Parameters<typeof between>[2] = {}): Promise<Between> => between(t, rawTarget(meet), options);

/** The ways in which programs open WebSockets; each gives a connection on which the request can be written as it stands. */
const ways: Record<string, (between: Between) => Promise<{ readonly socket: Duplex; readonly line: (text: string) => string }>> = {
  'CONNECT and TLS': async ({ path }) => ({ socket: await tlsTunnel(path, ['http/1.1']), line: (text) => text }),
  'CONNECT in clear text': async ({ path }) => ({ socket: await tunnel(path, `${host}:80`), line: (text) => text }),
  'absolute-form': async ({ path }) => ({ socket: (await program(path)).socket, line: absolute }),
  'a reverse route': async ({ path }) => ({
    socket: (await program(path, { port: path.routes[0] as number })).socket,
    line: (text) => text,
  }),
};

for (const [way, open] of Object.entries(ways))
  t.test(`${way}: the credential is on the upgrade request, the 101 is the target's, and bytes go both ways`, async (t) => {
    const meet = async ({ until: received, say, text, socket }: Conversation): Promise<void> => {
      await received(/\r\n\r\n$/);
      t.match(text(), /^GET \/chat\?room=1 HTTP\/1\.1\r\n/);
      t.match(text(), /\r\nauthorization: Bearer credential-for-echo\r\n/i);
      t.equal(text().match(/\r\nauthorization:/gi)?.length, 1);
      t.match(text(), new RegExp(`\r\nSec-WebSocket-Key: ${key.replaceAll('+', '\\+')}\r\n`));
      say(accepted('Sec-WebSocket-Protocol: chat', 'X-Other: 1'));
      await received(/\u0081\u0002hi$/);
      say('\u0081\u0003all');
      await received(/bye$/);
      (socket as Socket).end('and bye');
    };
    const server = way === 'CONNECT and TLS' ? createTlsTarget(files, (socket) => void meet(talk(socket))) : rawTarget(meet);
    const to = { scheme: 'http' as const, host, port: 80 };
    const both = await between(t, server, { routes: [{ listen: { host: '127.0.0.1', port: 0 }, to }] });
    const { socket, line } = await open(both);
    const client = talk(socket);
    client.say(line(webSocket('GET /chat?room=1', 'Authorization: Bearer theirs', 'Sec-WebSocket-Protocol: chat')));
    const answer = await client.until(/\r\n\r\n$/);
    t.match(answer, /^HTTP\/1\.1 101 Switching Protocols\r\n/);
    for (const field of [/upgrade: websocket/i, /connection: upgrade/i, /Sec-WebSocket-Protocol: chat/, /X-Other: 1/])
      t.match(answer, field);
    t.equal(answer.match(/\r\nupgrade:/gi)?.length, 1);
    client.say('\u0081\u0002hi');
    await client.until(/\u0081\u0003all$/);
    client.say('bye');
    await client.until(/and bye$/);
    t.equal(await client.end, 'end', 'the target closed');
    client.socket.destroy();
    const { outcome, kind } = await outcomeOf(both.path);
    t.match({ kind, outcome }, { kind: 'outcome', outcome: { status: 101, fault: '', requestBodyBytes: 7, responseBodyBytes: 12 } });
    await until(() => both.origin.sockets.size === 0);
  });

t.test('what the program sends before the 101 reaches the target only after it', async (t) => {
  let targetSide: Conversation | undefined;
  let beforeAnswer = '';
  const { path } = await setUp(t, async (conversation) => {
    if (targetSide) return conversation.say('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother');
    targetSide = conversation;
    return undefined;
  });
  const client = await program(path);
  // With the head, and later: what node:http hands over, and what is read while the answer is awaited.
  client.say(`${absolute(webSocket())}early,`);
  await until(() => targetSide?.text().endsWith('\r\n\r\n') === true);
  await new Promise((resolve) => client.socket.write('still early,', resolve));
  // A whole exchange of another program later nothing of it has moved on.
  const other = await program(path);
  other.say(absolute(request('GET /other')));
  await other.until(/other$/);
  beforeAnswer = targetSide?.text() ?? '';
  targetSide?.say(accepted());
  await client.until(/^HTTP\/1\.1 101 [^]*\r\n\r\n$/);
  client.say('late');
  await targetSide?.until(/\r\n\r\nearly,still early,late$/);
  t.match(beforeAnswer, /\r\n\r\n$/);
  t.notMatch(beforeAnswer, /early/);
});

t.test("early bytes that turn out to be nobody's are never sent: they may look like a request", async (t) => {
  const smuggled = absolute(request('GET /smuggled'));
  for (const [status, rest] of [
    ['200 OK', 'Content-Length: 2\r\n\r\nok'],
    ['401 Unauthorized', 'WWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno'],
    ['302 Found', 'Location: https://attacker.outrider.test/\r\nContent-Length: 0\r\n\r\n'],
    ['426 Upgrade Required', 'Upgrade: other\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n'],
  ] as const) {
    const seen: Conversation[] = [];
    const { path, origin } = await setUp(t, async (conversation) => {
      seen.push(conversation);
      await conversation.until(/\r\n\r\n$/);
      conversation.say(`HTTP/1.1 ${status}\r\n${rest}`);
    });
    const client = await program(path);
    client.say(absolute(webSocket()) + smuggled);
    await client.end;
    t.match(client.text(), new RegExp(`^HTTP/1\\.1 ${status}\r\n[^]*connection: close`, 'i'), status);
    t.equal(client.text().match(/HTTP\/1\.1 /g)?.length, 1);
    t.notMatch(client.text(), /\r\nupgrade:/i);
    t.notMatch(seen.map(({ text }) => text()).join(), /smuggled/);
    t.equal(origin.accepted(), 1);
    t.equal(path.events.filter(({ kind }) => kind === 'intent').length, 1);
    t.match((await outcomeOf(path)).outcome, { status: Number(status.slice(0, 3)), fault: '' });
  }
});

t.test('a 101 that answers another key, another protocol, or nothing at all is not believed', async (t) => {
  for (const answer of [
    accepted().replace(acceptOf(key), acceptOf('another')),
    accepted().replace(/Sec-WebSocket-Accept: .*\r\n/, ''),
    accepted().replace('Upgrade: websocket', 'Upgrade: other'),
    accepted().replace('Upgrade: websocket\r\n', ''),
    accepted(`Sec-WebSocket-Accept: ${acceptOf(key)}`),
  ]) {
    let targetSide: Conversation | undefined;
    const { path } = await setUp(t, async (conversation) => {
      targetSide = conversation;
      await conversation.until(/\r\n\r\n$/);
      conversation.say(`${answer}secret bytes`);
    });
    const client = await program(path);
    client.say(`${absolute(webSocket())}early`);
    await client.end;
    t.match(client.text(), /^HTTP\/1\.1 502 [^]*"code":"target_malformed"/);
    t.notMatch(client.text(), /secret bytes/);
    await targetSide?.end;
    t.notMatch(targetSide?.text(), /early/);
  }
});

t.test('a refused upgrade is an ordinary refusal, before the target hears of it', async (t) => {
  const { path, origin } = await setUp(t, () => undefined);
  const client = await program(path);
  client.say(absolute(webSocket('GET /a/../b')));
  await client.end;
  t.match(client.text(), /^HTTP\/1\.1 400 [^]*"code":"path_ambiguous"/);
  t.equal(origin.accepted(), 0);
});

for (const how of ['FIN', 'RST'] as const)
  t.test(`a program that leaves (${how}) while its upgrade is pending takes the target's connection with it`, async (t) => {
    let targetSide: Conversation | undefined;
    const { path, origin } = await setUp(t, (conversation) => {
      targetSide = conversation;
    });
    const client = await program(path);
    client.say(`${absolute(webSocket())}early`);
    await until(() => targetSide?.text().endsWith('\r\n\r\n') === true);
    if (how === 'FIN') client.socket.end();
    else client.socket.resetAndDestroy();
    t.match((await outcomeOf(path)).outcome, { fault: 'client_closed' });
    await targetSide?.end;
    await until(() => origin.sockets.size === 0);
  });

t.test('when one side of an upgraded connection goes, so does the other', async (t) => {
  for (const [leaver, how] of [
    ['program', 'end'],
    ['program', 'resetAndDestroy'],
    ['target', 'end'],
    ['target', 'resetAndDestroy'],
  ] as const) {
    let targetSide: (Conversation & { readonly socket: Socket }) | undefined;
    const { path, origin } = await setUp(t, async (conversation) => {
      targetSide = conversation;
      await conversation.until(/\r\n\r\n$/);
      conversation.say(accepted());
    });
    const client = await program(path);
    client.say(absolute(webSocket()));
    await client.until(/\r\n\r\n$/);
    const [one, other] = leaver === 'program' ? [client.socket, targetSide] : [targetSide?.socket, client];
    one?.[how]();
    t.equal(await other?.end, how === 'end' ? 'end' : 'broken', `${leaver} ${how}`);
    other?.socket.destroy();
    await outcomeOf(path);
    await until(() => origin.sockets.size === 0);
  }
});

t.test('an upgraded connection is slowed by whoever does not read, and little is kept', async (t) => {
  const bytes = 64 * 1024 * 1024;
  for (const slow of ['program', 'target'] as const) {
    let targetSide: (Conversation & { readonly socket: Socket }) | undefined;
    const { path } = await setUp(t, async (conversation) => {
      targetSide = conversation;
      await conversation.until(/\r\n\r\n$/);
      if (slow === 'target') conversation.socket.pause();
      conversation.say(accepted());
    });
    const client = await program(path);
    client.say(absolute(webSocket()));
    await client.until(/\r\n\r\n$/);
    if (slow === 'program') client.socket.pause();
    const writer = (slow === 'program' ? targetSide?.socket : client.socket) as Socket;
    const chunk = Buffer.alloc(64 * 1024);
    let written = 0;
    const more = (): void => {
      while (written < bytes) {
        written += chunk.length;
        if (!writer.write(chunk)) return void writer.once('drain', more);
      }
    };
    more();
    // Still when nothing more was taken over many turns of the loop.
    for (let still = 0, last = -1; still < 100; still += 1) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      if (written !== last) still = 0;
      last = written;
    }
    t.ok(written < bytes / 2, `${slow}: ${written} bytes were taken`);
    writer.destroy();
    client.socket.destroy();
    targetSide?.socket.destroy();
    await outcomeOf(path);
  }
});

t.test('other protocols change the same way, with or without early answers', async (t) => {
  const { path } = await setUp(t, async ({ until: received, say, text }) => {
    await received(/\r\n\r\n$/);
    t.match(text(), /^POST \/containers\/a\/attach HTTP\/1\.1\r\n[^]*\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n/i);
    // The first bytes of the new protocol come with the 101.
    say('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nwelcome');
    await received(/ls$/);
    say('files');
  });
  const client = await program(path);
  client.say(absolute(request('POST /containers/a/attach', 'Connection: Upgrade', 'Upgrade: tcp', 'Content-Length: 0')));
  await client.until(/\r\n\r\nwelcome$/);
  client.say('ls');
  await client.until(/files$/);
});

t.test(
  'an upgrade to HTTP/2, one that Connection does not name, and one with a body are ordinary requests, and their Upgrade ends here',
  async (t) => {
    const seen: string[] = [];
    const { path } = await setUp(t, async ({ until: received, say, text }) => {
      await received(/\r\n\r\n(?:body)?$/);
      seen.push(text());
      say('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok');
    });
    for (const fields of [
      ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__'],
      ['Connection: Upgrade', 'Upgrade: websocket, h2c'],
      ['Upgrade: websocket'],
      ['Connection: notupgrade', 'Upgrade: websocket'],
      ['Connection: Upgrade', 'Upgrade: websocket', 'Upgrade: websocket'],
      ['Connection: Upgrade', 'Upgrade: websocket', 'Content-Length: 4'],
    ]) {
      const client = await program(path);
      client.say(absolute(request('POST /', ...fields)) + (fields.includes('Content-Length: 4') ? 'body' : ''));
      t.match(await client.until(/\r\n\r\nok$/), /^HTTP\/1\.1 200 OK/, fields.join());
      client.socket.destroy();
    }
    t.equal(seen.length, 6);
    for (const text of seen) t.notMatch(text, /upgrade|http2-settings/i);
  },
);

/** The time limits on silence of the sockets in this process that have this port at their end, or are connected to it. */
const timeLimits = (port: number, end: 'localPort' | 'remotePort'): (number | undefined)[] =>
  (process as unknown as { _getActiveHandles: () => object[] })
    ._getActiveHandles()
    .filter((one): one is Socket => end in one && (one as Socket)[end] === port && 'timeout' in one)
    .map(({ timeout }) => timeout);

t.test('an idle upgraded connection has no time limit on either hop', async (t) => {
  const { path, origin } = await setUp(t, async ({ until: received, say }) => {
    await received(/\r\n\r\n$/);
    say(accepted());
  });
  const client = await program(path);
  client.say(absolute(webSocket()));
  await client.until(/101[^]*\r\n\r\n$/);
  t.same(
    timeLimits(path.port, 'localPort').filter((one) => one !== undefined),
    [0],
  );
  t.same(timeLimits(origin.port, 'remotePort').filter(Boolean), []);
});

t.test('an upgrade that is pipelined behind a request works, and keeps no time limit of it', async (t) => {
  const { path } = await between(
    t,
    createTcpServer((socket) => {
      socket.on('data', (data) => {
        if (String(data).startsWith('GET /first')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst');
        else if (String(data).startsWith('GET /chat')) socket.write(accepted());
        else socket.write(`heard ${String(data)}`);
      });
    }),
  );
  const client = await program(path);
  client.say(`${absolute(request('GET /first')) + absolute(webSocket())}early`);
  await client.until(/first[^]*101 Switching[^]*\r\n\r\nheard early$/);
  t.same(
    timeLimits(path.port, 'localPort').filter((one) => one !== undefined),
    [0],
    'node:http gives a connection a limit once it has answered on it',
  );
});
