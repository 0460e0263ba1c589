import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { hostOfHead, httpStart } from '../../src/proxy/listener/http-head.ts';
import { peek, type Sniffed, sniff } from '../../src/proxy/listener/sniff.ts';

const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

t.test('the first line says HTTP/1, HTTP/2 or neither, and never sooner than it is there', async (t) => {
  for (const [text, expected] of [
    ['GET / HTTP/1.1\r\n', 'http1'],
    ['GET / HTTP/1.0\n', 'http1'],
    ['\r\n\r\nGET / HTTP/1.1\r\n', 'http1'],
    ['M-SEARCH * HTTP/1.1\r\n', 'http1'],
    // Malformed, and the engine's to say so.
    ['GET /a b HTTP/1.1\r\n', 'http1'],
    ['get / HTTP/1.9\r\n', 'http1'],
    [preface, 'h2'],
    ['EHLO mail.example.com\r\n', 'other'],
    ['GET /\r\n', 'other'],
    ['GET / HTTP/2.0\r\n', 'other'],
    ['SSH-2.0-OpenSSH_9.9\r\n', 'other'],
    ['*1\r\n$4\r\nPING\r\n', 'other'],
    ['PRI * HTTP/2.0\r\nHost: x\r\n', 'other'],
    ['\x00\x00\x00\x08\x04\xd2\x16\x2f', 'other'],
    [' GET / HTTP/1.1\r\n', 'other'],
    [`${'A'.repeat(33)} / HTTP/1.1\r\n`, 'other'],
  ] as const) {
    t.equal(httpStart(Buffer.from(text, 'latin1')), expected, JSON.stringify(text));
    if (expected === 'other') continue;
    for (let end = 0; end < text.length - 1; end += 1) {
      const soFar = httpStart(Buffer.from(text.slice(0, end), 'latin1'));
      if (soFar !== 'more') t.fail(`${soFar} after ${JSON.stringify(text.slice(0, end))}`);
    }
  }
});

t.test('a request line without an end is HTTP/1 when it is longer than any may be', async (t) => {
  t.equal(httpStart(Buffer.from(`GET /${'a'.repeat(limits.requestTargetBytesMax)}`)), 'more');
  t.equal(httpStart(Buffer.from(`GET /${'a'.repeat(limits.requestTargetBytesMax + 100)}`)), 'http1');
});

t.test('a head has a host when there is one way to read it', async (t) => {
  const head = (...lines: readonly string[]): string => [...lines, '', ''].join('\r\n');
  for (const [text, host] of [
    [head('GET / HTTP/1.1', 'Host: api.example.com'), 'api.example.com'],
    [head('GET / HTTP/1.1', 'Accept: */*', 'hOST:\t API.example.com:8080 ', 'X: y'), 'api.example.com'],
    [`\r\n${head('OPTIONS * HTTP/1.1', 'Host: api.example.com.')}`, 'api.example.com'],
    [`${head('POST / HTTP/1.0', 'Host: [2001:DB8::1]:80')}body: Host: other`, '2001:db8::1'],
    [head('GET / HTTP/1.1'), undefined],
    [head('GET / HTTP/1.1', 'Host:'), undefined],
    [head('GET / HTTP/1.1', 'Host: a.example', 'Host: a.example'), undefined],
    [head('GET / HTTP/1.1', 'Host: a.example, b.example'), undefined],
    [head('GET / HTTP/1.1', 'Host: user@a.example'), undefined],
    [head('GET / HTTP/1.1', 'Host: a.example', ' folded'), undefined],
    [head('GET / HTTP/1.1', 'Host : a.example'), undefined],
    [head('GET / HTTP/1.1', 'Host: a.example\rHost: b.example'), undefined],
    [head('GET / HTTP/1.1', 'X: y\nHost: b.example', 'Host: a.example'), undefined],
    // These ask a proxy that somebody has put there: they are not for a target, whatever they name.
    [head('GET http://a.example/ HTTP/1.1', 'Host: a.example'), undefined],
    [head('CONNECT a.example:443 HTTP/1.1', 'Host: a.example'), undefined],
    [head('GET /a b HTTP/1.1', 'Host: a.example'), undefined],
    [head('GET / HTTP/2.0', 'Host: a.example'), undefined],
    [`GET / HTTP/1.1\r\n${'X: y\r\n'.repeat(10_000)}`, undefined],
  ] as const) {
    t.strictSame(hostOfHead(Buffer.from(text, 'latin1')), { host }, JSON.stringify(text.slice(0, 80)));
  }
  const whole = head('GET / HTTP/1.1', 'Host: api.example.com');
  for (let end = 0; end < whole.length; end += 1) {
    if (hostOfHead(Buffer.from(whole.slice(0, end))) !== 'more') t.fail(`not whole after ${end} bytes`);
  }
});

