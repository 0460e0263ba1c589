import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { Duplex } from 'node:stream';
import { createGzip } from 'node:zlib';
import t, { type Test } from 'tap';
import {
  between,
  type Between,
  type Conversation,
  files,
  h2Over,
  h2Program,
  host,
  httpTarget,
  outcomeOf,
  program,
  talk,
  tlsTunnel,
  tunnel,
  until,
} from '../support/between.ts';

/** Event streams and other answers that take their time (LESSONS 12, 13): never buffered, never cut for being silent. */

/** Every limit on silence that there is, made so short that a test can outlast it. */
const impatient = {
  clientPatience: { keepAliveMs: 10, bodyIdleMs: 10, stallMs: 30 },
  patience: { keepAliveMs: 10, continueMs: 10, sessionIdleMs: 10, headersMs: 20_000 },
};

/** Longer than all of them: the time in which connections that do nothing are closed, three times over. */
const longSilence = async ({ path }: Between): Promise<void> => {
  for (let i = 0; i < 3; i += 1) await (await program(path)).end;
};

const h2Stream = async (t: Test, socket: Duplex, scheme: string): Promise<Conversation> => {
  const stream = h2Over(t, socket).request({ ':path': '/events', ':authority': host, ':scheme': scheme });
  await once(stream, 'response');
  return talk(stream);
};
const h1 = (socket: Duplex, target = '/events'): Conversation => {
  const client = talk(socket);
  client.say(`GET ${target} HTTP/1.1\r\nHost: ${host}\r\nAccept: text/event-stream\r\n\r\n`);
  return client;
};
const ways: Record<string, (t: Test, between: Between) => Promise<Conversation>> = {
  'absolute-form': async (_t, { path }) => h1((await program(path)).socket, `http://${host}/events`),
  'CONNECT in clear text': async (_t, { path }) => h1(await tunnel(path, `${host}:80`)),
  'a reverse route': async (_t, { path }) => h1((await program(path, { port: path.routes[0] as number })).socket),
  'HTTP/2 in clear text': async (t, { path }) => h2Stream(t, await tunnel(path, `${host}:80`), 'http'),
  'CONNECT and TLS': async (_t, { path }) => h1(await tlsTunnel(path, ['http/1.1'])),
  'HTTP/2': async (t, { path }) => h2Stream(t, await tlsTunnel(path, ['h2']), 'https'),
};
const routes = [{ listen: { host: '127.0.0.1', port: 0 }, to: { scheme: 'http' as const, host, port: 80 } }];

for (const [way, open] of Object.entries(ways))
  t.test(`${way}: an event arrives when it is sent, also after a silence longer than every limit`, async (t) => {
    let stream: ServerResponse | undefined;
    const isTls = way === 'CONNECT and TLS' || way === 'HTTP/2';
    const answer: Parameters<typeof httpTarget>[0] = (_request, response) => {
      stream = response;
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      response.flushHeaders();
    };
    const both = await between(t, isTls ? createTlsServer(files, answer) : httpTarget(answer), { ...impatient, routes });
    const client = await open(t, both);
    // The head comes before the first event.
    if (!way.startsWith('HTTP/2')) await client.until(/text\/event-stream[^]*\r\n\r\n$/);
    for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
      stream?.write(event);
      await client.until(new RegExp(event));
      await longSilence(both);
    }
    stream?.end('data: last\n\n');
    await client.until(/data: last\n\n/);
    t.match((await outcomeOf(both.path)).outcome, { status: 200, fault: '', responseBodyBytes: 30 });
    client.socket.destroy();
  });

t.test('a target may think for longer than idle connections are kept', async (t) => {
  let answer: (() => void) | undefined;
  const both = await between(
    t,
    httpTarget((_request, response) => (answer = () => void response.end('at last'))),
    impatient,
  );
  const client = h1((await program(both.path)).socket, `http://${host}/`);
  await until(() => answer !== undefined);
  await longSilence(both);
  answer?.();
  await client.until(/\r\n\r\nat last$/);
});

t.test('what a target compresses piece by piece arrives piece by piece', async (t) => {
  const gzip = createGzip();
  const { path } = await between(
    t,
    httpTarget((_request, response) => {
      response.writeHead(200, { 'Content-Encoding': 'gzip' }).flushHeaders();
      gzip.pipe(response);
    }),
  );
  const client = h1((await program(path)).socket, `http://${host}/`);
  await client.until(/gzip[^]*\r\n\r\n/);
  for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
    const { length } = client.text();
    gzip.write(event);
    gzip.flush();
    await until(() => client.text().length > length);
  }
  gzip.end();
  await client.until(/\r\n0\r\n\r\n$/);
});

t.test('a body that stands still before there is an answer is refused; once an answer has begun, both ends may be silent', async (t) => {
  const both = await between(
    t,
    httpTarget((request, response) => {
      if (request.url === '/both') response.flushHeaders();
      request.on('data', (chunk) => void (request.url === '/both' && response.write(`heard ${chunk}`)));
      request.on('error', () => undefined);
    }),
    impatient,
  );
  const post = async (path: string): Promise<Conversation> => {
    const client = await program(both.path);
    client.say(`POST http://${host}${path} HTTP/1.1\r\nHost: ${host}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n`);
    return client;
  };
  const stalled = await post('/stalled');
  await stalled.end;
  t.match(stalled.text(), /^HTTP\/1\.1 408 [^]*"code":"request_timeout"/);
  const duplex = await post('/both');
  await duplex.until(/heard one/);
  await longSilence(both);
  duplex.say('3\r\ntwo\r\n');
  await duplex.until(/heard two/);
});

t.test('a stream of HTTP/2 may be silent both ways before its answer: gRPC calls are', async (t) => {
  const both = await between(
    t,
    createTlsServer(files, (request, response) => request.on('data', (chunk) => String(chunk) === 'two' && response.end('ok'))),
    impatient,
  );
  const session = await h2Program(t, both.path);
  const stream = session.request({ ':method': 'POST', ':path': '/', ':authority': host });
  stream.write('one');
  await longSilence(both);
  stream.write('two');
  await talk(stream).until(/ok/);
});

t.test('a program that has stopped reading is ended, and the target with it', async (t) => {
  const flood: Parameters<typeof httpTarget>[0] = (_request, response) => {
    response.on('error', () => undefined);
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(64 * 1024)));
      response.once('drain', more);
    };
    more();
  };
  const clear = await between(t, httpTarget(flood), impatient);
  const plain = await program(clear.path);
  plain.socket.pause();
  plain.say(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  t.match((await outcomeOf(clear.path)).outcome, { status: 200, fault: 'client_closed' });
  const secure = await between(t, createTlsServer(files, flood), impatient);
  const stream = (await h2Program(t, secure.path)).request({ ':path': '/', ':authority': host });
  stream.on('error', () => undefined);
  stream.pause();
  t.match((await outcomeOf(secure.path)).outcome, { status: 200, fault: 'client_closed' });
  await until(() => clear.origin.sockets.size + secure.origin.sockets.size === 0);
});

t.test('idle connections of HTTP/2 are closed in good order', async (t) => {
  const both = await between(
    t,
    createTlsServer(files, (_request, response) => response.end('ok')),
    impatient,
  );
  const session = await h2Program(t, both.path);
  const stream = session.request({ ':path': '/', ':authority': host });
  await talk(stream).until(/ok/);
  t.match(await once(session, 'goaway'), [0]);
  await once(session, 'close');
});
