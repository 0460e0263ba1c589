import { once } from 'node:events';
import { createServer as createTlsServer } from 'node:https';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  createSecureServer,
  createServer as createH2cServer,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { Duplex } from 'node:stream';
import t, { type Test } from 'tap';
import { Fault } from '../../src/core/fault.ts';
import type { HeaderList } from '../../src/core/headers.ts';
import { admitH2 } from '../../src/proxy/listener/admit.ts';
import {
  between,
  type Conversation,
  files,
  h2Over,
  h2Program,
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

/** HTTP/2 from programs (RFC 9113), whatever the target speaks. */
interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  rawHeaders: string[];
  informational: { status: number; headers: IncomingHttpHeaders }[];
  text: string;
  trailers: IncomingHttpHeaders | undefined;
  rstCode: number;
}

/** A request, and its answer once the stream has closed. */
const ask = (
  session: ClientHttp2Session,
  headers: Record<string, string | string[]> | string[],
  body?: string | ((stream: ClientHttp2Stream) => void),
): Promise<Answer> =>
  new Promise((resolve) => {
    const stream = session.request(headers, { endStream: body === undefined });
    const answer: Answer = { status: 0, headers: {}, rawHeaders: [], informational: [], text: '', trailers: undefined, rstCode: 0 };
    stream.on('headers', (fields) => answer.informational.push({ status: Number(fields[':status']), headers: fields }));
    stream.on('response', (fields, _flags, raw: unknown) =>
      Object.assign(answer, { status: fields[':status'], headers: fields, rawHeaders: raw }),
    );
    stream.on('data', (chunk) => (answer.text += chunk));
    stream.on('trailers', (fields) => (answer.trailers = fields));
    stream.on('error', () => undefined);
    stream.on('close', () => resolve({ ...answer, rstCode: stream.rstCode }));
    stream.resume();
    if (typeof body === 'string') stream.end(body);
    else body?.(stream);
  });
const get = (path = '/', rest: Record<string, string | string[]> = {}) => ({
  ':method': 'GET',
  ':path': path,
  ':authority': host,
  ':scheme': 'https',
  ...rest,
});
const post = (path = '/', rest: Record<string, string | string[]> = {}) => ({ ...get(path, rest), ':method': 'POST' });

/** A target that speaks HTTP/1.1 over TLS alone, so that every exchange is translated. */
const translated = async (t: Test, answer: Parameters<typeof httpTarget>[0], options: Parameters<typeof between>[2] = {}) => {
  const both = await between(t, createTlsServer(files, answer), options);
  return { ...both, session: await h2Program(t, both.path) };
};

// What is let in ------------------------------------------------------------------------------------------------------

