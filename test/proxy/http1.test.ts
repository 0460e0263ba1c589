import { once } from 'node:events';
import { createServer as createTlsServer } from 'node:https';
import { connect, createServer } from 'node:net';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import { listen } from '../net/outbound/targets.ts';
import {
  between,
  type Conversation,
  files,
  host,
  httpTarget,
  outcomeOf,
  program,
  rawTarget,
  talk,
  tunnel,
  until,
  whole,
} from '../support/between.ts';

/** HTTP/1 between programs and targets, to the letter (RFC 9110, RFC 9112). */
const url = `http://${host}`;
const head = (line: string, ...fields: readonly string[]): string =>
  [`${line.replace(' /', ` ${url}/`)} HTTP/1.1`, `Host: ${host}`, ...fields, '', ''].join('\r\n');

// Order ---------------------------------------------------------------------------------------------------------------

t.test('pipelined requests reach the target one at a time and are answered in order', async (t) => {
  let underWay = 0;
  let most = 0;
  const seen: string[] = [];
  const { path } = await between(
    t,
    httpTarget((request, response) => {
      underWay += 1;
      most = Math.max(most, underWay);
      seen.push(request.url as string);
      // The first takes longest.
      setTimeout(
        () => {
          underWay -= 1;
          response.end(`answer ${request.url}`);
        },
        seen.length === 1 ? 30 : 0,
      );
    }),
  );
  const client = await program(path);
  const paths = Array.from({ length: 20 }, (_, i) => `/${i}`);
  client.say(paths.map((one) => head(`GET ${one}`)).join(''));
  const text = await client.until(/answer \/19/);
  t.same(seen, paths);
  t.same(
    [...text.matchAll(/answer (\/\d+)/g)].map(([, one]) => one),
    paths,
  );
  t.equal(most, 1);
  client.socket.destroy();
});

