import t, { type Test } from 'tap';
import { flags, frame, frameTypes, literal, setting, uint32 } from '../net/outbound/frames.ts';
import { between, type Between, h2Over, host, httpTarget, talk, tunnel, until } from '../support/between.ts';

/**
 * Programs that speak HTTP/2 frame by frame and mean harm (RFC 9113 section 10.5; CVE-2023-44487, CVE-2024-27983, CVE-2019-9512 to 9518).
 * For each: the stream is refused or the connection ended, memory stays bounded, few events are made, and a second program is served
 * meanwhile.
 */
const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
const types = { ...frameTypes, priority: 2, pushPromise: 5, continuation: 9, unknown: 77 } as const;

interface Seen {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

interface Raw {
  readonly send: (type: number, flag: number, stream: number, payload?: Uint8Array) => boolean;
  readonly write: (bytes: Buffer) => boolean;
  readonly seen: Seen[];
  readonly isOpen: () => boolean;
  readonly closed: Promise<unknown>;
  readonly drained: () => Promise<void>;
}

const field = literal;
const requestBlock = (changes: Readonly<Record<string, string | undefined>> = {}, ...more: readonly Buffer[]): Buffer => {
  const pseudo = { ':method': 'GET', ':scheme': 'http', ':path': '/', ':authority': host, ...changes };
  return Buffer.concat([...Object.entries(pseudo).flatMap(([name, value]) => (value === undefined ? [] : [field(name, value)])), ...more]);
};

/** A program of frames: preface and SETTINGS are sent, what comes back is kept (frame heads only, of what is many). */
const rawProgram = async ({ path }: Between, settings: Uint8Array = Buffer.alloc(0)): Promise<Raw> => {
  const socket = await tunnel(path, `${host}:80`);
  const { end } = talk(socket);
  const seen: Seen[] = [];
  let read = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    read = Buffer.concat([read, chunk]);
    while (read.length >= 9 && read.length >= 9 + read.readUIntBE(0, 3)) {
      const length = read.readUIntBE(0, 3);
      const one = {
        type: read[3] as number,
        flags: read[4] as number,
        stream: read.readUInt32BE(5),
        payload: Buffer.from(read.subarray(9, 9 + length)),
      };
      read = read.subarray(9 + length);
      if (seen.length < 10_000) seen.push(one);
      if (one.type === types.settings && !(one.flags & flags.ack)) socket.write(frame(types.settings, flags.ack, 0));
    }
  });
  socket.write(preface);
  socket.write(frame(types.settings, 0, 0, settings));
  await until(() => seen.some(({ type }) => type === types.settings));
  const write = (bytes: Buffer): boolean => socket.writable && socket.write(bytes);
  return {
    send: (...parts) => write(frame(...parts)),
    write,
    seen,
    isOpen: () => !socket.destroyed && socket.writable && !socket.readableEnded,
    closed: end,
    drained: () =>
      new Promise((resolve) => {
        socket.once('drain', resolve);
        socket.once('close', resolve);
      }),
  };
};

/** Writes until the connection ends or everything was taken, as fast as it is taken. */
const flood = async (raw: Raw, count: number, next: (i: number) => Buffer): Promise<number> => {
  let sent = 0;
  while (sent < count && raw.isOpen()) {
    const batch: Buffer[] = [];
    for (let i = 0; i < 500 && sent + batch.length < count; i += 1) batch.push(next(sent + batch.length));
    sent += batch.length;
    if (!raw.write(Buffer.concat(batch)) && raw.isOpen()) await raw.drained();
    await new Promise(setImmediate);
  }
  return sent;
};

const setUp = async (t: Test): Promise<Between & { readonly heard: () => string }> => {
  let heard = '';
  const server = httpTarget((_request, response) => response.end('ok'));
  server.on('connection', (socket) => socket.on('data', (chunk) => (heard += chunk)));
  return { ...(await between(t, server)), heard: () => heard };
};

const isServed = async (t: Test, { path }: Between): Promise<boolean> => {
  const session = h2Over(t, await tunnel(path, `${host}:80`));
  const stream = session.request({ ':path': '/other', ':authority': host, ':scheme': 'http' });
  const client = talk(stream);
  await client.until(/ok/);
  session.destroy();
  return client.text() === 'ok';
};

const resetOf = (raw: Raw, stream: number): number | undefined => {
  const reset = raw.seen.find((one) => one.type === types.rstStream && one.stream === stream);
  return reset?.payload.readUInt32BE(0);
};
const goawayOf = (raw: Raw): number | undefined => raw.seen.find(({ type }) => type === types.goaway)?.payload.readUInt32BE(4);