t.test('admitH2 lets in what HTTP/1.1 could say and refuses the rest', async (t) => {
  const base: HeaderList = [
    [':method', 'GET'],
    [':scheme', 'https'],
    [':authority', host],
    [':path', '/a'],
  ];
  const without = (name: string): HeaderList => base.filter(([one]) => one !== name);
  const rows: readonly [HeaderList, string][] = [
    [[...without(':method'), [':method', 'CONNECT']], 'method_refused'],
    [[...without(':method'), [':method', 'TRACE']], 'method_refused'],
    [[...without(':method'), [':method', 'G ET']], 'request_malformed'],
    [without(':method'), 'request_malformed'],
    [without(':path'), 'request_malformed'],
    [[...without(':path'), [':path', '']], 'request_malformed'],
    [[...without(':path'), [':path', '*']], 'request_malformed'],
    [[...without(':path'), [':path', 'https://attacker.outrider.test/a']], 'request_malformed'],
    [[...base, [':path', '/b']], 'request_malformed'],
    [[...base, [':authority', 'attacker.outrider.test']], 'request_malformed'],
    [[...base, ['host', 'attacker.outrider.test']], 'authority_mismatch'],
    [[...without(':authority'), ['host', host], ['host', host]], 'authority_invalid'],
    [without(':authority'), 'authority_invalid'],
    [[...base, ['x', 'a\r\nb: c']], 'request_malformed'],
    [[...base, ['x', 'a\nb']], 'request_malformed'],
    [[...base, ['x', 'a\u0000b']], 'request_malformed'],
    [[...base, ['x y', 'a']], 'request_malformed'],
    [[...base, ['x:', 'a']], 'request_malformed'],
    [[...base, ['', 'a']], 'request_malformed'],
    [[...base, ['content-length', '5'], ['content-length', '5']], 'framing_invalid'],
    [[...base, ['content-length', '+5']], 'framing_invalid'],
    [[...base, ['content-length', '5'], ['transfer-encoding', 'chunked']], 'framing_invalid'],
    [[...base, ['transfer_encoding', 'chunked']], 'framing_invalid'],
    [[...base, ['transfer-encoding', 'gzip']], 'framing_invalid'],
    [[...base, ['connection', 'authorization']], 'request_malformed'],
    [[...base, ['expect', 'much']], 'expectation_failed'],
    [[...base, ...Array.from({ length: 101 }, (_, i) => [`x-${i}`, 'y'] as const)], 'headers_too_large'],
    [[...base, ['x', 'y'.repeat(40_000)]], 'headers_too_large'],
    [[...without(':path'), [':path', `/${'y'.repeat(9_000)}`]], 'headers_too_large'],
  ];
  for (const [fields, code] of rows) {
    try {
      admitH2(fields);
      t.fail(JSON.stringify(fields).slice(0, 200));
    } catch (thrown) {
      t.equal((thrown as Fault).code, code, JSON.stringify(fields.at(-1)).slice(0, 100));
    }
  }
  t.match(admitH2([...base, ['host', host.toUpperCase()], ['expect', '100-continue'], ['x', 'a'], ['X-Y', 'é']]), {
    method: 'GET',
    path: '/a',
    authority: host.toUpperCase(),
    expectsContinue: true,
    headers: [
      ['expect', '100-continue'],
      ['x', 'a'],
      ['X-Y', 'é'],
    ],
  });
  t.equal(admitH2([...without(':authority'), ['host', host]]).authority, host);
});

t.test('fields arrive as they were sent: crumbs of Cookie as one, duplicates in order, hop-by-hop gone, the credential once', async (t) => {
  let raw: readonly string[] = [];
  const { session } = await translated(t, (request, response) => {
    raw = request.rawHeaders;
    response.end('ok');
  });
  const fields: HeaderList = [
    [':method', 'GET'],
    [':path', '/'],
    [':authority', host],
    [':scheme', 'https'],
    ['x-b', '1'],
    ['cookie', 'a=1'],
    ['x-a', '2'],
    ['cookie', 'b=2'],
    ['x-b', '3'],
    ['authorization', 'Bearer theirs'],
    ['te', 'trailers'],
    ['cookie', 'c=3'],
  ];
  await ask(session, fields.flat());
  const pairs = raw.flatMap((name, i) => (i % 2 === 0 ? [[name.toLowerCase(), raw[i + 1]]] : []));
  t.same(
    pairs.filter(([name]) => /^(?:x-|cookie|auth|te$|host)/.test(name as string)),
    [
      ['host', host],
      ['x-b', '1'],
      ['cookie', 'a=1; b=2; c=3'],
      ['x-a', '2'],
      ['x-b', '3'],
      ['authorization', 'Bearer credential-for-echo'],
    ],
  );
});

t.test('in ten streams, a wrong authority hurts only its own', async (t) => {
  const { session, path } = await translated(t, (request, response) => response.end(request.url));
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, i) => ask(session, get(`/${i}`, i === 6 ? { ':authority': 'other.outrider.test' } : {}))),
  );
  t.same(
    answers.map(({ status }) => status),
    [200, 200, 200, 200, 200, 200, 421, 200, 200, 200],
  );
  t.match(answers[6]?.text, /"code":"authority_mismatch"/);
  t.same(
    answers.filter((_, i) => i !== 6).map(({ text }) => text),
    ['/0', '/1', '/2', '/3', '/4', '/5', '/7', '/8', '/9'],
  );
  t.equal((await ask(session, get('/after'))).status, 200, 'the connection goes on');
  t.equal(path.events.filter(({ kind }) => kind === 'intent').length, 10);
});

// Answers -------------------------------------------------------------------------------------------------------------

