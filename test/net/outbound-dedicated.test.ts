import { createHash } from 'node:crypto';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { Fault } from '../../src/core/fault.ts';
import type { OutboundRequest } from '../../src/net/outbound.ts';
import { bodyOf, faultOf, listen, outboundFor, requestOf, scripted, send, until, whole } from './outbound/targets.ts';

/** HTTP/1.1 exchanges whose framing undici cannot do: waiting for 100, trailers of requests, upgrades. */

/** A target that records what it reads; `answer` is called with all of it each time more arrives. */
const recording = async (t: Test, answer: (text: string, socket: Socket) => void) => {
  const record = { text: '' };
  const target = await listen(
    t,
    createServer((socket) => {
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk.toString('latin1');
        record.text = text;
        answer(text, socket);
      });
    }),
  );
  return { ...target, record };
};

const upload = (changes: Partial<OutboundRequest> = {}): OutboundRequest =>
  requestOf({
    method: 'PUT',
    headers: [['Content-Length', '5']],
    body: bodyOf(['hel', 'lo']),
    expectsContinue: true,
    ...changes,
  });

t.test('the body is sent after 100, which is passed on', async (t) => {
  let beforeContinue = '';
  const { port } = await recording(t, (text, socket) => {
    if (text.endsWith('\r\n\r\n')) {
      beforeContinue = text;
      socket.write('HTTP/1.1 100 Continue\r\nX-Note: go\r\n\r\n');
    } else if (text.endsWith('hello')) socket.write('HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n');
  });
  const { log, informational } = await whole(outboundFor(t, port), upload());
  t.match(beforeContinue, /\r\nExpect: 100-continue\r\n/);
  t.strictSame(log, ['1xx 100', 'head 201']);
  t.strictSame(informational[0]?.headers, [['X-Note', 'go']]);
});

