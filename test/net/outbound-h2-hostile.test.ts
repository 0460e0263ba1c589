import t, { type Test } from 'tap';
import type { OutboundOptions, OutboundRequest } from '../../src/net/outbound.ts';
import { flags, type Frame, type FrameConnection, frame, frameServer, frameTypes, literal, setting, uint32 } from './outbound/frames.ts';
import { bodyOf, faultOf, listen, outboundFor, requestOf, send, until, whole } from './outbound/targets.ts';

/** What a target can do wrong, or just does, frame by frame. */

const h2 = (changes: Parameters<typeof requestOf>[0] = {}): OutboundRequest => requestOf({ connection: { protocol: 'h2' }, ...changes });

const resetWith = (code: number) => uint32(code);
const goawayWith = (lastStream: number, code: number) => uint32(lastStream, code);

/** `onHead`: each request head; `nth` counts from 1 over all connections. */
const serve = async (
  t: Test,
  onHead: (stream: number, connection: FrameConnection, nth: number) => void,
  { onFrame, settings, ...options }: Partial<OutboundOptions> & { onFrame?: (frame: Frame) => void; settings?: Uint8Array } = {},
) => {
  let heads = 0;
  const server = frameServer((one, connection) => {
    onFrame?.(one);
    if (one.type !== frameTypes.headers) return;
    heads += 1;
    onHead(one.stream, connection, heads);
  }, settings);
  const target = await listen(t, server);
  return { ...target, outbound: outboundFor(t, target.port, options), heads: () => heads };
};

t.test('an answer that is reset is truncated, whatever the code, NO_ERROR included', async (t) => {
  for (const code of [0, 1, 2, 5, 7, 8, 11]) {
    for (const isSmall of [true, false]) {
      const { outbound } = await serve(t, (stream, { head, send: write }) => {
        head(stream, 200);
        if (!isSmall) write(frameTypes.data, 0, stream, Buffer.from('half'));
        write(frameTypes.rstStream, 0, stream, resetWith(code));
      });
      const received = send(outbound, h2());
      t.equal((await received.ended).fault?.code, 'target_truncated', `code ${code}`);
      t.equal(received.status, 200);
    }
  }
});

t.test('a connection that is lost in the middle of an answer is truncated, before the answer closed', async (t) => {
  for (const end of ['end', 'resetAndDestroy'] as const) {
    let breakOff = (): void => undefined;
    const middle = await serve(t, (stream, { head, send: write, socket }) => {
      head(stream, 200);
      write(frameTypes.data, 0, stream, Buffer.from('half'));
      breakOff = () => void socket[end]();
    });
    const received = send(middle.outbound, h2());
    await until(() => received.bytes > 0);
    breakOff();
    t.equal((await received.ended).fault?.code, 'target_truncated');
    await until(() => middle.sockets.size === 0);
    const before = await serve(t, (_stream, { socket }) => void socket[end]());
    t.equal(await faultOf(before.outbound, h2()), 'target_closed');
    await until(() => before.sockets.size === 0);
  }
});

t.test('an answer that breaks off is never whole, wherever it breaks off', async (t) => {
  const answer = Buffer.concat([
    frame(frameTypes.headers, flags.endHeaders, 1, Buffer.concat([literal(':status', '200'), literal('x-a', 'b')])),
    frame(frameTypes.data, 0, 1, Buffer.from('01234')),
    frame(frameTypes.data, flags.endStream, 1, Buffer.from('56789')),
  ]);
  for (const end of ['end', 'resetAndDestroy'] as const) {
    for (let cut = 0; cut < answer.length; cut += 1) {
      const { outbound, sockets } = await serve(t, (_stream, { socket }) => {
        socket.write(answer.subarray(0, cut), () => void socket[end]());
      });
      const received = send(outbound, h2());
      const { fault } = await received.ended;
      t.equal(fault?.code, received.status === 0 ? 'target_closed' : 'target_truncated', `${end} after ${cut} of ${answer.length}`);
      await until(() => sockets.size === 0);
    }
  }
});

t.test('an answer that ends when its stream does is whole, also when the target then asks for no more of the request', async (t) => {
  const { outbound, accepted } = await serve(t, (stream, { head, send: write }) => {
    head(stream, 413);
    write(frameTypes.data, flags.endStream, stream, Buffer.from('no'));
    write(frameTypes.rstStream, 0, stream, resetWith(0));
  });
  const endless = () =>
    bodyOf(
      (async function* () {
        yield Buffer.from('x');
        await new Promise(() => undefined);
      })(),
    );
  for (let i = 0; i < 3; i += 1) {
    const { status, text } = await whole(outbound, h2({ method: 'POST', body: endless() }));
    t.strictSame([status, text], [413, 'no']);
  }
  t.equal(accepted(), 1);
});