t.test('answers without a body, of any kind, end their stream in good order', async (t) => {
  const { session } = await translated(t, (request, response) => {
    if (request.url === '/204') response.writeHead(204).end();
    else if (request.url === '/304') response.writeHead(304, { ETag: '"1"' }).end();
    else if (request.url === '/empty') response.writeHead(200, { 'Content-Length': 0 }).end();
    else response.writeHead(200, { 'Content-Length': 1234 }).end();
  });
  for (const [headers, status] of [
    [get('/204'), 204],
    [get('/304'), 304],
    [get('/empty'), 200],
    [{ ...get('/head'), ':method': 'HEAD' }, 200],
    [post('/204'), 204],
  ] as const) {
    const answer = await ask(session, headers, headers[':method'] === 'POST' ? 'body' : undefined);
    t.match(answer, { status, text: '', rstCode: 0 }, headers[':path']);
    if (headers[':method'] === 'HEAD') t.equal(answer.headers['content-length'], '1234');
  }
  const refused = await ask(session, { ...get('/a/../b'), ':method': 'HEAD' });
  t.match(refused, { status: 400, text: '', rstCode: 0 }, 'a refused HEAD');
});

t.test('interim answers, duplicated fields, Set-Cookie and trailers come through', async (t) => {
  const { session } = await translated(t, (_request, response) => {
    response.writeEarlyHints({ link: '</a.css>; rel=preload' });
    response.writeHead(200, [
      'X-A',
      '1',
      'Set-Cookie',
      'a=1',
      'ETag',
      '"1"',
      'ETag',
      '"2"',
      'Set-Cookie',
      'b=2',
      'x-a',
      '2',
      'Connection',
      'x-hop',
      'X-Hop',
      '1',
      'Trailer',
      'X-Sum',
    ]);
    response.write('ok');
    response.addTrailers({ 'X-Sum': '7', 'Set-Cookie': 'c=3' });
    response.end();
  });
  const answer = await ask(session, get());
  t.match(answer.informational, [{ status: 103, headers: { link: '</a.css>; rel=preload' } }]);
  t.same(
    answer.rawHeaders.filter((_, i, all) => /^(?:x-|set-|etag)/.test(all[i - (i % 2)] as string)),
    ['x-a', '1', 'set-cookie', 'a=1', 'etag', '"1"', 'etag', '"2"', 'set-cookie', 'b=2', 'x-a', '2'],
  );
  t.match(answer, { text: 'ok', trailers: { 'x-sum': '7' }, rstCode: 0 });
  t.notOk('set-cookie' in (answer.trailers ?? {}));
  t.notOk('connection' in answer.headers || 'transfer-encoding' in answer.headers || 'trailer' in answer.headers);
});

t.test("a status that HTTP/2 has no place for is the target's mistake", async (t) => {
  const { path } = await between(
    t,
    rawTarget(({ socket, say }) => void socket.on('data', () => say('HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n'))),
  );
  const session = h2Over(t, await tunnel(path, `${host}:80`));
  t.match(await ask(session, get('/', { ':scheme': 'http' })), { status: 502, text: /"code":"target_malformed"/ });
});

t.test("a request's body and trailers arrive whole, with the length the program gave or in chunks", async (t) => {
  const seen: { length: string | undefined; body: string; trailers: NodeJS.Dict<string> }[] = [];
  const { session } = await translated(t, (request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      seen.push({ length: request.headers['content-length'], body, trailers: request.trailers });
      response.end('ok');
    });
  });
  await ask(session, post('/', { 'content-length': '5' }), 'hello');
  await ask(session, post('/'), 'hello');
  await ask(session, post('/', { 'content-length': '0' }), '');
  await new Promise((resolve) => {
    const stream = session.request(post('/', { trailer: 'x-sum' }), { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7', authorization: 'theirs' }));
    stream.on('close', resolve);
    stream.resume();
    stream.end('hello');
  });
  t.same(seen, [
    { length: '5', body: 'hello', trailers: {} },
    { length: undefined, body: 'hello', trailers: {} },
    { length: '0', body: '', trailers: {} },
    { length: undefined, body: 'hello', trailers: { 'x-sum': '7' } },
  ]);
});

