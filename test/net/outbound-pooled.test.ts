import { createServer as createHttpServer } from 'node:http';
import type { Socket } from 'node:net';
import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { bodyOf, faultOf, listen, outboundFor, requestOf, scripted, send, until, whole } from './outbound/targets.ts';

/** Ordinary HTTP/1.1 to targets: undici. */

t.test('interim answers arrive before the answer, each with its fields', async (t) => {
  const { port } = await listen(
    t,
    scripted(
      'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nlink: </b>\r\n\r\nHTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok',
    ),
  );
  const { log, informational, reason } = await whole(outboundFor(t, port), requestOf());
  t.strictSame(log, ['1xx 102', '1xx 103', 'head 200', 'data 2']);
  t.strictSame(informational[1]?.headers, [
    ['Link', '</a>; rel=preload'],
    ['link', '</b>'],
  ]);
  t.equal(reason, 'Fine');
});

t.test('more than eight interim answers are a malformed target, eight are not', async (t) => {
  const answer = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';
  const early = 'HTTP/1.1 103 Early Hints\r\n\r\n';
  const eight = await listen(t, scripted(early.repeat(8) + answer));
  t.equal(await faultOf(outboundFor(t, eight.port), requestOf()), '');
  const nine = await listen(t, scripted(early.repeat(9) + answer));
  t.equal(await faultOf(outboundFor(t, nine.port), requestOf()), 'target_malformed');
  await until(() => nine.sockets.size === 0);
});

t.test('trailers of a chunked answer arrive with its end, ordered and repeated as sent', async (t) => {
  const { port } = await listen(
    t,
    scripted('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: abc\r\nx-sum: def\r\nServer-Timing: x\r\n\r\n'),
  );
  const { trailers, text } = await whole(outboundFor(t, port), requestOf());
  t.equal(text, 'ok');
  t.strictSame(trailers, [
    ['X-Sum', 'abc'],
    ['x-sum', 'def'],
    ['Server-Timing', 'x'],
  ]);
});

t.test('an answer that stands still is not cut, a head that does not come is', async (t) => {
  let stream: Socket | undefined;
  const { port } = await listen(
    t,
    scripted('HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n', (socket) => {
      stream = socket;
    }),
  );
  // undici counts in steps of half a second: well past what it may wait for a head.
  const outbound = outboundFor(t, port, { patience: { headersMs: 500 } });
  const events = send(outbound, requestOf());
  await events.next();
  const mute = await listen(t, scripted(''));
  t.equal(await faultOf(outboundFor(t, mute.port, { patience: { headersMs: 500 } }), requestOf()), 'target_timeout');
  stream?.end('data: 2\n\n');
  t.equal((await events.ended).fault, undefined);
  t.equal(events.text, 'data: 1\n\ndata: 2\n\n');
});

t.test('a target that breaks off is truncated, wherever it breaks off', async (t) => {
  const whole = 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789';
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n';
  for (const bytes of [whole, chunked]) {
    const head = bytes.indexOf('\r\n\r\n') + 4;
    for (const end of ['end', 'resetAndDestroy'] as const) {
      for (let cut = 1; cut < bytes.length; cut += 1) {
        const { port, sockets } = await listen(
          t,
          scripted(bytes.slice(0, cut), (socket) => socket[end]()),
        );
        const outbound = outboundFor(t, port);
        const received = send(outbound, requestOf());
        const { fault } = await received.ended;
        t.equal(fault?.code, received.status === 0 ? 'target_closed' : 'target_truncated', `${end} after ${cut} of ${bytes.length}`);
        if (end === 'end') t.equal(received.status, cut >= head ? 200 : 0);
        await outbound.close();
        await until(() => sockets.size === 0);
      }
    }
  }
});

t.test('bytes after the answer never become the next answer', async (t) => {
  let requests = 0;
  const { port, accepted } = await listen(
    t,
    scripted('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond', () => {
      requests += 1;
    }),
  );
  const outbound = outboundFor(t, port);
  for (let i = 1; i <= 3; i += 1) {
    t.equal((await whole(outbound, requestOf())).text, 'ok');
    await until(() => requests === i);
  }
  t.equal(accepted(), 3);
});

t.test('a program that leaves ends the connection, before the head and in the middle of the body', async (t) => {
  const gone = new Fault('client_closed');
  for (const bytes of ['', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf']) {
    let isReached = false;
    const { port, sockets } = await listen(
      t,
      scripted(bytes, () => {
        isReached = true;
      }),
    );
    const received = send(outboundFor(t, port), requestOf());
    if (bytes === '') await until(() => isReached);
    else await received.next();
    received.sending.abort(gone);
    t.equal((await received.ended).fault, gone);
    await until(() => sockets.size === 0);
    t.notOk(received.log.includes('data 100'));
  }
});

t.test('an answer before the end of the request is passed on, the rest of the body is let go, the connection not reused', async (t) => {
  let returned = false;
  let chunks = 0;
  const endless = {
    [Symbol.asyncIterator]: () => ({
      next: () => {
        chunks += 1;
        return chunks === 1
          ? Promise.resolve({ done: false as const, value: Buffer.from('part') })
          : new Promise<IteratorResult<Uint8Array>>(() => undefined);
      },
      return: async () => {
        returned = true;
        return { done: true as const, value: undefined };
      },
    }),
  };
  const { port, sockets } = await listen(t, scripted('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno'));
  const { status, text } = await whole(
    outboundFor(t, port),
    requestOf({ method: 'PUT', headers: [['Content-Length', '100']], body: bodyOf(endless) }),
  );
  t.strictSame([status, text, returned], [413, 'no', true]);
  await until(() => sockets.size === 0);
});

t.test('a slow reader holds up the target rather than filling memory', async (t) => {
  let written = 0;
  const size = 64 * 1024 * 1024;
  const server = createHttpServer((_request, response) => {
    response.writeHead(200, { 'content-length': size });
    const chunk = Buffer.alloc(64 * 1024);
    const pump = (): void => {
      while (written < size) {
        written += chunk.length;
        if (!response.write(chunk)) return void response.once('drain', pump);
      }
      response.end();
    };
    pump();
  });
  const { port } = await listen(t, server);
  const received = send(outboundFor(t, port), requestOf(), { isPaused: true });
  await until(() => received.bytes > 0);
  let last = -1;
  // Until nothing moves any more.
  for (let still = 0; still < 200; still = written === last ? still + 1 : 0) {
    last = written;
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(written < size / 2, `${written} bytes had been written`);
  received.resume();
  await received.sending.done;
  t.equal(received.bytes, size);
});