t.test("a pipelined request that is refused ends the connection after the answers before it, and what follows is nobody's", async (t) => {
  const { path, origin } = await between(
    t,
    httpTarget((request, response) => response.end(`answer ${request.url}`)),
  );
  const client = await program(path);
  client.say(head('GET /1') + head('GET /2').replace(`Host: ${host}`, 'Host: other.outrider.test') + head('GET /3'));
  await client.end;
  t.same(client.text().match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 421']);
  t.notMatch(client.text(), 'answer /3');
  t.equal(path.events.filter(({ kind }) => kind === 'intent').length, 1);
  await until(() => origin.sockets.size <= 1);
});

t.test('bytes that are no request, after one that is, are refused after its answer', async (t) => {
  const { path } = await between(
    t,
    httpTarget((request, response) => setTimeout(() => response.end(`answer ${request.url}`), 10)),
  );
  for (const bad of ['garbage\r\n\r\n', `POST ${url}/x HTTP/1.1\r\nHost: ${host}\r\nContent-Length: x\r\n\r\n`, '\u0000\u0001']) {
    const client = await program(path);
    client.say(head('GET /1') + head('GET /2') + bad);
    await client.end;
    t.same(
      client.text().match(/HTTP\/1\.1 \d+|answer \/\d/g),
      ['HTTP/1.1 200', 'answer /1', 'HTTP/1.1 200', 'answer /2', 'HTTP/1.1 400'],
      JSON.stringify(bad),
    );
  }
});

t.test('a pipelined body that turns out malformed before its turn is refused in its turn, and never sent', async (t) => {
  const seen: string[] = [];
  const { path } = await between(
    t,
    httpTarget((request, response) => {
      seen.push(request.url as string);
      setTimeout(() => response.end(`answer ${request.url}`), 10);
    }),
  );
  const client = await program(path);
  client.say(`${head('GET /1') + head('POST /2', 'Transfer-Encoding: chunked')}5\r\nhello\r\nzz\r\n`);
  await client.end;
  t.same(client.text().match(/HTTP\/1\.1 \d+|answer \/\d/g), ['HTTP/1.1 200', 'answer /1', 'HTTP/1.1 400']);
  t.same(seen, ['/1']);
});

t.test('CONNECT and upgrades wait for the answers before them', async (t) => {
  const { path } = await between(
    t,
    httpTarget((request, response) => setTimeout(() => response.end(`answer ${request.url}`), 20)),
  );
  for (const [second, wanted] of [
    [
      `CONNECT ${host}:80 HTTP/1.1\r\nHost: ${host}:80\r\n\r\n`,
      /^HTTP\/1\.1 200 OK[^]*answer \/1HTTP\/1\.1 200 Connection Established\r\n\r\n$/,
    ],
    [head('GET /2', 'Connection: Upgrade', 'Upgrade: tcp'), /^HTTP\/1\.1 200 OK[^]*answer \/1HTTP\/1\.1 200 OK[^]*answer \/2$/],
  ] as const) {
    const client = await program(path);
    client.say(head('GET /1') + second);
    t.match(await client.until(wanted), wanted);
    client.socket.destroy();
  }
});

t.test('a connection on which too many requests wait is broken, and the proxy serves on', async (t) => {
  const { path } = await between(
    t,
    httpTarget((request, response) => {
      if (request.url === '/other') response.end('ok');
    }),
  );
  const greedy = await program(path);
  greedy.say(head('GET /').repeat(1_000));
  t.equal(await greedy.end, 'broken');
  t.equal(path.events.filter(({ kind }) => kind === 'intent').length, 1, 'none but the first was taken');
  t.match((await outcomeOf(path)).outcome, { fault: 'client_closed' });
  const other = await program(path);
  other.say(head('GET /other'));
  await other.until(whole(200, 'ok'));
});

// Interim answers -----------------------------------------------------------------------------------------------------

t.test("Expect: the target's 100 is passed on, once, and the body follows it", async (t) => {
  const { path } = await between(
    t,
    rawTarget(async ({ until: received, say }) => {
      await received(/expect: 100-continue\r\n[^]*\r\n\r\n$/i);
      say('HTTP/1.1 100 Continue\r\n\r\n');
      await received(/\r\n\r\nbody$/);
      say('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      await received(/body[^]*\r\n\r\n$/);
      say('HTTP/1.1 100 Continue\r\n\r\n');
      await received(/body[^]*\r\n\r\nbody$/);
      say('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    }),
  );
  const client = await program(path);
  client.say(head('PUT /', 'Expect: 100-continue', 'Content-Length: 4'));
  t.equal(await client.until(/\r\n\r\n/), 'HTTP/1.1 100 Continue\r\n\r\n');
  client.say('body');
  t.match(await client.until(/ok$/), /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK\r\n/);
  t.match((await outcomeOf(path)).outcome, { status: 200, requestBodyBytes: 4 });
  t.notMatch(client.text(), /connection: close/i);
  client.say(head('PUT /', 'Expect: 100-continue', 'Content-Length: 4'));
  await client.until(/okHTTP\/1\.1 100 Continue\r\n\r\n$/);
  client.say('body');
  await client.until(/ok[^]*ok$/);
});

for (const status of [401, 417, 200])
  t.test(
    `Expect: a target's ${status} instead of 100 is the answer; the body is neither asked for nor sent, and what follows is no request`,
    async (t) => {
      let received: Conversation | undefined;
      const { path } = await between(
        t,
        rawTarget(async (conversation) => {
          received = conversation;
          await conversation.until(/\r\n\r\n$/);
          conversation.say(`HTTP/1.1 ${status} Said\r\nContent-Length: 2\r\n\r\nno`);
        }),
      );
      const client = await program(path);
      client.say(head('PUT /', 'Expect: 100-continue', 'Content-Length: 400'));
      const answer = await client.until(/no$/);
      t.match(answer, new RegExp(`^HTTP/1\\.1 ${status} Said\r\n`));
      t.match(answer, /connection: close/i);
      // As a program does that takes the connection to be free.
      client.say(head('GET /smuggled'));
      await client.end;
      t.equal(client.text(), answer);
      await received?.end;
      t.notMatch(received?.text(), /smuggled|400 bytes/);
      t.equal(path.events.filter(({ kind }) => kind === 'intent').length, 1);
    },
  );

t.test('Expect: a target that never says 100 gets the body after a while, and the program is told to send it', async (t) => {
  const { path } = await between(
    t,
    rawTarget(async ({ until: received, say }) => {
      await received(/\r\n\r\nbody$/);
      say('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    }),
    { patience: { continueMs: 20 } },
  );
  const client = await program(path);
  client.say(head('PUT /', 'Expect: 100-continue', 'Content-Length: 4'));
  t.equal(await client.until(/\r\n\r\n/), 'HTTP/1.1 100 Continue\r\n\r\n');
  client.say('body');
  await client.until(/\r\n\r\nok$/);
});

t.test('Expect: a refusal is the answer, and no 100 comes before it', async (t) => {
  const { path, origin } = await between(
    t,
    httpTarget((_request, response) => response.end('ok')),
  );
  const client = await program(path);
  client.say(head('PUT /a/../b', 'Expect: 100-continue', 'Content-Length: 4'));
  await client.end;
  t.match(client.text(), /^HTTP\/1\.1 400 [^]*connection: close/i);
  const odd = await program(path);
  odd.say(head('PUT /', 'Expect: 200-ok', 'Content-Length: 4'));
  await odd.end;
  t.match(odd.text(), /^HTTP\/1\.1 417 [^]*connection: close/i);
  t.equal(origin.accepted(), 0);
});

t.test('interim answers are relayed as they come; HTTP/1.0 is spared them, and 101 is none', async (t) => {
  const interim =
    'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n';
  const { path } = await between(
    t,
    rawTarget(async ({ until: received, say }) => {
      await received(/\r\n\r\n$/);
      say(`${interim}HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok`);
    }),
  );
  const modern = await program(path);
  modern.say(head('GET /'));
  t.match(
    await modern.until(/ok$/),
    /^HTTP\/1\.1 102 Processing\r\n\r\nHTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>; rel=preload\r\n\r\nHTTP\/1\.1 200 OK\r\n/,
  );
  const old = await program(path);
  old.say(head('GET /').replace('HTTP/1.1', 'HTTP/1.0').replace('\r\n\r\n', '\r\nExpect: 100-continue\r\n\r\n'));
  await old.end;
  t.match(old.text(), /^HTTP\/1\.1 200 OK\r\n[^]*ok$/);
});

// Bodies and their ends -----------------------------------------------------------------------------------------------

t.test('trailers go both ways, without those that frame, route or authenticate', async (t) => {
  let received: Conversation | undefined;
  const { path } = await between(
    t,
    rawTarget(async (conversation) => {
      received = conversation;
      await conversation.until(/\r\n0\r\n[^]*\r\n\r\n$/);
      conversation.say(
        'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nSet-Cookie: a=b\r\nConnection: close\r\nX-Sum: 8\r\n\r\n',
      );
    }),
  );
  const client = await program(path);
  client.say(
    `${head('POST /', 'Transfer-Encoding: chunked', 'Trailer: X-Up', 'TE: trailers')}2\r\nhi\r\n0\r\nX-Up: 1\r\nAuthorization: theirs\r\nauthorization_: theirs\r\nHost: theirs\r\nX-Original-URL: /theirs\r\nX_HTTP_Method_Override: DELETE\r\nx_up: 2\r\n\r\n`,
  );
  t.match(await client.until(/\r\n0\r\n[^]*\r\n\r\n$/), /\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\nX-Sum: 8\r\n\r\n$/);
  t.match(received?.text(), /\r\n0\r\nX-Up: 1\r\n(?:authorization_: theirs\r\n)?x_up: 2\r\n\r\n$/);
  t.notMatch(received?.text(), /Authorization: theirs|Host: theirs|Original|Override/);
});

t.test('answers without a body keep the connection, whatever their fields say', async (t) => {
  const answers: Record<string, string> = {
    'GET /204': 'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n',
    'GET /304': 'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 5\r\n\r\n',
    'HEAD /length': 'HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n',
    'HEAD /chunked': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
    'GET /last': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
  };
  const { path } = await between(
    t,
    rawTarget(({ socket, say }) => void socket.on('data', (bytes) => say(answers[/^\w+ \S+/.exec(String(bytes))?.[0] ?? ''] ?? ''))),
  );
  const client = await program(path);
  for (const [line, wanted] of [
    ['GET /204', /^HTTP\/1\.1 204 No Content\r\n(?!.*content-length)[^]*\r\n\r\n$/i],
    ['GET /304', /HTTP\/1\.1 304 Not Modified\r\nETag: "1"\r\n[^]*\r\n\r\n$/],
    ['HEAD /length', /HTTP\/1\.1 200 OK\r\nContent-Length: 1234\r\n[^]*\r\n\r\n$/],
    ['HEAD /chunked', /Content-Length: 1234[^]*HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\n$/],
    ['GET /last', /\r\n\r\nok$/],
  ] as const) {
    client.say(head(line));
    t.match(await client.until(wanted), wanted, line);
  }
  client.socket.destroy();
});

t.test('what a close-delimited answer of the target holds arrives as one whole answer', async (t) => {
  const { path } = await between(
    t,
    rawTarget(async ({ until: received, say, socket }) => {
      await received(/\r\n\r\n$/);
      say('HTTP/1.1 200 OK\r\n\r\npart one, ');
      setImmediate(() => socket.end('part two'));
    }),
  );
  const modern = await program(path);
  modern.say(head('GET /'));
  t.match(await modern.until(/\r\n0\r\n\r\n$/), /transfer-encoding: chunked\r\n[^]*part one, [^]*part two\r\n0\r\n\r\n$/i);
  modern.say(head('GET /'));
  await modern.until(/(?:part two\r\n0\r\n\r\n[^]*){2}$/);
  const old = await program(path);
  old.say(head('GET /').replace('HTTP/1.1', 'HTTP/1.0'));
  t.equal(await old.end, 'end');
  t.match(old.text(), /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\npart one, part two$/);
});

t.test('HTTP/1.0 programs: closed after the answer unless they ask otherwise, and never given chunks', async (t) => {
  const { path } = await between(
    t,
    httpTarget((request, response) => {
      if (request.url === '/length') response.setHeader('Content-Length', 2);
      response.write('o');
      response.end('k');
    }),
  );
  const ask = (name: string, ...fields: readonly string[]): string => head(`GET ${name}`, ...fields).replace('HTTP/1.1', 'HTTP/1.0');
  for (const [name, fields] of [
    ['/length', []],
    ['/chunked', []],
    ['/chunked', ['Connection: keep-alive']],
    ['/chunked', ['TE: chunked', 'Connection: TE, keep-alive']],
  ] as const) {
    const client = await program(path);
    client.say(ask(name, ...fields));
    t.equal(await client.end, 'end', `${name} ${fields.join()}`);
    t.match(client.text(), /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nok$/, name);
    t.notMatch(client.text(), /transfer-encoding/i);
  }
  const kept = await program(path);
  for (let i = 0; i < 3; i += 1) kept.say(ask('/length', 'Connection: keep-alive'));
  t.match(await kept.until(/(?:ok[^]*){3}$/), /connection: keep-alive/i);
  kept.socket.destroy();
});

/** How a target breaks off, and what its answer was framed by. */
const truncations: Record<string, { head: string; how: (socket: { end: () => unknown; resetAndDestroy: () => unknown }) => unknown }> = {
  'Content-Length, closed': { head: 'Content-Length: 100\r\n\r\nhalf', how: (socket) => socket.end() },
  'Content-Length, reset': { head: 'Content-Length: 100\r\n\r\nhalf', how: (socket) => socket.resetAndDestroy() },
  'chunked, closed in a chunk': { head: 'Transfer-Encoding: chunked\r\n\r\n64\r\nhalf', how: (socket) => socket.end() },
  'chunked, closed between chunks': { head: 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n', how: (socket) => socket.end() },
  'chunked, reset': { head: 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n', how: (socket) => socket.resetAndDestroy() },
  'close-delimited, reset': { head: '\r\nhalf', how: (socket) => socket.resetAndDestroy() },
};

for (const [name, { head: fields, how }] of Object.entries(truncations))
  t.test(`a truncated answer (${name}) never looks whole, to HTTP/1.1 or 1.0, in clear text or in TLS`, async (t) => {
    const breaking: (() => unknown)[] = [];
    const { path } = await between(
      t,
      rawTarget(async ({ until: received, say, socket }) => {
        await received(/\r\n\r\n$/);
        say(`HTTP/1.1 200 OK\r\n${fields}`);
        breaking.push(() => how(socket));
      }),
      { target: { protocol: 'http1' } },
    );
    for (const version of ['1.1', '1.0']) {
      const client = await program(path);
      client.say(head('GET /').replace('HTTP/1.1', `HTTP/${version}`));
      await client.until(/half/);
      breaking.pop()?.();
      const end = await client.end;
      // HTTP/1.1 tells by its framing, whatever the connection's end is.
      if (version === '1.0') t.equal(end, 'broken', 'HTTP/1.0');
      t.notMatch(client.text(), /\r\n0\r\n\r\n$/, version);
    }
    t.same(
      path.events.filter(({ kind }) => kind === 'outcome').map(({ outcome }) => outcome?.fault),
      ['target_truncated', 'target_truncated'],
    );
  });

t.test('in TLS, a truncated answer to HTTP/1.0 lacks the alert that a whole one ends with', async (t) => {
  let breakOff: () => void = () => undefined;
  const { path } = await between(
    t,
    createTlsServer(files, (request, response) => {
      response.sendDate = false;
      response.writeHead(200, { 'Content-Length': 8, Connection: 'close' });
      response.write('half');
      breakOff = () => void (request.url === '/whole' ? response.end('half') : response.socket?.destroy());
    }),
  );
  // What the proxy sends, encrypted: with TLS 1.2 the type of a record can be read (RFC 5246 section 6.2.1).
  const relay = createServer((socket) => {
    const onward = connect(path.port, '127.0.0.1');
    onward.on('data', (bytes) => received.push(bytes));
    socket.pipe(onward).pipe(socket);
  });
  const received: Buffer[] = [];
  const { port } = await listen(t, relay);
  const alert = 0x15;
  for (const [name, last] of [
    ['/whole', alert],
    ['/half', 0x17],
  ] as const) {
    received.length = 0;
    const socket = await tunnel({ ...path, port });
    const secured = connectTls({ socket, ca: path.bundle, servername: host, maxVersion: 'TLSv1.2' });
    const client = talk(secured);
    await once(secured, 'secureConnect');
    client.say(`GET ${name} HTTP/1.0\r\nHost: ${host}\r\n\r\n`);
    await client.until(/half/);
    breakOff();
    await client.end;
    t.equal(lastRecordType(Buffer.concat(received)), last, name);
  }
});

/** Of the records after CONNECT's answer. */
const lastRecordType = (bytes: Buffer): number => {
  let type = 0;
  for (let at = bytes.indexOf('\r\n\r\n') + 4; at + 5 <= bytes.length; at += 5 + bytes.readUInt16BE(at + 3)) type = bytes[at] as number;
  return type;
};

t.test("an early answer is passed on at once; the rest of the body is dropped and the target's connection not used again", async (t) => {
  const { path, origin } = await between(
    t,
    rawTarget(async ({ until: received, say }) => {
      await received(/\r\n\r\n/);
      say('HTTP/1.1 413 Too Big\r\nContent-Length: 2\r\n\r\nno');
    }),
  );
  const client = await program(path);
  client.say(`${head('POST /', 'Content-Length: 1000')}${'a'.repeat(10)}`);
  t.match(await client.until(/no$/), /^HTTP\/1\.1 413 Too Big/);
  // The program finishes its body, and then the connection is good for more.
  client.say(`${'a'.repeat(990)}${head('GET /2')}`);
  await client.until(/no[^]*no$/);
  t.equal(origin.accepted(), 2, 'nothing of another request could follow the half-sent body');
});

t.test('a refusal of a large upload can be read, though the program writes on', async (t) => {
  const { path } = await between(
    t,
    httpTarget((_request, response) => response.end('ok')),
  );
  const client = await program(path);
  const chunk = Buffer.alloc(256 * 1024, 'a');
  client.say(head('POST /', `Content-Length: ${chunk.length * 40}`).replace(`Host: ${host}`, 'Host: other.outrider.test'));
  let written = 0;
  const more = (): void => {
    while (written < 40 && !client.socket.destroyed) {
      written += 1;
      if (!client.socket.write(chunk)) return void client.socket.once('drain', more);
    }
  };
  more();
  t.match(await client.until(/"code":"authority_mismatch"[^]*\}/), /^HTTP\/1\.1 421 /);
  t.equal(await client.end, 'end', 'an orderly end, not a reset');
});

// Ends ----------------------------------------------------------------------------------------------------------------

t.test('a program that closes its sending side after its request counts as one that leaves, as with nginx and Go', async (t) => {
  let closed = 0;
  const { path } = await between(
    t,
    httpTarget((request) => request.once('close', () => (closed += 1))),
  );
  const client = await program(path);
  client.socket.end(head('GET /'));
  t.match((await outcomeOf(path)).outcome, { fault: 'client_closed' });
  await until(() => closed === 1);
});

t.test('a target that closes its sending side after a whole answer has answered', async (t) => {
  const { path, origin } = await between(
    t,
    rawTarget(async ({ until: received, socket }) => {
      await received(/\r\n\r\n$/);
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    }),
  );
  const client = await program(path);
  for (let i = 1; i <= 3; i += 1) {
    client.say(head('GET /'));
    await client.until(new RegExp(`(?:ok[^]*){${i}}$`));
  }
  t.equal(origin.accepted(), 3);
  await until(() => origin.sockets.size === 0);
});

t.test('an untouched tunnel keeps half-closes, both ways, and a reset stays one', async (t) => {
  const targets: Conversation[] = [];
  const { path } = await between(
    t,
    rawTarget((conversation) => void targets.push(conversation), { allowHalfOpen: true }),
    { targets: [], onUnmatched: 'tunnel' },
  );
  const connect = `CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\n\r\n`;
  const open = async () => {
    const client = await program(path, { allowHalfOpen: true });
    client.say(connect);
    await client.until(/\r\n\r\n$/);
    await until(() => targets.length > 0);
    return { client, target: targets.pop() as Conversation };
  };
  const first = await open();
  first.client.socket.end('last words of the program');
  t.equal(await first.target.end, 'end');
  t.equal(first.target.text(), 'last words of the program');
  first.target.say('the answer to them');
  await first.client.until(/the answer to them$/);
  first.target.socket.end();
  t.equal(await first.client.end, 'end');

  const second = await open();
  second.target.socket.end('last words of the target');
  t.equal(await second.client.end, 'end');
  second.client.say('the answer to them');
  await second.target.until(/the answer to them$/);
  second.client.socket.end();
  t.equal(await second.target.end, 'end');
  await outcomeOf(path, 2);

  const third = await open();
  third.target.say('half');
  await third.client.until(/half$/);
  (third.target.socket as unknown as { resetAndDestroy: () => void }).resetAndDestroy();
  t.equal(await third.client.end, 'broken');
  const fourth = await open();
  fourth.client.socket.resetAndDestroy();
  t.equal(await fourth.target.end, 'broken');
  await outcomeOf(path, 4);
});
