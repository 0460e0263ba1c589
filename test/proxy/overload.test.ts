import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { type ClientHttp2Session, createSecureServer } from 'node:http2';
import { createServer } from 'node:https';
import type { Socket } from 'node:net';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { processLimits, readLimits } from '../../src/ops/process-limits.ts';
import type { Overload } from '../../src/proxy/listener.ts';
import { createOccupancy, type Standing } from '../../src/proxy/listener/occupancy.ts';
import { connectionsFor } from '../../src/proxy/run/load.ts';
import {
  between,
  files,
  host,
  h2Program,
  httpTarget,
  program,
  rawTarget,
  talk,
  tlsTunnel,
  tunnel,
  until,
  whole,
} from '../support/between.ts';
import { listen } from '../net/outbound/targets.ts';
import { eventually } from '../support/stack.ts';

/** What happens when there is more than can be done: who makes room, who is told to come again, and that the rest goes on (THREATS S-1, S-6). */
const get = (path: string, ...fields: readonly string[]): string =>
  [`GET http://${host}${path} HTTP/1.1`, `Host: ${host}`, ...fields, '', ''].join('\r\n');

const crowded = async (t: Test, connectionsMax: number, answer: (path: string, response: ServerResponse) => void) => {
  const overloads: Overload[] = [];
  const both = await between(
    t,
    httpTarget((request, response) => {
      request.on('error', () => undefined);
      answer(request.url as string, response);
    }),
    {
      listener: { connectionsMax, onOverload: (reason) => overloads.push(reason) },
      clientPatience: { idleReclaimMs: 20, slowReclaimMs: 60 },
    },
  );
  return { ...both, overloads };
};
/** Longer than an idle connection is kept when room is needed. */
const aWhile = async (ms = 40): Promise<void> => {
  const startedAt = performance.now();
  await until(() => performance.now() - startedAt > ms);
};

t.test('when the bound on connections is reached, who has been silent the longest makes room', async (t) => {
  const { path, overloads } = await crowded(t, 2, (_path, response) => response.end('ok'));
  const silent = await program(path);
  await aWhile(5);
  const kept = await program(path);
  kept.say(get('/'));
  await kept.until(whole(200, 'ok'));
  await aWhile();
  kept.say(get('/'));
  await kept.until(/ok[^]*ok$/);
  const third = await program(path);
  t.equal(await silent.end, 'end');
  third.say(get('/'));
  await third.until(whole(200, 'ok'));
  kept.say(get('/'));
  await kept.until(/ok[^]*ok[^]*ok$/);
  t.same(overloads, ['connections_idle']);
});

t.test('half a head, a body that does not come and an answer that is not read make room too', async (t) => {
  const { path, overloads } = await crowded(t, 4, (at, response) => {
    if (at === '/big') {
      const more = (): void => {
        while (!response.destroyed && response.write(Buffer.alloc(64 * 1024)));
        response.once('drain', more);
      };
      return more();
    }
    return undefined;
  });
  const half = await program(path);
  half.say('GET http://');
  const sender = await program(path);
  sender.say(`POST http://${host}/upload HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1000\r\n\r\nhalf`);
  const reader = await program(path);
  reader.socket.pause();
  reader.say(get('/big'));
  const waiting = await program(path);
  waiting.say(get('/never'));
  let isWaitingClosed = false;
  waiting.socket.once('close', () => (isWaitingClosed = true));
  // Each that comes finds room once another has kept the proxy waiting for long enough, and stays.
  await eventually(async () => {
    (await program(path)).say(get('/never'));
    await aWhile(5);
    return overloads.filter((one) => one.startsWith('connections_')).length >= 3;
  });
  await Promise.all([half.end, sender.end]);
  reader.socket.resume();
  await reader.end;
  t.notOk(isWaitingClosed, 'it waits for us');
  t.same(
    overloads.filter((one) => one.startsWith('connections_')),
    ['connections_idle', 'connections_slow', 'connections_slow'],
  );
});

