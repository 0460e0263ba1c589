/** How an answer's body leaves towards a program of HTTP/1: whole and unchanged, whatever its size, bytes and framing, and together with its head when it is short. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { dial, startPath, target } from '../support/path.ts';

const authority = createTestAuthority();
const host = 'echo.outrider.test';
const pathTo = async (t: Test, answer: Parameters<typeof startRecorder>[1]) => {
  const origin = await startRecorder(authority.serverFor(host), answer);
  t.teardown(() => origin.close());
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo')],
    pins: [{ host, port: 80, address: '127.0.0.1', addressPort: origin.httpPort }],
    trustPem: authority.pem,
  });
  t.teardown(() => path.close());
  return path;
};

const everyByte = (size: number): Buffer => Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i * 31 + (i >> 8)) & 0xff));
const hash = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Everything that the program gets until the proxy closes. */
const answerTo = async (port: number, request: string): Promise<Buffer> => {
  const socket = await dial(port);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.write(request);
  await once(socket, 'close');
  return Buffer.concat(chunks);
};

const bodyOf = (answer: Buffer): { head: string; body: Buffer } => {
  const end = answer.indexOf('\r\n\r\n');
  return { head: answer.toString('latin1', 0, end), body: answer.subarray(end + 4) };
};

const unchunked = (body: Buffer): Buffer => {
  const chunks: Buffer[] = [];
  for (let at = 0; ; ) {
    const line = body.indexOf('\r\n', at);
    const size = Number.parseInt(body.toString('latin1', at, line), 16);
    if (size === 0) return Buffer.concat(chunks);
    chunks.push(body.subarray(line + 2, line + 2 + size));
    at = line + 2 + size + 2;
  }
};

t.test(
  'bodies of every byte and of sizes around what is held with the head arrive unchanged, with a length, in chunks and to the end',
  async (t) => {
    const path = await pathTo(t, (request, response) => {
      const body = everyByte(Number(new URL(request.url as string, 'http://x').searchParams.get('size')));
      // A field above ASCII, which must not become UTF-8 on the way.
      response.setHeader('X-Name', 'caf\u00e9');
      if (request.url?.startsWith('/length')) response.setHeader('Content-Length', body.length);
      response.end(body);
    });
    for (const size of [0, 1, 255, 4_096, 8_191, 8_192, 8_193, 65_535, 65_537, 300_000])
      for (const [form, version] of [
        ['length', '1.1'],
        ['chunked', '1.1'],
        ['chunked', '1.0'],
      ] as const) {
        const answer = await answerTo(
          path.port,
          `GET http://${host}/${form}?size=${size} HTTP/${version}\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
        );
        const { head, body } = bodyOf(answer);
        const what = `${size} B, ${form}, HTTP/${version}`;
        t.match(head, /^HTTP\/1\.1 200 OK\r\n/, what);
        t.match(head, /x-name: caf\u00e9(?:\r\n|$)/i, what);
        t.equal(hash(/transfer-encoding: chunked/i.test(head) ? unchunked(body) : body), hash(everyByte(size)), what);
      }
  },
);

t.test('a short answer comes in one piece, head and body', async (t) => {
  const path = await pathTo(t, (_request, response) => void response.writeHead(200, { 'Content-Length': 1_024 }).end('x'.repeat(1_024)));
  const socket = await dial(path.port);
  for (let i = 0; i < 3; i += 1) {
    const arrived = once(socket, 'data') as Promise<[Buffer]>;
    socket.write(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    t.equal(bodyOf((await arrived)[0]).body.length, 1_024);
  }
  socket.destroy();
});

t.test('the first bytes of a body do not wait for the next ones', async (t) => {
  let more: () => void = () => undefined;
  const path = await pathTo(t, (_request, response) => {
    response.write('first');
    more = () => response.end('second');
  });
  const socket = await dial(path.port);
  let text = '';
  const until = async (part: string): Promise<void> => {
    while (!text.includes(part)) text += String((await once(socket, 'data'))[0]);
  };
  socket.write(`GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
  await until('first');
  t.notMatch(text, 'second');
  more();
  await until('second');
  socket.destroy();
});