const intents = ({ path }: Between): number => path.events.filter(({ kind }) => kind === 'intent').length;

// Floods: the connection ends -----------------------------------------------------------------------------------------

/** Each gives the nth frame of a flood that must end the connection before it is through. */
const floods: Record<string, { readonly count: number; readonly start?: (raw: Raw) => void; readonly next: (i: number) => Buffer }> = {
  'rapid reset': {
    count: 30_000,
    next: (i) =>
      Buffer.concat([
        frame(types.headers, flags.endHeaders | flags.endStream, 2 * i + 1, requestBlock()),
        frame(types.rstStream, 0, 2 * i + 1, uint32(8)),
      ]),
  },
  'rapid reset of uploads': {
    count: 30_000,
    next: (i) =>
      Buffer.concat([
        frame(types.headers, flags.endHeaders, 2 * i + 1, requestBlock({ ':method': 'POST' })),
        frame(types.data, 0, 2 * i + 1, Buffer.from('a')),
        frame(types.rstStream, 0, 2 * i + 1, uint32(0)),
      ]),
  },
  'resets that the proxy is made to send': {
    count: 30_000,
    next: (i) =>
      Buffer.concat([
        frame(types.headers, flags.endHeaders, 2 * i + 1, requestBlock()),
        frame(types.windowUpdate, 0, 2 * i + 1, uint32(0)),
      ]),
  },
  'CONTINUATION without an end': {
    count: 20_000,
    start: (raw) => raw.send(types.headers, flags.endStream, 1, requestBlock()),
    next: () => frame(types.continuation, 0, 1, field('x', 'y'.repeat(100))),
  },
  'empty CONTINUATION without an end': {
    count: 200_000,
    start: (raw) => raw.send(types.headers, flags.endStream, 1, requestBlock()),
    next: () => frame(types.continuation, 0, 1),
  },
  PING: { count: 100_000, next: () => frame(types.ping, 0, 0, Buffer.alloc(8)) },
  SETTINGS: { count: 100_000, next: () => frame(types.settings, 0, 0, setting(4, 65_535)) },
  'empty SETTINGS': { count: 100_000, next: () => frame(types.settings, 0, 0) },
  'SETTINGS with a thousand entries': {
    count: 1_000,
    next: () => frame(types.settings, 0, 0, Buffer.concat(Array.from({ length: 1_000 }, (_, i) => setting(100 + i, i)))),
  },
  'streams beyond what is allowed': {
    count: 5_000,
    next: (i) => frame(types.headers, flags.endHeaders, 2 * i + 1, requestBlock({ ':method': 'POST' })),
  },
  'malformed requests': {
    count: 50_000,
    next: (i) => frame(types.headers, flags.endHeaders | flags.endStream, 2 * i + 1, requestBlock({ ':path': undefined })),
  },
};

for (const [name, { count, start, next }] of Object.entries(floods))
  t.test(`a flood of ${name} ends the connection; others are served, and little is made of it`, async (t) => {
    const both = await setUp(t);
    const raw = await rawProgram(both);
    start?.(raw);
    const flooding = flood(raw, count, next);
    t.ok(await isServed(t, both), 'another program meanwhile');
    const sent = await flooding;
    await raw.closed;
    t.ok(sent <= count, `after ${sent} of ${count}`);
    t.ok(path(both) < 3_000, `${path(both)} events`);
    t.ok(await isServed(t, both), 'another program afterwards');
  });
const path = (both: Between): number => both.path.events.length;

// Floods that cost little: answered or ignored, and bounded ------------------------------------------------------------

const borne: Record<string, { readonly count: number; readonly start?: (raw: Raw) => void; readonly next: (i: number) => Buffer }> = {
  'unasked acknowledgements of PING': { count: 50_000, next: () => frame(types.ping, flags.ack, 0, Buffer.alloc(8)) },
  'unasked acknowledgements of SETTINGS': { count: 50_000, next: () => frame(types.settings, flags.ack, 0) },
  'frames of no known type': { count: 50_000, next: () => frame(types.unknown, 0, 0, Buffer.alloc(100)) },
  PRIORITY: { count: 50_000, next: (i) => frame(types.priority, 0, 2 * i + 1, Buffer.concat([uint32(0), Buffer.from([1])])) },
  'empty DATA': {
    count: 50_000,
    start: (raw) => raw.send(types.headers, flags.endHeaders, 1, requestBlock({ ':method': 'POST' })),
    next: () => frame(types.data, 0, 1),
  },
  'WINDOW_UPDATE by one': { count: 50_000, next: () => frame(types.windowUpdate, 0, 0, uint32(1)) },
};

