import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { createServer as createRawServer } from 'node:net';
import t, { type Test } from 'tap';
import { Fault } from '../../src/core/fault.ts';
import type { OutboundOptions, OutboundRequest } from '../../src/net/outbound.ts';
import { bodyOf, faultOf, listen, outboundFor, requestOf, send, until, untilStill, whole } from './outbound/targets.ts';

/** HTTP/2 to targets, against node:http2 in clear text by prior knowledge; TLS is in outbound.test.ts, hostile targets are in outbound-h2-hostile.test.ts. */

const h2 = (changes: Parameters<typeof requestOf>[0] = {}): OutboundRequest => requestOf({ connection: { protocol: 'h2' }, ...changes });

type OnStream = (stream: ServerHttp2Stream, headers: Record<string, unknown>, flags: number, raw: string[]) => void;

const serve = async (t: Test, onStream: OnStream, settings = {}, options: Partial<OutboundOptions> = {}) => {
  const sessions = new Set<ServerHttp2Session>();
  const server: Http2Server = createServer({ settings });
  server.on('stream', (stream, headers, flags, raw) => {
    stream.on('error', () => undefined);
    onStream(stream, headers, flags, raw);
  });
  server.on('session', (session) => {
    sessions.add(session);
    session.on('error', () => undefined);
    session.once('close', () => sessions.delete(session));
  });
  const target = await listen(t, server);
  return { ...target, sessions, outbound: outboundFor(t, target.port, options) };
};

t.test('fields are written in order with their duplicates, lower-cased, without those of a connection', async (t) => {
  let raw: string[] = [];
  const { outbound } = await serve(t, (stream, _headers, _flags, fields) => {
    raw = fields;
    stream.respond([':status', '203', 'X-b', '1', 'set-cookie', 'a=1', 'x-b', '2', 'set-cookie', 'b=2'] as never);
    stream.end('ok');
  });
  const { status, headers, text } = await whole(
    outbound,
    h2({
      path: '/p?q=%20',
      headers: [
        ['X-B', '1'],
        ['Host', 'other.test'],
        ['Cookie', 'a=1'],
        ['x-a', 'caf\u00e9'],
        ['Connection', 'x-drop'],
        ['Upgrade', 'h2c'],
        ['TE', 'gzip'],
        ['Cookie', 'b=2'],
        ['X-b', '2'],
        ['Authorization', 'Bearer x'],
        ['User-Agent', 'a'],
        ['user-agent', 'b'],
      ],
    }),
  );
  t.strictSame(raw, [
    ':method',
    'GET',
    ':scheme',
    'http',
    ':authority',
    'target.outrider.test',
    ':path',
    '/p?q=%20',
    'x-b',
    '1',
    'cookie',
    'a=1',
    'x-a',
    'caf\u00e9',
    'cookie',
    'b=2',
    'x-b',
    '2',
    'authorization',
    'Bearer x',
    'user-agent',
    'a',
    'user-agent',
    'b',
    'te',
    'trailers',
  ]);
  t.equal(status, 203);
  t.strictSame(
    headers.filter(([name]) => name !== 'date'),
    [
      ['x-b', '1'],
      ['set-cookie', 'a=1'],
      ['x-b', '2'],
      ['set-cookie', 'b=2'],
    ],
  );
  t.equal(text, 'ok');
});

t.test('body and trailers go both ways, interim answers before the answer', async (t) => {
  let trailers: string[] = [];
  const { outbound } = await serve(t, (stream) => {
    stream.additionalHeaders({ ':status': 103, link: '</a>' });
    let text = '';
    stream.on('data', (chunk) => {
      text += chunk;
    });
    stream.on('trailers', (_fields, _flags, raw) => {
      trailers = raw;
    });
    stream.on('end', () => {
      stream.respond({ ':status': 200 }, { waitForTrailers: true });
      stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0', 'x-m': ['a', 'b'] }));
      stream.end(text.toUpperCase());
    });
  });
  const sent = [
    ['X-Sum', '1'],
    ['x-other', '2'],
    ['x-sum', '3'],
  ] as const;
  const received = await whole(outbound, h2({ method: 'POST', body: bodyOf(['hel', 'lo'], sent) }));
  t.strictSame(received.log, ['1xx 103', 'head 200', 'data 5']);
  t.equal(received.text, 'HELLO');
  t.strictSame(trailers, ['x-sum', '1', 'x-sum', '3', 'x-other', '2']);
  t.strictSame(received.trailers, [
    ['grpc-status', '0'],
    ['x-m', 'a'],
    ['x-m', 'b'],
  ]);
});