t.test('when everybody waits for us, the next is answered 503 with Retry-After at once, and nobody else notices', async (t) => {
  const answers: ServerResponse[] = [];
  const { path, overloads } = await crowded(t, 2, (at, response) => (at === '/late' ? void answers.push(response) : response.end('ok')));
  const [one, other] = [await program(path), await program(path)];
  for (const client of [one, other]) client.say(get('/late', 'Connection: close'));
  await until(() => answers.length === 2);
  await aWhile();
  const third = await program(path);
  const text = await third.until(/\r\n\r\n.*\}/);
  t.match(text, /^HTTP\/1\.1 503 Service Unavailable\r\n/);
  t.match(text, /\r\nretry-after: 1\r\n/);
  t.match(text, /\r\nproxy-status: outrider; error=connection_limit_reached; details="overloaded"\r\n/);
  t.match(text, /\r\nconnection: close\r\n/);
  t.same(overloads, ['connections']);
  for (const answer of answers) answer.end('late');
  for (const client of [one, other]) await client.until(whole(200, 'late'));
  await until(() => one.socket.destroyed && other.socket.destroyed);
  await eventually(async () => {
    const next = await program(path);
    next.say(get('/'));
    return (await next.until(/\r\n\r\n/)).startsWith('HTTP/1.1 200 ');
  });
  t.match(await path.metrics(), /outrider_proxy_faults_total\{code="overloaded"\} [1-9]/);
});

t.test('beyond so many refusals under way, further connections are closed without a word', async (t) => {
  const { path, overloads } = await crowded(t, 1, () => undefined);
  const first = await program(path);
  first.say(get('/never'));
  await until(() => path.events.length > 0);
  const flood = await Promise.all(Array.from({ length: limits.clientRefusalsMax + 8 }, () => program(path, { allowHalfOpen: true })));
  await Promise.all(flood.map(({ end }) => end));
  t.equal(overloads.filter((one) => one === 'connections').length, limits.clientRefusalsMax);
  t.equal(overloads.filter((one) => one === 'connections_dropped').length, 8);
});

t.test(
  'a tunnel, and an intercepted connection of HTTP/2 with a request, are not closed to make room; one between requests is',
  async (t) => {
    const overloads: Overload[] = [];
    const answers: ServerResponse[] = [];
    const elsewhere = await listen(
      t,
      rawTarget(async ({ say, until: heard }) => {
        await heard(/hello/);
        say('hello yourself');
      }),
    );
    const { path } = await between(
      t,
      createServer({ ...files }, (request, response) => (request.url === '/late' ? void answers.push(response) : response.end('ok'))),
      {
        morePins: [{ host: 'elsewhere.test', port: 5432, address: '127.0.0.1', addressPort: elsewhere.port }],
        listener: { connectionsMax: 2, onOverload: (reason) => overloads.push(reason) },
        clientPatience: { idleReclaimMs: 20, slowReclaimMs: 20 },
      },
    );
    const joined = talk(await tunnel(path, 'elsewhere.test:5432'));
    joined.say('hello');
    await joined.until(/hello yourself/);
    const session = await h2Program(t, path);
    const late = once(session.request({ ':path': '/late' }), 'response');
    await until(() => answers.length === 1);
    await aWhile();
    t.match(await (await program(path)).until(/\r\n\r\n/), /^HTTP\/1\.1 503 /);
    t.same(overloads, ['connections']);
    answers[0]?.end('late');
    t.match((await late)[0], { ':status': 200 });
    await eventually(async () => {
      const next = await program(path);
      await aWhile(30);
      next.socket.destroy();
      return session.destroyed;
    });
    t.equal(overloads.filter((one) => one === 'connections_idle').length, 1);
    t.equal(joined.socket.destroyed, false);
  },
);