t.test('Expect: 100-continue works end to end', async (t) => {
  const server = createTlsServer(files);
  server.on('checkContinue', (request, response) => {
    if (request.url === '/no') return void response.writeHead(417).end('no');
    response.writeContinue();
    request.on('data', () => undefined).on('end', () => response.end('yes'));
  });
  const { path } = await between(t, server);
  const session = await h2Program(t, path);
  let bodyStarted = false;
  const yes = await ask(session, post('/yes', { expect: '100-continue' }), (stream) =>
    stream.once('continue', () => {
      bodyStarted = true;
      stream.end('body');
    }),
  );
  t.match(yes, { status: 200, text: 'yes' });
  t.ok(bodyStarted);
  t.equal(yes.informational.filter(({ status }) => status === 100).length, 1, 'said once');
  const no = await ask(session, post('/no', { expect: '100-continue' }), () => undefined);
  t.match(no, { status: 417, text: 'no', informational: [] });
  t.equal(no.rstCode, constants.NGHTTP2_NO_ERROR);
});

t.test('an answer before the end of the request is whole, and tells the program to stop', async (t) => {
  const { session } = await translated(t, (_request, response) => {
    response.writeHead(413, { Trailer: 'x-why' });
    response.write('no');
    response.addTrailers({ 'x-why': 'size' });
    response.end();
  });
  const answer = await ask(session, post(), (stream) => void stream.write('first'));
  t.match(answer, { status: 413, text: 'no', trailers: { 'x-why': 'size' }, rstCode: constants.NGHTTP2_NO_ERROR });
});

for (const [name, head] of Object.entries({
  'Content-Length': 'Content-Length: 100\r\n\r\nhalf',
  chunked: 'Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n',
  'close-delimited': '\r\nhalf',
}))
  t.test(`a truncated answer (${name}) ends in RST_STREAM, and no END_STREAM comes before it`, async (t) => {
    let breakOff: () => void = () => undefined;
    const { path } = await between(
      t,
      rawTarget(({ socket, say }) => {
        socket.once('data', () => say(`HTTP/1.1 200 OK\r\n${head}`));
        breakOff = () => void socket.resetAndDestroy();
      }),
    );
    const session = h2Over(t, await tunnel(path, `${host}:80`));
    const stream = session.request(get('/', { ':scheme': 'http' }));
    let isEndOfStream = false;
    // What node:http2 does at END_STREAM while the stream is still open, and at a reset once it is closed.
    const push = stream.push.bind(stream);
    stream.push = (chunk: unknown, encoding?: BufferEncoding) => {
      if (chunk === null && !stream.closed) isEndOfStream = true;
      return push(chunk, encoding);
    };
    stream.on('error', () => undefined);
    const closed = new Promise((resolve) => stream.once('close', resolve));
    await once(stream, 'data');
    breakOff();
    stream.resume();
    await closed;
    t.equal(stream.rstCode, constants.NGHTTP2_INTERNAL_ERROR);
    t.notOk(isEndOfStream);
    t.match((await outcomeOf(path)).outcome, { fault: 'target_truncated' });
  });

// Flow ----------------------------------------------------------------------------------------------------------------

t.test('each stream is slowed by its own reader, and the others go on', async (t) => {
  let written = 0;
  const { session, path } = await translated(t, (request, response) => {
    if (request.url !== '/big') return void response.end('ok');
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(64 * 1024))) written += 64 * 1024;
      response.once('drain', more);
    };
    return more();
  });
  const slow = session.request(get('/big'));
  slow.pause();
  slow.on('error', () => undefined);
  await once(slow, 'response');
  for (let still = 0, last = -1; still < 100; still += 1) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (written !== last) still = 0;
    last = written;
  }
  t.ok(written < 32 * 1024 * 1024, `${written} bytes were taken from the target`);
  t.match(await ask(session, get('/small')), { status: 200, text: 'ok' });
  slow.close(constants.NGHTTP2_CANCEL);
  t.match((await outcomeOf(path, 2)).outcome, { fault: 'client_closed' });
});

t.test('a target that does not read slows the program', async (t) => {
  const { session } = await translated(t, (request) => void request.pause());
  const stream = session.request(post());
  stream.on('error', () => undefined);
  let taken = 0;
  const chunk = Buffer.alloc(64 * 1024);
  const more = (): void => {
    while (taken < 256 * 1024 * 1024) {
      taken += chunk.length;
      if (!stream.write(chunk)) return void stream.once('drain', more);
    }
  };
  more();
  for (let still = 0, last = -1; still < 100; still += 1) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (taken !== last) still = 0;
    last = taken;
  }
  t.ok(taken < 32 * 1024 * 1024, `${taken} bytes were taken`);
  stream.close(constants.NGHTTP2_CANCEL);
});

