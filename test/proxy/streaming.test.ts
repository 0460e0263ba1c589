import { once } from 'node:events';
import type { Socket } from 'node:net';
import t, { type Test } from 'tap';
import { startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { dial, exchange, startPath, target, wholeResponse } from '../support/path.ts';

const authority = createTestAuthority();
const host = 'echo.outrider.test';
const pathTo = async (t: Test, answer: Parameters<typeof startRecorder>[1]) => {
  const origin = await startRecorder(authority.serverFor(host), answer);
  t.teardown(() => origin.close());
  const path = await startPath({
    dir: t.testdir(),
    targets: [target('echo')],
    pins: [{ host, port: 80, address: '127.0.0.1', addressPort: origin.httpPort }],
    trustPem: authority.pem,
  });
  t.teardown(() => path.close());
  return { origin, path };
};
const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise(setImmediate);
};

t.test('an event stream arrives event by event, its head before the first', async (t) => {
  let say: (text: string) => void = () => undefined;
  const { path } = await pathTo(t, (_request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.flushHeaders();
    say = (text) => void response.write(text);
  });
  const client = await dial(path.port);
  t.match(
    await exchange(client, `GET http://${host}/events HTTP/1.1\r\nHost: ${host}\r\n\r\n`, (text) => text.includes('\r\n\r\n')),
    /^HTTP\/1\.1 200 OK\r\n/,
  );
  for (const event of ['data: 1\n\n', 'data: 2\n\n']) {
    const arrived = once(client, 'data');
    say(event);
    t.match(String((await arrived)[0]), event);
  }
  client.destroy();
  await until(() => path.events.some(({ kind }) => kind === 'outcome'));
  t.match(path.events.at(-1)?.outcome, { fault: 'client_closed', status: 200 });
});

t.test('a program that does not read stops the target, and the proxy keeps little', async (t) => {
  let written = 0;
  const { path } = await pathTo(t, (_request, response) => {
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(64 * 1024))) written += 64 * 1024;
      response.once('drain', more);
    };
    more();
  });
  const client = await dial(path.port);
  client.pause();
  client.write(`GET http://${host}/big HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  // Still when nothing more was written over many turns of the loop.
  let last = -1;
  for (let still = 0; still < 200; still += 1) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (written !== last) still = 0;
    last = written;
  }
  // Socket buffers of three hops on loopback, not the stream: that has no end.
  t.ok(written < 64 * 1024 * 1024, `${written} bytes were taken from the target`);
  client.destroy();
});

t.test('a target that does not read stops the program', async (t) => {
  let held: Socket | undefined;
  const { path } = await pathTo(t, (request) => {
    request.pause();
    held = request.socket;
  });
  const client = await dial(path.port);
  client.write(`POST http://${host}/big HTTP/1.1\r\nHost: ${host}\r\nTransfer-Encoding: chunked\r\n\r\n`);
  let sent = 0;
  const chunk = Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(0x10000), Buffer.from('\r\n')]);
  let isBlocked = false;
  const more = (): void => {
    isBlocked = false;
    while (sent < 512 * 1024 * 1024) {
      sent += chunk.length;
      if (!client.write(chunk)) {
        isBlocked = true;
        client.once('drain', more);
        return;
      }
    }
  };
  more();
  let last = -1;
  for (let still = 0; still < 200; still += 1) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (sent !== last) still = 0;
    last = sent;
  }
  t.ok(isBlocked && sent < 64 * 1024 * 1024, `blocked after ${sent} bytes`);
  client.destroy();
  held?.destroy();
});

t.test('an answer that comes before the body is there is passed on at once', async (t) => {
  const { path } = await pathTo(t, (_request, response) => {
    response.writeHead(413, { 'Content-Length': '7', Connection: 'close' });
    response.end('too big');
  });
  const client = await dial(path.port);
  const answer = await exchange(
    client,
    `POST http://${host}/big HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1000000\r\n\r\n${'a'.repeat(1000)}`,
    wholeResponse,
  );
  t.match(answer, /^HTTP\/1\.1 413 [^]*too big$/);
  await once(client, 'close');
  t.match(path.events.at(-1)?.outcome, { status: 413, fault: '' });
});

t.test('status, reason, field order, duplicates and unframed bodies come back as the target sent them', async (t) => {
  const { path } = await pathTo(t, (_request, response) => {
    response.sendDate = false;
    response.shouldKeepAlive = false;
    response.writeHead(299, 'Quite Fine', [
      'Set-Cookie',
      'a=1',
      'X-Z',
      '1',
      'set-cookie',
      'b=2',
      'Trailer',
      'X',
      'Proxy-Authenticate',
      'Basic',
      'X-A',
      '2',
    ]);
    response.end('body');
  });
  const answer = await exchange(await dial(path.port), `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  t.match(answer, /^HTTP\/1\.1 299 Quite Fine\r\nSet-Cookie: a=1\r\nX-Z: 1\r\nset-cookie: b=2\r\nX-A: 2\r\n/);
  t.notMatch(answer, /Proxy-Authenticate|Trailer/i);
});

t.test('redirects are the program to follow, HEAD and 304 have no body', async (t) => {
  const { origin, path } = await pathTo(t, (request, response) => {
    if (request.url === '/redirect') response.writeHead(302, { Location: 'http://attacker.outrider.test/' }).end();
    else if (request.url === '/304') response.writeHead(304, { ETag: '"1"' }).end();
    else response.writeHead(200, { 'Content-Length': '1234' }).end();
  });
  const ask = async (head: string): Promise<string> =>
    exchange(await dial(path.port), `${head} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
  t.match(await ask(`GET http://${host}/redirect`), /^HTTP\/1\.1 302 [^]*Location: http:\/\/attacker\.outrider\.test\//);
  t.match(await ask(`HEAD http://${host}/`), /^HTTP\/1\.1 200 [^]*Content-Length: 1234\r\n[^]*\r\n\r\n$/);
  t.match(await ask(`GET http://${host}/304`), /^HTTP\/1\.1 304 [^]*\r\n\r\n$/);
  t.equal(origin.requests.length, 3);
});

t.test('a connection is kept and used again on both hops', async (t) => {
  const { origin, path } = await pathTo(t, (_request, response) => response.end('ok'));
  const client = await dial(path.port);
  for (let i = 0; i < 20; i += 1) {
    t.match(await exchange(client, `GET http://${host}/${i} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse), /^HTTP\/1\.1 200/);
  }
  t.equal(origin.raw().length, 1, 'one connection to the target');
  client.destroy();
});
