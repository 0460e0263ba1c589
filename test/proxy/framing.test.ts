import type { RequestListener } from 'node:http';
import t, { type Test } from 'tap';
import { startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { dial, exchange, type Path, startPath, target } from '../support/path.ts';

/** THREATS F-1 to F-9, explicit listener. Whatever is sent, the origin sees as many requests as have an intent. */
const authority = createTestAuthority();

const setUp = async (t: Test, answer?: RequestListener) => {
  const origin = await startRecorder(authority.serverFor('echo.outrider.test'), answer);
  t.teardown(() => origin.close());
  const path = await startPath({
    dir: t.testdir(),
    targets: [target('echo')],
    pins: [{ host: 'echo.outrider.test', port: 80, address: '127.0.0.1', addressPort: origin.httpPort }],
    trustPem: authority.pem,
  });
  t.teardown(() => path.close());
  return { origin, path };
};

const send = async (path: Path, bytes: string): Promise<string> => exchange(await dial(path.port), bytes);
const url = 'http://echo.outrider.test/x';
const host = 'Host: echo.outrider.test\r\n';
const smuggled = `GET ${url}?smuggled HTTP/1.1\r\n${host}\r\n`;

t.test('conflicting or odd framing gets 400, the connection is closed, nothing is sent on', async (t) => {
  const { origin, path } = await setUp(t);
  const fields = [
    'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n',
    'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n',
    'Content-Length: 5\r\nContent-Length: 5\r\n',
    'Content-Length: 5\r\nContent-Length: 6\r\n',
    'Content-Length: 5, 5\r\n',
    'Content-Length: +5\r\n',
    'Content-Length: 0x5\r\n',
    'Content-Length: 05\r\n',
    'Content-Length: 5_0\r\n',
    'Content-Length: 99999999999999999999\r\n',
    'Content-Length: -1\r\n',
    'Content-Length:\r\n',
    'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n',
    'Transfer-Encoding: gzip, chunked\r\n',
    'Transfer-Encoding: chunked, gzip\r\n',
    'Transfer-Encoding: ,chunked\r\n',
    'Transfer-Encoding: chunked,\r\n',
    'Transfer-Encoding: identity\r\n',
    'Transfer-Encoding: xchunked\r\n',
    'Transfer-Encoding: "chunked"\r\n',
    'Transfer_Encoding: chunked\r\n',
    'Content_Length: 5\r\n',
    'Transfer-Encoding : chunked\r\n',
    ' Transfer-Encoding: chunked\r\n',
    'X: y\r\n Transfer-Encoding: chunked\r\n',
    'X: a\nTransfer-Encoding: chunked\r\n',
    'X: a\u0000b\r\n',
  ];
  for (const field of fields) {
    const answer = await send(path, `POST ${url} HTTP/1.1\r\n${host}${field}\r\n0\r\n\r\n${smuggled}`);
    t.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n[^]*"code":"(framing_invalid|request_malformed)"/, JSON.stringify(field));
    t.equal(answer.match(/^HTTP\/1\.1 /gm)?.length, 1, 'one answer, then the end');
  }
  t.equal(origin.requests.length, 0);
  t.equal(path.events.filter(({ kind }) => kind === 'intent').length, 0);
});