for (const [name, { count, start, next }] of Object.entries(borne))
  t.test(`a flood of ${name} is ended or borne: memory stays where it was, and others are served`, async (t) => {
    const both = await setUp(t);
    const raw = await rawProgram(both);
    start?.(raw);
    const before = process.memoryUsage();
    const flooding = flood(raw, count, next);
    t.ok(await isServed(t, both), 'another program meanwhile');
    await flooding;
    t.ok(await isServed(t, both), 'another program afterwards');
    const after = process.memoryUsage();
    const grownMiB = (after.heapUsed + after.external - before.heapUsed - before.external) / 1024 / 1024;
    t.ok(grownMiB < 64, `${grownMiB.toFixed(1)} MiB more`);
    t.ok(intents(both) <= 3, `${intents(both)} intents`);
  });

t.test('a program that asks for pings and never reads does not fill our memory', async (t) => {
  const both = await setUp(t);
  const socket = await tunnel(both.path, `${host}:80`);
  socket.on('error', () => undefined);
  socket.pause();
  socket.write(preface);
  socket.write(frame(types.settings, 0, 0));
  const before = process.memoryUsage().rss;
  const pings = Buffer.concat(Array.from({ length: 2_000 }, () => frame(types.ping, 0, 0, Buffer.alloc(8))));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  for (let i = 0; i < 500 && !socket.destroyed; i += 1) {
    if (!socket.write(pings))
      await Promise.race([
        new Promise((resolve) => socket.once('drain', resolve)),
        closed,
        new Promise((resolve) => setTimeout(resolve, 50)),
      ]);
    if (socket.writableLength > 4 * pings.length) break;
  }
  t.ok(await isServed(t, both));
  const grownMiB = (process.memoryUsage().rss - before) / 1024 / 1024;
  t.ok(grownMiB < 128, `${grownMiB.toFixed(1)} MiB more`);
  socket.destroy();
});

// What is no request ---------------------------------------------------------------------------------------------------

const protocolError = 1;
const malformed: Record<string, readonly Buffer[]> = {
  'an upper-case name': [requestBlock({}, field('X-Upper', 'a'))],
  'no :method': [requestBlock({ ':method': undefined })],
  'no :path': [requestBlock({ ':path': undefined })],
  'no :scheme': [requestBlock({ ':scheme': undefined })],
  'an empty :path': [requestBlock({ ':path': '' })],
  'two :path': [requestBlock({}, field(':path', '/b'))],
  'two :authority': [requestBlock({}, field(':authority', 'attacker.test'))],
  'an unknown pseudo-header field': [requestBlock({}, field(':evil', 'a'))],
  'a response pseudo-header field': [requestBlock({}, field(':status', '200'))],
  'a pseudo-header field after a field': [Buffer.concat([field('x', 'a'), requestBlock()])],
  'an extended CONNECT': [requestBlock({ ':method': 'CONNECT' }, field(':protocol', 'websocket'))],
  'a Connection field': [requestBlock({}, field('connection', 'close'))],
  'a Transfer-Encoding field': [requestBlock({}, field('transfer-encoding', 'chunked'))],
  'a Keep-Alive field': [requestBlock({}, field('keep-alive', 'timeout=5'))],
  'a Proxy-Connection field': [requestBlock({}, field('proxy-connection', 'close'))],
  'an Upgrade field': [requestBlock({}, field('upgrade', 'websocket'))],
  'a TE field of another value': [requestBlock({}, field('te', 'gzip'))],
  'a Content-Length without a body': [requestBlock({ ':method': 'POST' }, field('content-length', '5'))],
  'two Content-Lengths': [requestBlock({ ':method': 'POST' }, field('content-length', '0'), field('content-length', '0'))],
  'a Content-Length that is no number': [requestBlock({ ':method': 'POST' }, field('content-length', '+0'))],
  'an absolute URL as :path': [requestBlock({ ':path': `http://attacker.test/` })],
  TRACE: [requestBlock({ ':method': 'TRACE' })],
  'a method in small letters, which would be sent in capitals': [requestBlock({ ':method': 'post' })],
  'a method in letters of both kinds': [requestBlock({ ':method': 'DeLETE' })],
  'another host than :authority': [requestBlock({}, field('host', 'attacker.test'))],
};