interface Pair {
  readonly client: Socket;
  readonly server: Socket;
}

const pair = async (t: Test): Promise<Pair> => {
  const listener = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const client = connect({ port: (listener.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
  const [server] = (await once(listener, 'connection')) as [Socket];
  for (const socket of [client, server]) {
    socket.on('error', () => undefined);
    t.teardown(() => socket.destroy());
  }
  t.teardown(() => listener.close());
  return { client, server };
};

const readAll = async (socket: Socket): Promise<string> => {
  let text = '';
  socket.setEncoding('latin1');
  for await (const chunk of socket) text += chunk as string;
  return text;
};

const long = 10_000;
const short = 20;

t.test('what is sniffed stays in the socket, in whatever pieces it comes, and however often it is looked at', async (t) => {
  for (const [text, expected] of [
    ['\x16\x03\x01\x00\x05', 'tls'],
    ['GET / HTTP/1.1\r\nHost: a\r\n\r\n', 'http1'],
    [`${preface}and frames`, 'h2'],
    ['EHLO mail.example.com\r\n', 'other'],
  ] as const) {
    for (const how of ['at once', 'as a head and the rest', 'byte by byte']) {
      const { client, server } = await pair(t);
      const bytes = Buffer.from(text, 'latin1');
      const head = how === 'as a head and the rest' ? bytes.subarray(0, 3) : Buffer.alloc(0);
      const found = sniff(server, head, long);
      const pieces = how === 'byte by byte' ? [...bytes].map((byte) => Buffer.from([byte])) : [bytes.subarray(head.length)];
      for (const piece of pieces) await new Promise((resolve) => client.write(piece, resolve));
      client.end();
      t.equal(await found, expected, `${JSON.stringify(text)} ${how}`);
      t.equal(await sniff(server, Buffer.alloc(0), long), expected, 'again');
      t.equal(await readAll(server), text);
    }
  }
});

t.test('a silent connection, one that is gone and one that never ends its line are told apart', async (t) => {
  const start = async (act: (pair: Pair) => void, timeoutMs: number): Promise<Sniffed> => {
    const made = await pair(t);
    act(made);
    return sniff(made.server, Buffer.alloc(0), timeoutMs);
  };
  t.equal(await start(() => undefined, short), 'silent');
  t.equal(await start(({ client }) => client.end(), long), 'gone');
  t.equal(await start(({ client }) => client.destroy(), long), 'gone');
  t.equal(await start(({ server }) => server.destroy(), long), 'gone');
  t.equal(await start(({ client }) => client.write('GET /unfinished'), 5 * short), 'http1', 'the engine answers it');
});

t.test('bytes that cannot be put back, because the program has closed its side, are handed back', async (t) => {
  const { client, server } = await pair(t);
  const bounds = { silenceMs: long, headMs: long, bytesMax: 100 };
  const peeked = peek(server, Buffer.alloc(0), bounds, () => 'more' as const);
  client.end('too short');
  t.match(await peeked, { found: undefined, bytes: 9, isEnded: true, rest: Buffer.from('too short') });
});

t.test('a look ends at its bound of bytes, and leaves them', async (t) => {
  const { client, server } = await pair(t);
  const bounds = { silenceMs: long, headMs: long, bytesMax: 1_000 };
  const peeked = peek(server, Buffer.alloc(0), bounds, () => 'more' as const);
  client.end('x'.repeat(5_000));
  const { found, isEnded, rest } = await peeked;
  t.strictSame({ found, isEnded, rest: rest.length }, { found: undefined, isEnded: false, rest: 0 });
  t.equal((await readAll(server)).length, 5_000);
});