t.test('a request that was not processed is sent once more, over another session, and only while its body is unread', async (t) => {
  const refuse = (stream: number, { send: write }: FrameConnection) => write(frameTypes.rstStream, 0, stream, resetWith(7));
  const accept = (stream: number, { head }: FrameConnection) => head(stream, 200, [], true);

  const once = await serve(t, (stream, connection, nth) => (nth === 1 ? refuse : accept)(stream, connection));
  t.equal((await whole(once.outbound, h2())).status, 200);
  t.strictSame([once.heads(), once.accepted()], [2, 2]);

  const twice = await serve(t, (stream, connection, nth) => (nth <= 2 ? refuse : accept)(stream, connection));
  t.equal(await faultOf(twice.outbound, h2()), 'target_closed');
  t.equal(twice.heads(), 2);

  const withBody = await serve(t, (stream, connection, nth) => (nth === 1 ? refuse : accept)(stream, connection));
  t.equal(await faultOf(withBody.outbound, h2({ method: 'POST', body: bodyOf(['x']) })), 'target_closed');
  t.equal(withBody.heads(), 1);

  const waiting = await serve(t, (stream, connection, nth) => (nth === 1 ? refuse : accept)(stream, connection));
  const { status } = await whole(waiting.outbound, h2({ method: 'POST', body: bodyOf(['x']), expectsContinue: true }));
  t.strictSame([status, waiting.heads()], [200, 2]);

  // Another code says nothing of whether the request was processed.
  for (const code of [0, 2, 8]) {
    const other = await serve(t, (stream, { send: write }) => write(frameTypes.rstStream, 0, stream, resetWith(code)));
    t.equal(await faultOf(other.outbound, h2()), 'target_closed');
    t.equal(other.heads(), 1);
  }
});

t.test('GOAWAY: streams above the last one processed are sent again, those below end as the connection does', async (t) => {
  for (const code of [0, 11]) {
    let first: FrameConnection | undefined;
    const { outbound, heads, accepted } = await serve(t, (stream, connection, nth) => {
      if (nth <= 2) {
        first ??= connection;
        if (nth === 1) connection.head(stream, 200);
        else connection.send(frameTypes.goaway, 0, 0, goawayWith(1, code));
      } else connection.head(stream, 204, [], true);
    });
    const below = send(outbound, h2());
    await until(() => below.status === 200);
    const above = send(outbound, h2());
    t.equal((await above.ended).fault, undefined);
    t.equal(above.status, 204);
    t.strictSame([heads(), accepted()], [3, 2]);
    first?.send(frameTypes.data, flags.endStream, 1, Buffer.from('rest'));
    const { fault } = await below.ended;
    // node:http2 ends all streams of a session whose peer reports an error.
    t.equal(fault?.code, code === 0 ? undefined : 'target_truncated');
    if (code === 0) t.equal(below.text, 'rest');
  }
});