/** nghttp2 drops such a field by itself and says nothing of it; RFC 9113 section 8.2.1 would have the request refused. */
const dropped: Record<string, readonly Buffer[]> = {
  'a line break in a value': [requestBlock({}, field('x', 'a\r\nauthorization: theirs'))],
  'a NUL in a value': [requestBlock({}, field('x', 'a\u0000b'))],
  'a space in a name': [requestBlock({}, field('x y', 'a'))],
  'a colon in a name': [requestBlock({}, field('x:y', 'a'))],
  'an empty name': [requestBlock({}, field('', 'a'))],
};

t.test('a field that could not be written as HTTP/1.1 is never written', async (t) => {
  const both = await setUp(t);
  const raw = await rawProgram(both);
  let stream = 1;
  for (const [name, [block]] of Object.entries(dropped)) {
    raw.send(types.headers, flags.endHeaders | flags.endStream, stream, block);
    await until(() => raw.seen.some((one) => one.type === types.data && one.stream === stream));
    t.pass(name);
    stream += 2;
  }
  const sent = both.heard();
  t.equal(sent.match(/^GET \/ HTTP\/1\.1\r$/gm)?.length, Object.keys(dropped).length);
  t.same([...new Set(sent.toLowerCase().match(/^[^ \r\n]+(?=:)/gm))].toSorted(), ['authorization', 'connection', 'host']);
  t.notMatch(sent, /theirs/);
});

t.test('streams that are no requests are refused, each alone, and nothing of them is sent on', async (t) => {
  const both = await setUp(t);
  const raw = await rawProgram(both);
  let stream = 1;
  for (const [name, [block]] of Object.entries(malformed)) {
    raw.send(types.headers, flags.endHeaders | flags.endStream, stream, block);
    const answers = (): Seen[] => raw.seen.filter((one) => one.stream === stream);
    // Refused by nghttp2, or by us with a problem.
    await until(() => resetOf(raw, stream) !== undefined || answers().some((one) => one.type === types.data) || !raw.isOpen());
    const text = answers().map(({ payload }) => payload.toString('latin1'));
    t.ok(resetOf(raw, stream) === protocolError || text.some((one) => one.includes('"code":"')), name);
    stream += 2;
  }
  raw.send(types.headers, flags.endHeaders | flags.endStream, stream, requestBlock());
  await until(() => raw.seen.some((one) => one.type === types.data && one.stream === stream && one.payload.toString() === 'ok'));
  t.pass('the connection goes on');
  t.equal(intents(both), 1);
  t.equal(both.origin.accepted(), 1);
});

t.test('a body that is not as long as announced never looks whole to the target', async (t) => {
  const ended: string[] = [];
  const both = await between(
    t,
    httpTarget((request, response) => {
      request.on('end', () => ended.push('whole'));
      request.on('error', () => undefined);
      request.on('close', () => ended.push('closed'));
      request.resume();
      response.on('error', () => undefined);
    }),
  );
  for (const [announced, data] of [
    ['5', 'hell'],
    ['5', 'hello!'],
    ['0', 'a'],
  ] as const) {
    const raw = await rawProgram(both);
    raw.send(types.headers, flags.endHeaders, 1, requestBlock({ ':method': 'POST' }, field('content-length', announced)));
    raw.send(types.data, flags.endStream, 1, Buffer.from(data));
    await until(() => resetOf(raw, 1) !== undefined || !raw.isOpen());
    t.ok((resetOf(raw, 1) ?? goawayOf(raw) ?? 0) > 0, `${announced} for ${data}`);
  }
  await until(() => both.origin.sockets.size === 0);
  t.notOk(ended.includes('whole'));
});

t.test('header blocks that are too large, or grow when they are decoded, are refused', async (t) => {
  const both = await setUp(t);
  // Too many and too long.
  const large = await rawProgram(both);
  large.send(
    types.headers,
    flags.endHeaders | flags.endStream,
    1,
    requestBlock({}, ...Array.from({ length: 150 }, (_, i) => field(`x-${i}`, 'y'))),
  );
  await until(
    () =>
      resetOf(large, 1) !== undefined ||
      goawayOf(large) !== undefined ||
      large.seen.some(({ type, stream }) => type === types.headers && stream === 1),
  );
  // One entry of 4,000 bytes in the dynamic table (RFC 7541 section 6.2.1), then a byte for each repetition.
  const bomb = await rawProgram(both);
  const literalIndexed = field('x', 'y'.repeat(3_900));
  literalIndexed[0] = 0x40;
  bomb.send(
    types.headers,
    flags.endHeaders | flags.endStream,
    1,
    Buffer.concat([requestBlock(), literalIndexed, Buffer.alloc(12_000, 0xbe)]),
  );
  await until(() => resetOf(bomb, 1) !== undefined || goawayOf(bomb) !== undefined || !bomb.isOpen());
  // References to a table that is not there: the decoder's state is lost, and with it the connection.
  const broken = await rawProgram(both);
  broken.send(types.headers, flags.endHeaders | flags.endStream, 1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f]));
  await broken.closed;
  t.equal(goawayOf(broken), 9, 'COMPRESSION_ERROR');
  t.equal(intents(both), 0);
  t.ok(await isServed(t, both));
});