t.test('both directions may be open for long: each part is passed on as it comes', async (t) => {
  const { session } = await translated(t, (request, response) => {
    response.writeHead(200);
    response.flushHeaders();
    request.on('data', (chunk) => void response.write(`heard ${chunk};`));
    request.on('end', () => response.end('done'));
  });
  const stream = session.request(post());
  const conversation = talk(stream);
  await once(stream, 'response');
  for (const word of ['one', 'two', 'three']) {
    conversation.say(word);
    await conversation.until(new RegExp(`heard ${word};$`));
  }
  stream.end();
  await conversation.until(/done$/);
});

// Ends ----------------------------------------------------------------------------------------------------------------

/** How a program gives a stream up. The last three do not look like an error to every HTTP library. */
const departures: Record<string, (stream: ClientHttp2Stream, session: ClientHttp2Session, socket: Duplex) => void> = {
  'RST_STREAM CANCEL': (stream) => stream.close(constants.NGHTTP2_CANCEL),
  'RST_STREAM NO_ERROR': (stream) => stream.close(constants.NGHTTP2_NO_ERROR),
  'the connection closed': (_stream, _session, socket) => socket.end(),
  'the connection reset': (_stream, session) => session.destroy(),
};
for (const [name, leave] of Object.entries(departures))
  t.test(`a stream given up (${name}) ends the target's request at once, and an upload never looks whole`, async (t) => {
    const ended: string[] = [];
    let arrived = 0;
    const both = await between(
      t,
      createTlsServer(files, (request, response) => {
        arrived += 1;
        request.on('end', () => request.url === '/upload' && ended.push('whole upload'));
        request.on('data', () => request.url === '/mid' && response.write('more'));
        response.once('close', () => ended.push(`${request.url} ${response.writableFinished ? 'answered' : 'gone'}`));
        if (request.url === '/mid') response.write('begun');
      }),
    );
    for (const which of ['/head', '/upload', '/mid']) {
      const socket = await tlsTunnel(both.path, ['h2']);
      const session = h2Over(t, socket);
      // With trailers to come: node:http2 would otherwise end the stream before it resets it.
      const stream = session.request(which === '/upload' ? post(which) : get(which), { waitForTrailers: true });
      stream.on('error', () => undefined);
      stream.resume();
      if (which === '/upload') stream.write('half');
      if (which === '/mid') await once(stream, 'response');
      await until(() => arrived === ['/head', '/upload', '/mid'].indexOf(which) + 1);
      leave(stream, session, socket);
      await until(() => ended.includes(`${which} gone`));
    }
    t.same(ended, ['/head gone', '/upload gone', '/mid gone']);
    await outcomeOf(both.path, 3);
    t.same(
      both.path.events.filter(({ kind }) => kind === 'outcome').map(({ outcome }) => outcome?.fault),
      ['client_closed', 'client_closed', 'client_closed'],
    );
    await until(() => both.origin.sockets.size === 0);
  });

t.test('a drain says GOAWAY; streams under way finish, new ones are not taken', async (t) => {
  const answers: (() => void)[] = [];
  const { session, path } = await translated(t, (_request, response) => answers.push(() => response.end('late')));
  const underWay = ask(session, get('/1'));
  await until(() => answers.length === 1);
  const goaway = once(session, 'goaway');
  const drained = path.drain(5_000);
  t.match(await goaway, [constants.NGHTTP2_NO_ERROR]);
  answers[0]?.();
  t.match(await underWay, { status: 200, text: 'late', rstCode: 0 });
  await drained;
  t.equal(answers.length, 1);
});

// Each side's protocol ------------------------------------------------------------------------------------------------