t.test('a target that does not say 100 is sent the body after a while', async (t) => {
  const { port } = await recording(t, (text, socket) => {
    if (text.endsWith('hello')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  });
  const { log } = await whole(outboundFor(t, port, { patience: { continueMs: 20 } }), upload());
  t.strictSame(log, ['head 200']);
});

t.test('an answer instead of 100 is passed on, the body is never read, and the connection is closed', async (t) => {
  let isRead = false;
  const body = bodyOf(
    (async function* () {
      isRead = true;
      yield Buffer.from('hello');
    })(),
  );
  const { port, sockets, record } = await recording(t, (text, socket) => {
    if (text.endsWith('\r\n\r\n')) socket.write('HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno');
  });
  const { status, text } = await whole(outboundFor(t, port), upload({ body }));
  t.strictSame([status, text, isRead], [401, 'no', false]);
  await until(() => sockets.size === 0);
  t.match(record.text, /\r\n\r\n$/);
});

t.test('uploads one after another share a connection, and one with stray bytes on it is not used again', async (t) => {
  let stray = '';
  const { port, accepted } = await recording(t, (text, socket) => {
    if (text.endsWith('hello')) socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n${stray}`);
    else if (text.endsWith('\r\n\r\n')) socket.write('HTTP/1.1 100 Continue\r\n\r\n');
  });
  const outbound = outboundFor(t, port);
  for (let i = 0; i < 3; i += 1) t.equal((await whole(outbound, upload())).status, 200);
  t.equal(accepted(), 1);
  stray = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond';
  for (let i = 0; i < 3; i += 1) t.equal((await whole(outbound, upload())).text, '');
  t.ok(accepted() >= 3, `${accepted()} connections`);
});

t.test('a chunked body is sent as it comes and ends with its trailers; order, case and duplicates are kept', async (t) => {
  const { port, record } = await recording(t, (text, socket) => {
    if (text.endsWith('\r\n\r\n') && text.includes('\r\n0\r\n')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
  });
  const headers = [
    ['X-b', '1'],
    ['x-A', '2'],
    ['X-B', '3'],
  ] as const;
  const trailers = [
    ['X-Sum', 'abc'],
    ['x-sum', 'def'],
  ] as const;
  await whole(outboundFor(t, port), requestOf({ method: 'POST', path: '/a?b', headers, body: bodyOf(['hel', '', 'lo'], trailers) }));
  t.equal(
    record.text,
    'POST /a?b HTTP/1.1\r\nHost: target.outrider.test\r\nX-b: 1\r\nx-A: 2\r\nX-B: 3\r\nTransfer-Encoding: chunked\r\n' +
      'Connection: keep-alive\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: abc\r\nx-sum: def\r\n\r\n',
  );
});

t.test('a body that is not as long as announced ends the exchange, and the target is not told that it is whole', async (t) => {
  for (const [chunks, announced] of [
    [['hello'], 6],
    [['hello', '!'], 5],
  ] as const) {
    let isClosed = false;
    const { port, sockets } = await recording(t, (_text, socket) => {
      socket.once('close', () => {
        isClosed = true;
      });
    });
    const headers = [['Content-Length', String(announced)]] as const;
    const code = await faultOf(outboundFor(t, port, { patience: { continueMs: 1 } }), upload({ headers, body: bodyOf(chunks) }));
    t.equal(code, 'framing_invalid');
    await until(() => isClosed && sockets.size === 0);
  }
});

t.test('a body that breaks off ends the exchange with its fault', async (t) => {
  const { port, sockets, record } = await recording(t, () => undefined);
  const body = bodyOf(
    (async function* () {
      yield Buffer.from('half');
      await until(() => record.text.includes('half'));
      throw new Fault('client_closed');
    })(),
  );
  t.equal(await faultOf(outboundFor(t, port), requestOf({ method: 'POST', body })), 'client_closed');
  await until(() => sockets.size === 0);
  t.notMatch(record.text, '\r\n0\r\n');
});

t.test('what a target does wrong has its code here too', async (t) => {
  const ok = 'HTTP/1.1 200 OK\r\n';
  const cases: [string, string, (socket: Socket) => void][] = [
    ['', 'target_closed', (socket) => socket.end()],
    ['', 'target_closed', (socket) => socket.resetAndDestroy()],
    ['HTTP/1.1 2', 'target_closed', (socket) => socket.end()],
    ['SSH-2.0-OpenSSH\r\n', 'target_malformed', () => undefined],
    [`${ok}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello`, 'target_malformed', () => undefined],
    [`${ok}X: ${'y'.repeat(40_000)}\r\n\r\n`, 'target_malformed', () => undefined],
    ['HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(9), 'target_malformed', () => undefined],
    ['HTTP/1.1 101 Switching Protocols\r\n\r\n', 'target_malformed', () => undefined],
    ['HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n', 'target_malformed', () => undefined],
    [`${ok}Content-Length: 10\r\n\r\nhalf`, 'target_truncated', (socket) => socket.end()],
    [`${ok}Content-Length: 10\r\n\r\nhalf`, 'target_truncated', (socket) => socket.resetAndDestroy()],
    [`${ok}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n`, 'target_truncated', (socket) => socket.end()],
    [`${ok}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n`, 'target_truncated', () => undefined],
  ];
  for (const [bytes, code, after] of cases) {
    const { port, sockets } = await listen(t, scripted(bytes, after));
    t.equal(
      await faultOf(outboundFor(t, port), requestOf({ method: 'POST', body: bodyOf(['x']) })),
      code,
      JSON.stringify(bytes.slice(0, 60)),
    );
    await until(() => sockets.size === 0);
  }
  const mute = await listen(t, scripted(''));
  const outbound = outboundFor(t, mute.port, { patience: { headersMs: 30 } });
  t.equal(await faultOf(outbound, requestOf({ method: 'POST', body: bodyOf(['x']) })), 'target_timeout');
  await until(() => mute.sockets.size === 0);
});

t.test('a target that breaks off is truncated here too, wherever it breaks off', async (t) => {
  const bytes = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\nX-T: 1\r\n\r\n';
  for (const end of ['end', 'resetAndDestroy'] as const) {
    for (let cut = 1; cut < bytes.length; cut += 1) {
      const { port, sockets } = await listen(
        t,
        scripted(bytes.slice(0, cut), (socket) => socket[end]()),
      );
      const received = send(outboundFor(t, port), requestOf({ method: 'POST', body: bodyOf(['x']) }));
      const { fault } = await received.ended;
      t.equal(fault?.code, received.status === 0 ? 'target_closed' : 'target_truncated', `${end} after ${cut} of ${bytes.length}`);
      await until(() => sockets.size === 0);
    }
  }
});

t.test('an answer that ends with the connection is whole', async (t) => {
  const { port } = await listen(
    t,
    scripted('HTTP/1.0 200 OK\r\n\r\nall', (socket) => socket.end()),
  );
  t.equal((await whole(outboundFor(t, port), requestOf({ method: 'POST', body: bodyOf(['x']) }))).text, 'all');
});

// Upgrades ----------------------------------------------------------------------------------------------------------

const key = 'dGhlIHNhbXBsZSBub25jZQ==';
/** RFC 6455 section 1.3. */
const accept = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=';
const webSocket = (changes: Partial<OutboundRequest> = {}): OutboundRequest =>
  requestOf({
    upgrade: 'websocket',
    headers: [
      ['Sec-WebSocket-Key', key],
      ['Sec-WebSocket-Version', '13'],
    ],
    ...changes,
  });
const switching = (rest: string): string => `HTTP/1.1 101 Switching Protocols\r\n${rest}\r\n`;

t.test('after a 101 that answers the request both directions are joined, bytes right behind the head included', async (t) => {
  const { port, sockets, record } = await recording(t, (text, socket) => {
    if (text.endsWith('\r\n\r\n')) {
      socket.write(`${switching(`Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: ${accept}\r\nX-Extra: 1\r\n`)}early`);
    }
  });
  const { target, headers, log } = await whole(outboundFor(t, port), webSocket());
  t.match(record.text, /\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n$/);
  t.strictSame(log, ['upgraded']);
  t.strictSame(headers.at(-1), ['X-Extra', '1']);
  let text = '';
  target?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  target?.write('late');
  await until(() => text === 'early' && record.text.endsWith('late'));
  target?.destroy();
  await until(() => sockets.size === 0);
});

t.test('a 101 that does not answer what was asked is a malformed target', async (t) => {
  t.equal(createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64'), accept, 'the example of RFC 6455');
  const good = `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n`;
  const bad: Record<string, [string, Partial<OutboundRequest>?]> = {
    'another protocol': [good.replace('websocket', 'h2c')],
    'one protocol more': [good.replace('websocket', 'websocket, h2c')],
    'no protocol': [good.replace('Upgrade: websocket\r\n', '')],
    'a wrong accept': [good.replace('s3pP', 'S3pP')],
    'no accept': [good.replace(/Sec.*\r\n/, '')],
    'two accepts': [`${good}Sec-WebSocket-Accept: ${accept}\r\n`],
    'an accept without a key': [good, { headers: [] }],
  };
  for (const [what, [rest, changes]] of Object.entries(bad)) {
    const { port, sockets } = await listen(t, scripted(`${switching(rest)}stolen`));
    const received = send(outboundFor(t, port), webSocket(changes));
    t.equal((await received.ended).fault?.code, 'target_malformed', what);
    t.equal(received.target, undefined, what);
    await until(() => sockets.size === 0);
  }
});

t.test('any protocol can be asked for, and one of several chosen', async (t) => {
  const { port } = await listen(t, scripted(switching('Upgrade: B\r\nConnection: upgrade\r\n')));
  t.strictSame((await whole(outboundFor(t, port), requestOf({ upgrade: 'a, b' }))).log, ['upgraded']);
});

t.test('an answer other than 101 is an ordinary answer, and nothing is joined', async (t) => {
  const { port, sockets } = await listen(t, scripted('HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno'));
  const { log, target } = await whole(outboundFor(t, port), webSocket());
  t.strictSame([log, target], [['head 403', 'data 2'], undefined]);
  await until(() => sockets.size === 0);
});

t.test('a program that leaves while the upgrade is pending ends it', async (t) => {
  let isReached = false;
  const { port, sockets } = await recording(t, () => {
    isReached = true;
  });
  const received = send(outboundFor(t, port), webSocket());
  await until(() => isReached);
  received.sending.abort(new Fault('client_closed'));
  await until(() => sockets.size === 0);
  t.equal((await received.ended).fault?.code, 'client_closed');
});

t.test('after an upgrade a program that does not read holds up the target rather than filling memory', async (t) => {
  let written = 0;
  const server = createHttpServer();
  server.on('upgrade', (_request, socket: Socket) => {
    socket.write(switching('Upgrade: x\r\nConnection: upgrade\r\n'));
    const chunk = Buffer.alloc(64 * 1024);
    const pump = (): void => {
      while (written < 64 * 1024 * 1024) {
        written += chunk.length;
        if (!socket.write(chunk)) return void socket.once('drain', pump);
      }
    };
    pump();
  });
  const { port } = await listen(t, server);
  const { target } = await whole(outboundFor(t, port), requestOf({ upgrade: 'x' }));
  let last = -1;
  for (let still = 0; still < 200; still = written === last ? still + 1 : 0) {
    last = written;
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(written < 32 * 1024 * 1024, `${written} bytes had been written`);
  target?.destroy();
});