t.test('both directions stream at once: the head of the answer comes before the request ends', async (t) => {
  const { outbound } = await serve(t, (stream) => {
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  let say = Promise.withResolvers<string>();
  async function* talk(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const word = await say.promise;
      say = Promise.withResolvers();
      if (word === '') return;
      yield Buffer.from(word);
    }
  }
  const received = send(outbound, h2({ method: 'POST', body: bodyOf(talk()) }));
  await until(() => received.status === 200);
  for (const word of ['one', 'two', 'three']) {
    say.resolve(word);
    await until(() => received.text.endsWith(word));
  }
  say.resolve('');
  t.strictSame((await received.ended).trailers, []);
  t.equal(received.text, 'onetwothree');
});

t.test('Expect: the body waits for 100, or for a while, and is not sent when there is an answer already', async (t) => {
  let answer: (stream: ServerHttp2Stream) => void = () => undefined;
  // One whose patience this process cannot outlast by standing still, and one that is to run out of it.
  const { outbound } = await serve(t, (stream) => answer(stream), {}, { patience: { continueMs: 60_000 } });
  const hasty = await serve(t, (stream) => answer(stream), {}, { patience: { continueMs: 30 } });
  const upload = (body: OutboundRequest['body'] = bodyOf(['hello'])) => h2({ method: 'PUT', body, expectsContinue: true });
  const read = (stream: ServerHttp2Stream) => {
    stream.resume();
    stream.on('end', () => {
      stream.respond({ ':status': 201 });
      stream.end();
    });
  };
  answer = (stream) => {
    stream.additionalHeaders({ ':status': 100 });
    read(stream);
  };
  t.strictSame((await whole(outbound, upload())).log, ['1xx 100', 'head 201']);
  answer = read;
  t.strictSame((await whole(hasty.outbound, upload())).log, ['head 201']);
  let isRead = false;
  const unread = bodyOf(
    (async function* () {
      isRead = true;
      yield Buffer.from('hello');
    })(),
  );
  answer = (stream) => {
    stream.respond({ ':status': 417 });
    stream.end();
  };
  t.strictSame((await whole(outbound, upload(unread))).log, ['head 417']);
  t.notOk(isRead);
});

t.test('many requests share one session, and more sessions open when the target takes no more streams', async (t) => {
  const held: ServerHttp2Stream[] = [];
  const hold: OnStream = (stream) => {
    stream.respond({ ':status': 200 });
    held.push(stream);
  };
  const wide = await serve(t, hold);
  const first = Array.from({ length: 50 }, () => send(wide.outbound, h2()));
  await until(() => held.length === 50);
  t.equal(wide.accepted(), 1);
  for (const stream of held.splice(0)) stream.end();
  for (const one of first) t.equal((await one.ended).fault, undefined);

  const narrow = await serve(t, hold, { maxConcurrentStreams: 4 });
  const second = Array.from({ length: 40 }, () => send(narrow.outbound, h2()));
  await until(() => held.length === 40);
  t.equal(narrow.accepted(), 10);
  for (const stream of held.splice(0)) stream.end();
  for (const one of second) t.equal((await one.ended).fault, undefined);

  const single = await serve(t, hold, { maxConcurrentStreams: 1 });
  const third = Array.from({ length: 20 }, () => send(single.outbound, h2()));
  await until(() => held.length === 16);
  t.equal(single.accepted(), 16, 'no more sessions than that; the rest waits');
  for (let ended = 0; ended < 20; ended += 1) {
    await until(() => held.length > 0);
    held.shift()?.end();
  }
  for (const one of third) t.equal((await one.ended).fault, undefined);
  t.equal(single.accepted(), 16);
});

t.test('a program that leaves cancels its stream, not the session, and the target never takes half a body for a whole one', async (t) => {
  const seen: string[] = [];
  const { outbound, sessions, accepted } = await serve(t, (stream) => {
    stream.on('aborted', () => seen.push('aborted'));
    stream.on('end', () => seen.push('end'));
    stream.on('data', () => seen.push('data'));
    stream.once('close', () => seen.push(`closed ${stream.rstCode}`));
  });
  const endless = bodyOf(
    (async function* () {
      yield Buffer.from('half');
      await new Promise(() => undefined);
    })(),
  );
  const left = send(outbound, h2({ method: 'POST', body: endless }));
  await until(() => seen.includes('data'));
  left.sending.abort(new Fault('client_closed'));
  await until(() => seen.length === 3 || seen.length === 4);
  t.ok(seen.includes('aborted') && seen.includes('closed 8'), seen.join());
  t.equal((await left.ended).fault?.code, 'client_closed');
  seen.length = 0;

  const broken = bodyOf(
    (async function* () {
      yield Buffer.from('half');
      await until(() => seen.includes('data'));
      throw new Fault('framing_invalid');
    })(),
  );
  t.equal(await faultOf(outbound, h2({ method: 'POST', body: broken })), 'framing_invalid');
  await until(() => seen.includes('closed 8'));
  t.ok(seen.includes('aborted'));
  t.strictSame([sessions.size, accepted()], [1, 1]);
});

t.test('a slow reader stops the target at its window; other streams of the session go on', async (t) => {
  const size = 16 * 1024 * 1024;
  let written = 0;
  const { outbound, accepted } = await serve(t, (stream, headers) => {
    stream.respond({ ':status': 200 });
    if (headers[':path'] !== '/large') return void stream.end('small');
    const chunk = Buffer.alloc(64 * 1024);
    const pump = (): void => {
      while (written < size) {
        written += chunk.length;
        if (!stream.write(chunk)) return void stream.once('drain', pump);
      }
      stream.end();
    };
    pump();
  });
  const slow = send(outbound, h2({ path: '/large' }), { isPaused: true });
  await until(() => slow.bytes > 0);
  for (let i = 0; i < 50; i += 1) t.equal((await whole(outbound, h2())).text, 'small');
  t.ok(written <= 1024 * 1024, `${written} bytes had been written`);
  t.equal(accepted(), 1);
  slow.resume();
  await slow.sending.done;
  t.equal(slow.bytes, size);
});

t.test('a target that does not read stops the program, and what was sent arrives whole', async (t) => {
  const size = 8 * 1024 * 1024;
  let produced = 0;
  const { promise: held, resolve } = Promise.withResolvers<ServerHttp2Stream>();
  const { outbound } = await serve(t, (stream) => resolve(stream));
  async function* large(): AsyncGenerator<Uint8Array> {
    const chunk = Buffer.alloc(16 * 1024);
    for (; produced < size; ) {
      produced += chunk.length;
      yield chunk;
    }
  }
  const received = send(outbound, h2({ method: 'PUT', headers: [['Content-Length', String(size)]], body: bodyOf(large()) }));
  const stream = await held;
  await untilStill(() => produced);
  t.ok(produced < 512 * 1024, `${produced} bytes had been asked of the program`);
  let arrived = 0;
  stream.on('data', (chunk: Buffer) => {
    arrived += chunk.length;
  });
  await once(stream, 'end');
  stream.respond({ ':status': 200 });
  stream.end();
  await received.sending.done;
  t.equal(arrived, size);
});

t.test('a session is closed when it has been idle, and a silent one with streams is asked whether it lives', async (t) => {
  const idle = await serve(t, (stream) => stream.respond({ ':status': 204 }, { endStream: true }), {}, { patience: { sessionIdleMs: 20 } });
  await whole(idle.outbound, h2());
  await until(() => idle.sessions.size === 0 && idle.sockets.size === 0);

  let pings = 0;
  const { outbound, sessions } = await serve(t, (stream) => stream.respond({ ':status': 200 }), {}, { patience: { pingIntervalMs: 20 } });
  const silent = send(outbound, h2());
  await until(() => sessions.size === 1);
  for (const session of sessions) session.on('ping', () => (pings += 1));
  await until(() => pings >= 2);
  t.equal(sessions.size, 1);
  silent.sending.abort(new Fault('client_closed'));
});

t.test('a target that goes away lets streams finish, and new requests take a new session', async (t) => {
  const held: ServerHttp2Stream[] = [];
  const { outbound, sessions, accepted } = await serve(t, (stream) => {
    stream.respond({ ':status': 200 });
    stream.write('first ');
    held.push(stream);
  });
  const before = send(outbound, h2());
  await until(() => before.bytes > 0);
  for (const session of sessions) session.goaway(0, held[0]?.id);
  await until(() => sessions.size === 1);
  const after = send(outbound, h2());
  await until(() => held.length === 2);
  t.equal(accepted(), 2);
  for (const stream of held) stream.end('last');
  for (const one of [before, after]) {
    t.equal((await one.ended).fault, undefined);
    t.equal(one.text, 'first last');
  }
});

t.test('a target that speaks something else in clear text has the code for it', async (t) => {
  const http = await listen(t, createHttpServer((_request, response) => response.end()) as never);
  const code = await faultOf(outboundFor(t, http.port), h2());
  t.ok(['target_protocol', 'target_closed'].includes(code), code);
  const mute = await listen(t, createRawServer());
  t.equal(await faultOf(outboundFor(t, mute.port, { patience: { settingsMs: 30 } }), h2()), 'target_timeout');
});

t.test('a target that does not answer is given up, a call that may take as long as it likes is not', async (t) => {
  const { outbound } = await serve(t, () => undefined, {}, { patience: { headersMs: 30 } });
  const call = send(outbound, h2({ method: 'POST', headers: [['Content-Type', 'application/grpc']], body: bodyOf(['x']) }));
  t.equal(await faultOf(outbound, h2()), 'target_timeout');
  t.equal(await faultOf(outbound, h2({ method: 'POST', body: bodyOf(['x']) })), 'target_timeout');
  let isOver = false;
  void call.ended.then(() => {
    isOver = true;
  });
  t.equal(await faultOf(outbound, h2()), 'target_timeout');
  t.notOk(isOver);
  call.sending.abort(new Fault('client_closed'));
});

t.test('closing ends streams and sessions, those that are being opened included', async (t) => {
  const { outbound, sockets } = await serve(t, (stream) => stream.respond({ ':status': 200 }));
  const under = send(outbound, h2());
  await under.next();
  await outbound.close();
  t.equal((await under.ended).fault?.code, 'target_truncated');
  await until(() => sockets.size === 0);
  const late = send(outbound, h2());
  await outbound.close();
  t.equal((await late.ended).fault?.code, 'target_closed');
  await until(() => sockets.size === 0);
});