t.test('ALPN: http/1.1 unless the program speaks only h2 or the target needs it; nothing offered is HTTP/1.1', async (t) => {
  const auto = await between(
    t,
    createTlsServer(files, (_request, response) => response.end('ok')),
  );
  const needsH2 = await between(t, createSecureServer(files), { target: { protocol: 'h2' } });
  const http1 = await between(t, createTlsServer(files), { target: { protocol: 'http1' } });
  for (const [both, offered, chosen] of [
    [auto, ['h2', 'http/1.1'], 'http/1.1'],
    [auto, ['http/1.1', 'h2'], 'http/1.1'],
    [auto, ['h2'], 'h2'],
    [auto, ['http/1.1'], 'http/1.1'],
    [auto, ['http/1.0'], 'http/1.0'],
    [auto, undefined, false],
    [needsH2, ['h2', 'http/1.1'], 'h2'],
    [needsH2, ['http/1.1'], 'http/1.1'],
    [needsH2, undefined, false],
    [http1, ['h2', 'http/1.1'], 'http/1.1'],
    [http1, ['h2'], 'h2'],
  ] as const) {
    const socket = await tlsTunnel(both.path, offered);
    t.equal(socket.alpnProtocol, chosen, String(offered));
    socket.destroy();
  }
  await t.rejects(tlsTunnel(auto.path, ['spdy/3', 'postgresql']), { code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL' });
});

/** What the target was sent, as the program sees it when the target repeats it. */
const redacted = `Bearer ${'*'.repeat('credential-for-echo'.length)}`;

t.test('a program of HTTP/1.1 reaches a target of HTTP/2, and the other way round', async (t) => {
  const h2Target = createSecureServer(files);
  h2Target.on('stream', (stream, headers) => {
    stream.respond({ ':status': 200, 'x-method': headers[':method'] as string }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '7' }));
    stream.end(`${headers[':path']} ${headers.authorization}`);
  });
  const { path } = await between(t, h2Target, { target: { protocol: 'h2' } });
  const client = talk(await tlsTunnel(path, ['http/1.1']));
  client.say(`GET /a HTTP/1.1\r\nHost: ${host}\r\nTE: trailers\r\n\r\n`);
  const text = await client.until(/\r\n0\r\n[^]*\r\n\r\n$/);
  t.match(text, /^HTTP\/1\.1 200 OK\r\n[^]*x-method: GET[^]*\/a Bearer \*{19}\r\n0\r\nx-sum: 7\r\n\r\n$/);
  const session = await h2Program(t, path);
  t.match(await ask(session, get('/b')), { status: 200, text: `/b ${redacted}`, trailers: { 'x-sum': '7' } });
  const { session: translating } = await translated(t, (request, response) =>
    response.end(`${request.httpVersion} ${request.headers.authorization}`),
  );
  t.match(await ask(translating, get()), { status: 200, text: `1.1 ${redacted}` });
});

t.test('prior knowledge: HTTP/2 in clear text inside CONNECT, to targets of either version, and on a reverse route', async (t) => {
  const h2c = createH2cServer((request, response) => response.end(`${request.httpVersion} ${request.headers.authorization}`));
  const routes = [{ listen: { host: '127.0.0.1', port: 0 }, to: { scheme: 'http' as const, host, port: 80 } }];
  const toH2 = await between(t, h2c, { target: { protocol: 'h2' }, routes });
  const toH1 = await between(
    t,
    httpTarget((request, response) => response.end(`${request.httpVersion} ${request.headers.authorization}`)),
    { routes },
  );
  for (const [both, wanted] of [
    [toH2, `2.0 ${redacted}`],
    [toH1, `1.1 ${redacted}`],
  ] as const) {
    const inTunnel = h2Over(t, await tunnel(both.path, `${host}:80`));
    t.match(await ask(inTunnel, get('/', { ':scheme': 'http' })), { status: 200, text: wanted });
    const port = both.path.routes[0] as number;
    const onRoute = h2Over(t, (await program(both.path, { port })).socket);
    t.match(await ask(onRoute, get('/', { ':scheme': 'http', ':authority': `localhost:${port}` })), { status: 200, text: wanted });
    t.match(await ask(onRoute, get('/', { ':scheme': 'http', ':authority': 'attacker.test' })), { status: 421 });
  }
});

t.test('HTTP/2 on the forward proxy itself is not spoken: it would name no destination', async (t) => {
  const { path, origin } = await between(
    t,
    httpTarget((_request, response) => response.end('ok')),
  );
  const client: Conversation = await program(path);
  client.say('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  await client.end;
  t.match(client.text(), /^HTTP\/1\.1 400 /);
  t.equal(origin.accepted(), 0);
});