t.test('while memory is short a few requests run at a time and the others are told to come again', async (t) => {
  let isShort = false;
  const overloads: Overload[] = [];
  const answers: ServerResponse[] = [];
  const { path } = await between(
    t,
    httpTarget((_request, response) => void answers.push(response)),
    { listener: { isMemoryShort: () => isShort, onOverload: (reason) => overloads.push(reason) } },
  );
  const before = await program(path);
  before.say(get('/'));
  await until(() => answers.length === 1);
  isShort = true;
  const few = await Promise.all(Array.from({ length: limits.memoryShortRequestsMax }, () => program(path)));
  for (const client of few) client.say(get('/'));
  await until(() => answers.length === 1 + limits.memoryShortRequestsMax);
  const more = await program(path);
  more.say(get('/'));
  t.match(await more.until(/\r\n\r\n.*\}/), /^HTTP\/1\.1 503 [^]*\r\nretry-after: 1\r\n[^]*Memory is short/);
  const connecting = await program(path);
  connecting.say(`CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\n\r\n`);
  t.match(await connecting.until(/\r\n\r\n.*\}/), /^HTTP\/1\.1 503 /);
  t.same(overloads, ['memory', 'memory']);
  for (const answer of answers) answer.end('ok');
  await Promise.all([before, ...few].map((client) => client.until(whole(200, 'ok'))));
  more.say(get('/'));
  await until(() => answers.length === 2 + limits.memoryShortRequestsMax);
  answers.at(-1)?.end('again');
  await more.until(/again$/);
});

t.test('programs that speak HTTP/2 are told of short memory on their stream', async (t) => {
  let isShort = false;
  const answers: ServerResponse[] = [];
  const { path } = await between(
    t,
    createServer({ ...files }, (_request, response) => void answers.push(response)),
    { listener: { isMemoryShort: () => isShort } },
  );
  const session = await h2Program(t, path);
  isShort = true;
  const responses = Array.from({ length: limits.memoryShortRequestsMax + 1 }, () => once(session.request({ ':path': '/' }), 'response'));
  t.match((await (responses.pop() as Promise<unknown[]>))[0], { ':status': 503, 'retry-after': '1' });
  await until(() => answers.length === limits.memoryShortRequestsMax);
  for (const answer of answers) answer.end('ok');
  for (const response of responses) t.match((await response)[0], { ':status': 200 });
});