t.test('windows that overflow, and frames out of place, end the stream or the connection', async (t) => {
  const both = await between(
    t,
    httpTarget((request) => void request.pause()),
  );
  const post = requestBlock({ ':method': 'POST' });
  const rows: Record<string, { readonly frames: readonly Buffer[]; readonly streamCode?: number; readonly connectionCode?: number }> = {
    'a window beyond 2^31-1 on the connection': { frames: [frame(types.windowUpdate, 0, 0, uint32(0x7fffffff))], connectionCode: 3 },
    'a window beyond 2^31-1 on a stream': {
      frames: [frame(types.headers, flags.endHeaders, 1, post), frame(types.windowUpdate, 0, 1, uint32(0x7fffffff))],
      streamCode: 3,
      connectionCode: 3,
    },
    'more DATA than the window': {
      frames: [
        frame(types.headers, flags.endHeaders, 1, post),
        ...Array.from({ length: 2_000 }, () => frame(types.data, 0, 1, Buffer.alloc(16_384))),
      ],
      streamCode: 3,
      connectionCode: 3,
    },
    'DATA on no stream': { frames: [frame(types.data, 0, 0, Buffer.from('a'))], connectionCode: 1 },
    'DATA on a stream that was never opened': { frames: [frame(types.data, 0, 7, Buffer.from('a'))], connectionCode: 1 },
    'an even stream': { frames: [frame(types.headers, flags.endHeaders, 2, post)], connectionCode: 1 },
    'a promise': { frames: [frame(types.pushPromise, flags.endHeaders, 1, Buffer.concat([uint32(2), post]))], connectionCode: 1 },
    'CONTINUATION without HEADERS': { frames: [frame(types.continuation, flags.endHeaders, 1, post)], connectionCode: 1 },
    'another frame inside a header block': {
      frames: [frame(types.headers, 0, 1, post), frame(types.ping, 0, 0, Buffer.alloc(8))],
      connectionCode: 1,
    },
    'a frame larger than allowed': { frames: [frame(types.data, 0, 1, Buffer.alloc(20_000))], connectionCode: 6 },
    'a PING of another size': { frames: [frame(types.ping, 0, 0, Buffer.alloc(7))], connectionCode: 6 },
    'a setting out of range': { frames: [frame(types.settings, 0, 0, setting(4, 0xffffffff))], connectionCode: 3 },
    'HEADERS after the end of the stream': {
      frames: [frame(types.headers, flags.endHeaders | flags.endStream, 1, post), frame(types.headers, flags.endHeaders, 1, post)],
      streamCode: 5,
      connectionCode: 5,
    },
  };
  for (const [name, { frames, streamCode, connectionCode }] of Object.entries(rows)) {
    const raw = await rawProgram(both);
    raw.write(Buffer.concat(frames));
    await until(() => resetOf(raw, 1) !== undefined || goawayOf(raw) !== undefined || !raw.isOpen());
    const [reset, goaway] = [resetOf(raw, 1), goawayOf(raw)];
    t.ok(reset === streamCode || goaway === connectionCode, `${name}: RST_STREAM ${reset}, GOAWAY ${goaway}`);
  }
  t.ok(both.path.logs.every((line) => !line.includes('"code":"internal"')));
});

t.test('streams that are opened and never go on cost a place on their own connection only', async (t) => {
  const both = await setUp(t);
  const raw = await rawProgram(both);
  for (let i = 0; i < 200; i += 1)
    raw.send(types.headers, flags.endHeaders, 2 * i + 1, requestBlock({ ':method': 'POST', ':path': '/never' }));
  const headOnly = await rawProgram(both);
  headOnly.send(types.headers, flags.endStream, 1, requestBlock());
  t.ok(await isServed(t, both));
  const { length } = both.path.events;
  t.ok(length <= 2 * 201 + 2, `${length} events`);
});