t.test('other versions and malformed request lines are refused', async (t) => {
  const { origin, path } = await setUp(t);
  const rows: [string, RegExp][] = [
    [`GET ${url}\r\n\r\n`, /^HTTP\/1\.1 400 /],
    [`GET ${url} HTTP/0.9\r\n${host}\r\n`, /^HTTP\/1\.1 400 /],
    [`GET ${url} HTTP/1.2\r\n${host}\r\n`, /^HTTP\/1\.1 400 /],
    [`GET ${url} HTTP/2.0\r\n${host}\r\n`, /^HTTP\/1\.1 400 /],
    ['PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', /^HTTP\/1\.1 400 /],
    [`POST ${url} HTTP/1.0\r\n${host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, /^HTTP\/1\.1 400 /],
    [`BREW ${url} HTTP/1.1\r\n${host}\r\n`, /^HTTP\/1\.1 400 /],
    [`TRACE ${url} HTTP/1.1\r\n${host}Connection: close\r\n\r\n`, /^HTTP\/1\.1 405 /],
    [`POST ${url} HTTP/1.1\r\n${host}Expect: y 100-continue\r\nConnection: close\r\nContent-Length: 1\r\n\r\na`, /^HTTP\/1\.1 417 /],
    [`POST ${url} HTTP/1.1\r\n${host}Expect: 200-ok\r\nConnection: close\r\nContent-Length: 1\r\n\r\na`, /^HTTP\/1\.1 417 /],
    ['\u0016\u0003\u0001\u0000\u0005hello\r\n\r\n', /^HTTP\/1\.1 400 /],
  ];
  for (const [bytes, wanted] of rows) t.match(await send(path, bytes), wanted, JSON.stringify(bytes.slice(0, 60)));
  t.equal(origin.requests.length, 0);
});

t.test('bounds on the head: fields, bytes and request target', async (t) => {
  const { origin, path } = await setUp(t);
  const filler = (count: number): string => Array.from({ length: count }, (_, i) => `X-${i}: y\r\n`).join('');
  t.match(await send(path, `GET ${url} HTTP/1.1\r\n${host}Connection: close\r\n${filler(98)}\r\n`), /^HTTP\/1\.1 200 /, '100 fields');
  for (const count of [99, 1_001, 2_500])
    t.match(
      await send(path, `GET ${url} HTTP/1.1\r\n${host}Connection: close\r\n${filler(count)}\r\n`),
      /^HTTP\/1\.1 431 /,
      `${count + 2} fields`,
    );
  t.match(await send(path, `GET ${url} HTTP/1.1\r\n${host}X: ${'y'.repeat(33_000)}\r\n\r\n`), /^HTTP\/1\.1 431 /, 'one long field');
  t.match(await send(path, `GET ${url}/${'y'.repeat(9_000)} HTTP/1.1\r\n${host}\r\n`), /^HTTP\/1\.1 431 /, 'a long target');
  t.equal(origin.requests.length, 1);
});

t.test('a body that looks like a request stays a body, for every method', async (t) => {
  const { origin, path } = await setUp(t);
  const methods = ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'POST', 'PUT', 'PATCH'];
  for (const method of methods) {
    const chunk = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;
    await send(path, `${method} ${url} HTTP/1.1\r\n${host}Connection: close\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`);
    await send(path, `${method} ${url} HTTP/1.1\r\n${host}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`);
  }
  t.same(
    origin.requests.map(({ method }) => method),
    methods.flatMap((method) => [method, method]),
  );
  t.notOk(origin.requests.some(({ url: seen }) => seen.includes('smuggled')));
  t.equal(path.events.filter(({ kind }) => kind === 'intent').length, origin.requests.length, 'requests seen by the origin = intents');
});

t.test('framing that breaks after the head was sent on ends both connections and is recorded once', async (t) => {
  const { origin, path } = await setUp(t);
  for (const body of [
    '5\r\nhello\r\nzz\r\n',
    '5\r\nhellooo\r\n0\r\n\r\n',
    '5\r\nhello\r\n-1\r\n\r\n',
    '5\nhello\r\n0\r\n\r\n',
    `ffffffffffffffffff\r\n`,
  ]) {
    path.events.length = 0;
    const before = origin.requests.length;
    const answer = await send(path, `POST ${url} HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n${body}${smuggled}`);
    t.notMatch(answer, /^HTTP\/1\.1 200/, JSON.stringify(body));
    const intents = path.events.filter(({ kind }) => kind === 'intent').length;
    const outcomes = path.events.filter(({ kind }) => kind === 'outcome');
    t.ok(origin.requests.length - before <= intents, 'nothing beyond what was intended');
    t.equal(outcomes.length, intents);
    for (const { outcome } of outcomes) t.match(outcome?.fault, /^(framing_invalid|request_malformed|client_closed)$/);
  }
  // The origin's connections were not reused for anything after the break.
  t.notMatch(origin.raw().join('\n'), /smuggled/);
});

t.test('a program that goes away in the middle of its body is an outcome, not a whole request', async (t) => {
  const { origin, path } = await setUp(t, (request, response) => void request.on('end', () => response.end('ok')));
  const socket = await dial(path.port);
  socket.write(`POST ${url} HTTP/1.1\r\n${host}Content-Length: 100\r\n\r\nhalf`);
  while (origin.requests.length === 0 || origin.requests[0]?.body !== 'half') await new Promise(setImmediate);
  socket.destroy();
  while (!path.events.some(({ kind }) => kind === 'outcome')) await new Promise(setImmediate);
  t.match(path.events.at(-1), { kind: 'outcome', outcome: { fault: 'client_closed', requestBodyBytes: 4 } });
});

t.test('pipelined requests are each judged and answered in order', async (t) => {
  const { origin, path } = await setUp(t);
  const answer = await send(
    path,
    `GET ${url}/1 HTTP/1.1\r\n${host}\r\nGET ${url}/2 HTTP/1.1\r\nHost: other.outrider.test\r\n\r\nGET ${url}/3 HTTP/1.1\r\n${host}Connection: close\r\n\r\n`,
  );
  t.same(answer.match(/HTTP\/1\.1 \d+/g)?.slice(0, 2), ['HTTP/1.1 200', 'HTTP/1.1 421']);
  t.ok(origin.requests.length <= 2);
  t.notOk(origin.requests.some(({ url: seen }) => seen === '/x/2'));
});

t.test('a chunk extension is bounded, none is passed on, and trailers are bounded too', async (t) => {
  const { origin, path } = await setUp(t, (request, response) => void request.on('end', () => response.end('ok')).resume());
  const chunked = (body: string): Promise<string> => send(path, `POST ${url} HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n${body}`);
  t.match(await chunked(`5;${'x'.repeat(64 * 1024)}\r\nhello\r\n0\r\n\r\n${smuggled}`), /^HTTP\/1\.1 400 [^]*"code":"framing_invalid"/);
  const many = await dial(path.port);
  const small = '1;x=y\r\na\r\n'.repeat(20_000);
  t.match(
    await exchange(many, `POST ${url} HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n${small}0\r\n\r\n`, (text) =>
      text.includes('ok'),
    ),
    /^HTTP\/1\.1 200 /,
    'many small ones',
  );
  many.destroy();
  t.match(await chunked(`1\r\na\r\n0\r\n${'X: y\r\n'.repeat(20_000)}\r\n`), /^HTTP\/1\.1 4(?:00|31) /, 'trailers');
  t.match(await chunked(`1\r\na\r\n0\r\nContent-Length: 5\r\n\r\nhello${smuggled}`), /^HTTP\/1\.1 400 /, 'a trailer that frames');
  t.notMatch(origin.raw().join(), /smuggled|;x|x=y/);
});

/** THREATS F-12. OUTRIDER_SEED repeats a run. */
t.test(
  'of twenty requests on one connection, good and bad in any order, the target sees the good ones before the first bad one',
  async (t) => {
    const seed = Number(process.env['OUTRIDER_SEED'] ?? Date.now() % 2 ** 31);
    t.comment(`OUTRIDER_SEED=${seed}`);
    let state = seed;
    const below = (n: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
      return Math.floor((state / 0x80000000) * n);
    };
    const { origin, path } = await setUp(
      t,
      (request, response) => void request.on('end', () => response.end(`answer ${request.url}`)).resume(),
    );
    const good = [
      (at: string) => `GET ${at} HTTP/1.1\r\n${host}\r\n`,
      (at: string) => `POST ${at} HTTP/1.1\r\n${host}Content-Length: 5\r\n\r\nhello`,
      (at: string) => `PUT ${at} HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
      (at: string) => `DELETE ${at} HTTP/1.1\r\n${host}Content-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
      (at: string) =>
        `GET ${at} HTTP/1.1\r\n${host}Transfer-Encoding: chunked\r\n\r\n${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`,
    ];
    const bad = [
      (at: string) => `GET ${at} HTTP/1.1\r\nHost: other.outrider.test\r\n\r\n`,
      (at: string) => `POST ${at} HTTP/1.1\r\n${host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      (at: string) => `POST ${at} HTTP/1.1\r\n${host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`,
      (at: string) => `POST ${at} HTTP/1.1\r\n${host}Content-Length: 05\r\n\r\nhello`,
      (at: string) => `GET ${at} HTTP/1.1\r\n${host}${host}\r\n`,
      (at: string) => `GET ${at} HTTP/1.1\r\n${host}Connection: authorization\r\n\r\n`,
      () => 'garbage\r\n\r\n',
    ];
    for (let round = 0; round < 150; round += 1) {
      const before = origin.requests.length;
      const firstBad = below(20);
      const bytes: string[] = [];
      for (let i = 0; i < 20; i += 1) {
        const kinds = i === firstBad || (i > firstBad && below(3) === 0) ? bad : good;
        bytes.push((kinds[below(kinds.length)] as (at: string) => string)(`${url}/${round}/${i}`));
      }
      // In one piece, or cut anywhere.
      const socket = await dial(path.port);
      const answer = exchange(socket, '');
      for (let rest = bytes.join(''); rest !== '' && socket.writable; ) {
        const length = below(4) === 0 ? rest.length : 1 + below(400);
        socket.write(rest.slice(0, length));
        rest = rest.slice(length);
        await new Promise(setImmediate);
      }
      const text = await answer;
      const seen = origin.requests.slice(before).map(({ url: at }) => at);
      const wanted = Array.from({ length: firstBad }, (_, i) => `/x/${round}/${i}`);
      const answers = [...text.matchAll(/answer (\S+?)(?=HTTP|\r|$)/g)].map(([, at]) => at);
      if (JSON.stringify([seen, answers]) !== JSON.stringify([wanted, wanted]))
        t.fail(`seed ${seed}: ${seen.join()} ${answers.join()} for ${bytes.join('')}`);
    }
    t.equal(path.events.filter(({ kind }) => kind === 'intent').length, origin.requests.length);
    t.notMatch(origin.requests.map(({ url: at }) => at).join(), /smuggled/);
  },
);