t.test('who asks for one thing at a time has its turn, however many things others ask for at once', async (t) => {
  const overloads: Overload[] = [];
  const waiting: { end: (text: string) => void }[] = [];
  const { path } = await between(
    t,
    createSecureServer({ ...files, settings: { maxConcurrentStreams: 1_000 } }, (request, response) => {
      if (request.url === '/quick') response.end('quick');
      else waiting.push(response);
    }),
    { target: { protocol: 'h2' }, listener: { onOverload: (reason) => overloads.push(reason) } },
  );
  const sessions = await Promise.all(Array.from({ length: 3 }, () => h2Program(t, path)));
  for (const session of sessions) await until(() => session.remoteSettings.maxConcurrentStreams === limits.clientH2StreamsMax);
  const each = limits.clientH2StreamsMax - 1;
  const statuses = sessions.flatMap((session) =>
    Array.from(
      { length: each },
      async () => ((await once(session.request({ ':path': '/wait' }), 'response'))[0] as { ':status': number })[':status'],
    ),
  );
  const taken = sessions.length + limits.clientFurtherRequestsMax;
  t.ok(limits.clientRequestsMax - limits.clientFurtherRequestsMax >= limits.clientConnectionsMax, 'a turn for whoever may be connected');
  await until(() => waiting.length + overloads.length === sessions.length * each);
  t.equal(waiting.length, taken);
  t.same(new Set(overloads), new Set(['requests']));
  const modest = await h2Program(t, path);
  t.match((await once(modest.request({ ':path': '/quick' }), 'response'))[0], { ':status': 200 });
  const one = talk(await tlsTunnel(path, undefined));
  one.say(`GET /quick HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  await one.until(/^HTTP\/1\.1 200 [^]*quick/);
  const greedy = modest.request({ ':path': '/wait' });
  t.match(
    (await once(modest.request({ ':path': '/quick' }), 'response'))[0],
    { ':status': 503, 'retry-after': '1' },
    'its second at the same time',
  );
  greedy.close();
  for (const answer of waiting) answer.end('ok');
  const counts = Map.groupBy(await Promise.all(statuses), (status) => status);
  t.equal(counts.get(200)?.length, taken);
  t.equal(counts.get(503)?.length, sessions.length * each - taken);
  t.match((await once((sessions[0] as ClientHttp2Session).request({ ':path': '/quick' }), 'response'))[0], { ':status': 200 });
});

t.test(
  'the first HTTP/2 connections may ask for many things at once, any further one for few, until one of the first has gone',
  async (t) => {
    const { path } = await between(
      t,
      createServer({ ...files }, (_request, response) => void response.end('ok')),
    );
    const open = async () => {
      const session = await h2Program(t, path);
      // nghttp2 goes by this number until the SETTINGS have come.
      await until(() => session.remoteSettings.maxConcurrentStreams !== 100);
      return session;
    };
    const wide = [];
    for (let i = 0; i < limits.clientH2WideSessionsMax; i += 1) wide.push(await open());
    for (const session of wide) t.equal(session.remoteSettings.maxConcurrentStreams, limits.clientH2StreamsMax);
    const further = await open();
    t.equal(further.remoteSettings.maxConcurrentStreams, limits.clientH2NarrowStreamsMax);
    const responses = Array.from({ length: limits.clientH2NarrowStreamsMax * 3 }, () =>
      once(further.request({ ':path': '/' }), 'response'),
    );
    for (const response of responses) t.match((await response)[0], { ':status': 200 });
    const [first] = wide as [ClientHttp2Session, ...ClientHttp2Session[]];
    first.close();
    await once(first, 'close');
    await eventually(async () => (await open()).remoteSettings.maxConcurrentStreams === limits.clientH2StreamsMax);
  },
);

// The decision itself, with sockets and a clock of the test's own -----------------------------------------------------

interface FakeSocket {
  bytesRead: number;
  bytesWritten: number;
  isDestroyed: boolean;
}

const turns = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(() => setImmediate(resolve))));

const roomFor = (max: number, clock?: () => number) => {
  let at = 0;
  const standings = new Map<FakeSocket, Standing>();
  const closed: string[] = [];
  const occupancy = createOccupancy({
    max,
    patience: { idleReclaimMs: 250, slowReclaimMs: 10_000 },
    now: clock ?? (() => at),
    standingOf: (socket) => standings.get(socket as unknown as FakeSocket) ?? 'idle',
    onClosed: (why) => closed.push(why),
  });
  return {
    occupancy,
    closed,
    pass: (ms: number) => void (at += ms),
    stand: (socket: FakeSocket, standing: Standing) => standings.set(socket, standing),
    open: (): FakeSocket & { readonly isIn: boolean } => {
      const socket = { bytesRead: 0, bytesWritten: 0, isDestroyed: false, isIn: false, once: () => socket, destroy: () => undefined };
      socket.destroy = () => {
        socket.isDestroyed = true;
        return undefined;
      };
      socket.isIn = occupancy.admit(socket as unknown as Socket);
      return socket;
    },
  };
};

t.test('a body that comes at a kibibyte a second is never closed for another, a slower one after its grace', async (t) => {
  const { occupancy, open, pass, stand } = roomFor(2);
  const [slow, steady] = [open(), open()];
  stand(slow, 'sending');
  stand(steady, 'sending');
  for (let second = 0; second < 9; second += 1) {
    pass(1_000);
    slow.bytesRead += 1_000;
    steady.bytesRead += limits.clientSlowBytesPerSecond;
    t.equal(occupancy.makeRoom(), 0);
  }
  pass(1_000);
  steady.bytesRead += limits.clientSlowBytesPerSecond;
  slow.bytesRead += 1_000;
  t.equal(occupancy.makeRoom(), 1);
  await turns();
  t.same([slow.isDestroyed, steady.isDestroyed], [true, false]);
});

t.test('an answer that is read at a kibibyte a second stays, one that is read by the byte goes after its grace', async (t) => {
  const { occupancy, open, pass, stand } = roomFor(2);
  const [slow, steady] = [open(), open()];
  stand(slow, 'reading');
  stand(steady, 'reading');
  for (let second = 0; second < 10; second += 1) {
    pass(1_000);
    slow.bytesWritten += 1;
    steady.bytesWritten += limits.clientSlowBytesPerSecond;
    if (second < 9) occupancy.makeRoom();
  }
  t.equal(occupancy.makeRoom(), 1);
  await turns();
  t.same([slow.isDestroyed, steady.isDestroyed], [true, false]);
});

t.test('who was just opened, who was just answered, who waits for us and who is held are not closed', async (t) => {
  const { open, pass, stand, occupancy } = roomFor(4);
  const [answered, waiting, held] = [open(), open(), open()];
  stand(waiting, 'waiting');
  occupancy.hold(held as unknown as Socket, true);
  pass(60_000);
  const fresh = open();
  answered.bytesWritten = 100;
  t.equal(open().isIn, false);
  t.same(
    [answered, waiting, held, fresh].map(({ isDestroyed }) => isDestroyed),
    [false, false, false, false],
  );
  pass(300);
  t.equal(open().isIn, true, 'one that said nothing since makes room');
  await turns();
  t.same(
    [waiting, held].map(({ isDestroyed }) => isDestroyed),
    [false, false],
  );
});

t.test('who has never asked for anything goes before who is between two requests, whoever came first', async (t) => {
  const { open, pass, stand, occupancy } = roomFor(2);
  const kept = open();
  pass(60_000);
  const mute = open();
  stand(mute, 'new');
  pass(300);
  occupancy.makeRoom();
  await turns();
  t.same([kept.isDestroyed, mute.isDestroyed], [false, true]);
});

t.test('who is chosen and speaks in the same turn of the loop stays', async (t) => {
  const { open, pass, stand, occupancy, closed } = roomFor(16);
  const [kept, mute, half] = [open(), open(), open()];
  stand(mute, 'new');
  stand(half, 'new');
  for (const [chosen, speak] of [
    [kept, () => (kept.bytesRead += 10)],
    [
      mute,
      () => {
        mute.bytesRead += 100;
        stand(mute, 'waiting');
      },
    ],
  ] as const) {
    for (const one of [kept, mute, half]) stand(one, one === chosen ? (one === mute ? 'new' : 'idle') : 'waiting');
    pass(60_000);
    t.equal(occupancy.makeRoom(), 1);
    speak();
    await turns();
    t.equal(chosen.isDestroyed, false);
  }
  stand(half, 'new');
  stand(kept, 'waiting');
  pass(60_000);
  occupancy.makeRoom();
  half.bytesRead += 1;
  await turns();
  t.equal(half.isDestroyed, true, 'a byte more of a head is no request');
  t.same(closed, ['connections_idle']);
});

t.test('a flood is turned away without a search for each', async (t) => {
  let searches = 0;
  let at = 0;
  const occupancy = createOccupancy({
    max: 1,
    patience: { idleReclaimMs: 250, slowReclaimMs: 10_000 },
    now: () => at,
    standingOf: () => {
      searches += 1;
      return 'waiting';
    },
    onClosed: () => t.fail('nobody may be closed'),
  });
  const socket = () => ({ bytesRead: 0, bytesWritten: 0, once: () => undefined, destroy: () => undefined }) as unknown as Socket;
  occupancy.admit(socket());
  for (let i = 0; i < 1_000; i += 1) {
    at += 0.01;
    t.equal(occupancy.admit(socket()), false);
  }
  t.equal(searches, 2, 'for those who were slow for long, and for those who were slow for a moment');
});

t.test('time in which the proxy itself stood still is not held against who waits', async (t) => {
  const { open, closed } = roomFor(2, () => performance.now());
  t.ok(open().isIn && open().isIn);
  for (const end = performance.now() + 2_000; performance.now() < end; );
  // Its timer finds out, late.
  await new Promise((resolve) => setTimeout(resolve, 0));
  t.notOk(open().isIn, 'there is no room');
  await turns();
  t.same(closed, []);
});

t.test('where few descriptors are allowed fewer connections are taken, two descriptors for each', (t) => {
  t.equal(connectionsFor(Number.POSITIVE_INFINITY), limits.clientConnectionsMax);
  t.equal(connectionsFor(20_000), limits.clientConnectionsMax);
  t.equal(connectionsFor(1_024), 480);
  t.equal(connectionsFor(10), 1);
  const text =
    'Limit                     Soft Limit           Hard Limit           Units     \nMax core file size        0                    unlimited            bytes     \nMax open files            1024                 524288               files     \n';
  t.same(readLimits(text), { openFiles: 1_024, coreBytes: 0 });
  t.same(readLimits(text.replace('0         ', 'unlimited ')), { openFiles: 1_024, coreBytes: Number.POSITIVE_INFINITY });
  t.ok((processLimits()?.openFiles ?? 1) > 0, 'and so it is read of this process');
  t.equal(processLimits('/nonexistent'), undefined);
  t.end();
});