t.test('one answer is one answer: what breaks the rules of HTTP is malformed, or truncated once the head was passed on', async (t) => {
  const half = Buffer.from('half');
  const cases: Record<string, [string, (stream: number, connection: FrameConnection) => void, OutboundRequest?]> = {
    'no status': ['target_malformed', (stream, { send: write }) => write(frameTypes.headers, 5, stream, literal('x', 'y'))],
    'an upper-case field': ['target_malformed', (stream, { head }) => head(stream, 200, [['X-A', 'y']], true)],
    'a field of a connection': ['target_malformed', (stream, { head }) => head(stream, 200, [['connection', 'close']], true)],
    'a transfer-encoding': ['target_malformed', (stream, { head }) => head(stream, 200, [['transfer-encoding', 'chunked']], true)],
    'two lengths': [
      'target_malformed',
      (stream, { head }) =>
        head(
          stream,
          200,
          [
            ['content-length', '1'],
            ['content-length', '2'],
          ],
          true,
        ),
    ],
    'an interim answer that ends the stream': ['target_malformed', (stream, { head }) => head(stream, 103, [], true)],
    'a change of protocol': ['target_malformed', (stream, { head }) => head(stream, 101)],
    'data before the head': ['target_malformed', (stream, { send: write }) => write(frameTypes.data, 1, stream, half)],
    'too many interim answers': [
      'target_malformed',
      (stream, { head }) => {
        for (let i = 0; i < 9; i += 1) head(stream, 103);
        head(stream, 200, [], true);
      },
    ],
    'too many fields': [
      'target_malformed',
      (stream, { head }) =>
        head(
          stream,
          200,
          Array.from({ length: 200 }, (_, i) => [`x-${i}`, 'y'] as const),
          true,
        ),
    ],
    'less than the length': [
      'target_truncated',
      (stream, { head, send: write }) => {
        head(stream, 200, [['content-length', '10']]);
        write(frameTypes.data, 1, stream, half);
      },
    ],
    'more than the length': [
      'target_truncated',
      (stream, { head, send: write }) => {
        head(stream, 200, [['content-length', '2']]);
        write(frameTypes.data, 1, stream, half);
      },
    ],
    'a body after 204': [
      'target_truncated',
      (stream, { head, send: write }) => {
        head(stream, 204);
        write(frameTypes.data, 1, stream, half);
      },
    ],
    'a body after HEAD': [
      'target_truncated',
      (stream, { head, send: write }) => {
        head(stream, 200, [['content-length', '4']]);
        write(frameTypes.data, 1, stream, half);
      },
      h2({ method: 'HEAD' }),
    ],
    'a second head': [
      'target_truncated',
      (stream, { head }) => {
        head(stream, 200);
        head(stream, 200, [], true);
      },
    ],
    'more than the window': [
      'target_truncated',
      (stream, { head, send: write }) => {
        head(stream, 200);
        for (let i = 0; i < 40; i += 1) write(frameTypes.data, 0, stream, Buffer.alloc(16_384));
      },
    ],
    'no frames': ['target_malformed', (_stream, { socket }) => void socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')],
  };
  for (const [what, [code, act, request]] of Object.entries(cases)) {
    const { outbound } = await serve(t, act);
    const isPaused = what === 'more than the window';
    const received = send(outbound, request ?? h2(), { isPaused });
    t.equal((await received.ended).fault?.code, code, what);
    await outbound.close();
  }
});

t.test('a header block over the limit is refused in small frames too', async (t) => {
  const { outbound } = await serve(t, (stream, { head, socket }, nth) => {
    // The limit holds from when the target has acknowledged it.
    if (nth === 1) return head(stream, 204, [], true);
    const block = Buffer.concat([literal(':status', '200'), ...Array.from({ length: 90 }, (_, i) => literal(`x-${i}`, 'y'.repeat(600)))]);
    const parts = Array.from({ length: Math.ceil(block.length / 8_000) }, (_, i) => block.subarray(i * 8_000, (i + 1) * 8_000));
    for (const [i, part] of parts.entries()) {
      const isLast = i === parts.length - 1;
      socket.write(frame(i === 0 ? 1 : 9, (isLast ? flags.endHeaders : 0) + (i === 0 ? flags.endStream : 0), stream, part));
    }
  });
  t.equal((await whole(outbound, h2())).status, 204);
  t.equal(await faultOf(outbound, h2()), 'target_malformed');
});

t.test('a field with a line break or a zero in it does not arrive', async (t) => {
  const { outbound } = await serve(t, (stream, { head }) =>
    head(
      stream,
      200,
      [
        ['x-a', 'a\r\nx-b: c'],
        ['x-c', 'a\0b'],
        ['x-d', 'good'],
      ],
      true,
    ),
  );
  t.strictSame((await whole(outbound, h2())).headers, [['x-d', 'good']]);
});

t.test('a session that stops taking streams is left for another', async (t) => {
  let connection: FrameConnection | undefined;
  const { outbound } = await serve(
    t,
    (stream, one) => {
      connection = one;
      one.head(stream, 204, [], true);
    },
    { settings: setting(3, 1) },
  );
  t.equal((await whole(outbound, h2())).status, 204);
  connection?.send(frameTypes.settings, 0, 0, setting(3, 0));
  connection?.send(frameTypes.ping, 0, 0, Buffer.alloc(8));
  t.equal((await whole(outbound, h2())).status, 204);
});

t.test('a target that answers no ping is lost, and its streams with it', async (t) => {
  let pings = 0;
  const server = frameServer((one, connection) => {
    if (one.type === frameTypes.ping) pings += 1;
    if (one.type === frameTypes.headers) connection.head(one.stream, 200);
  });
  const { port, sockets } = await listen(t, server);
  const outbound = outboundFor(t, port, { patience: { pingIntervalMs: 20, pingTimeoutMs: 20 } });
  t.equal(await faultOf(outbound, h2()), 'target_truncated');
  t.ok(pings >= 1);
  await until(() => sockets.size === 0);
});

t.test('nothing is pushed', async (t) => {
  let announced: Buffer = Buffer.alloc(0);
  const server = frameServer((one, connection) => {
    if (one.type !== frameTypes.headers) return;
    // PUSH_PROMISE of stream 2.
    connection.send(5, flags.endHeaders, one.stream, Buffer.concat([uint32(2), literal(':method', 'GET')]));
    connection.head(one.stream, 200, [], true);
  });
  server.prependListener('connection', (socket) => {
    socket.once('data', (chunk: Buffer) => {
      announced = chunk;
    });
  });
  const { port } = await listen(t, server);
  t.equal(await faultOf(outboundFor(t, port), h2()), 'target_malformed');
  t.ok(announced.includes(setting(2, 0)), 'SETTINGS_ENABLE_PUSH is 0');
});
