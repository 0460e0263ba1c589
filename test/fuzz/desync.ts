/**
 * The desync oracle (THREATS 4.2): for any bytes a program sends, the origin sees only requests that have an intent, each at most
 * once, each with the one credential. OUTRIDER_SEED repeats a run. Inputs are heads and bodies put together from pieces that parsers disagree about.
 */
import { once } from 'node:events';
import fc from 'fast-check';
import type { Test } from 'tap';
import { createTestAuthority } from '../support/certificates.ts';
import { dial, startPath, target } from '../support/path.ts';

export const host = 'echo.outrider.test';
const smuggledMark = 'smuggled';

const mostly = (usual: readonly string[], odd: readonly string[]): fc.Arbitrary<string> =>
  fc.oneof({ weight: 12, arbitrary: fc.constantFrom(...usual) }, { weight: 1, arbitrary: fc.constantFrom(...odd) });

const piece = {
  method: mostly(['GET', 'POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS'], ['get', 'POST\t', 'TRACE']),
  version: mostly(['HTTP/1.1'], ['HTTP/1.0', 'HTTP/1.2', 'HTTP/0.9', 'http/1.1']),
  lineEnd: mostly(['\r\n'], ['\n', '\r', '\r\r\n', '\n\r']),
  field: fc.constantFrom(
    'Content-Length: 5',
    'Content-Length: 0',
    'Content-Length: 44',
    'Content-Length: 05',
    'Content-Length: +5',
    'Content-Length: 5,5',
    'Content-Length : 5',
    'content_length: 5',
    'Transfer-Encoding: chunked',
    'Transfer-Encoding: Chunked',
    'Transfer-Encoding: identity',
    'Transfer-Encoding: gzip, chunked',
    'Transfer-Encoding:\u000bchunked',
    'Transfer-Encoding: chunked\u0000',
    'Transfer-Encoding\u0020: chunked',
    ' Transfer-Encoding: chunked',
    'X: y\r\n Transfer-Encoding: chunked',
    'X: y\nTransfer-Encoding: chunked',
    'X: y\rTransfer-Encoding: chunked',
    'Connection: keep-alive',
    'Connection: content-length',
    'Connection: transfer-encoding, close',
    'Connection: upgrade\r\nUpgrade: h2c',
    'Expect: 100-continue',
    'Authorization: Bearer theirs',
    'authorization : Bearer theirs',
    `X-Original-URL: /${smuggledMark}`,
    ':path: /',
    'Trailer: Authorization',
  ),
  body: fc.constantFrom(
    '',
    'hello',
    '0\r\n\r\n',
    '5\r\nhello\r\n0\r\n\r\n',
    '5;x="\r\nhello\r\n0\r\n\r\n',
    '5 \r\nhello\r\n0\r\n\r\n',
    '0x5\r\nhello\r\n0\r\n\r\n',
    '5\nhello\n0\n\n',
    '5\r\nhello0\r\n\r\n',
    '0\r\nAuthorization: Bearer theirs\r\n\r\n',
    'ffffffffffffffff\r\nhello',
    `GET /${smuggledMark} HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
    `0\r\n\r\nGET /${smuggledMark} HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
    `5\r\nhello\r\n0\r\n\r\nGET http://${host}/${smuggledMark} HTTP/1.1\r\nHost: other.outrider.test\r\n\r\n`,
  ),
};

/** Framing and body that belong together: half of the inputs begin with such a pair, so that many get through. */
const whole: readonly (readonly [field: string, body: string])[] = [
  ['Content-Length: 5', 'hello'],
  ['Content-Length: 0', ''],
  ['Transfer-Encoding: chunked', '5\r\nhello\r\n0\r\n\r\n'],
  ['Transfer-Encoding: chunked', '5;x="\r\nhello\r\n0\r\n\r\n'],
  ['Transfer-Encoding: chunked', '0\r\nAuthorization: Bearer theirs\r\n\r\n'],
  ['Accept: */*', `GET http://${host}/${smuggledMark} HTTP/1.1\r\nHost: other.outrider.test\r\n\r\n`],
];

const input = fc.record({
  start: fc.option(fc.constantFrom(...whole)),
  method: piece.method,
  version: piece.version,
  lineEnd: piece.lineEnd,
  fields: fc.oneof(fc.array(piece.field, { maxLength: 1 }), fc.array(piece.field, { maxLength: 4 })),
  body: piece.body,
});

/** `/n/<i>` names the input, so that what an origin saw can be told apart. */
const bytesOf = (
  i: number,
  { start, method, version, lineEnd, fields, body }: typeof input extends fc.Arbitrary<infer T> ? T : never,
): Buffer =>
  Buffer.from(
    [
      `${method} http://${host}/n/${i} ${version}`,
      `Host: ${host}`,
      ...(start ? [start[0]] : []),
      ...fields,
      '',
      start ? start[1] : body,
    ].join(lineEnd),
    'latin1',
  );

/** Sends and half-closes; resolves when the proxy has closed. */
const send = async (port: number, bytes: Buffer): Promise<void> => {
  const socket = await dial(port);
  socket.on('error', () => undefined);
  socket.resume();
  socket.end(bytes);
  await once(socket, 'close');
};

/** `count` generated inputs through the proxy to an origin on this port; the events of all. */
export const runAll = async (t: Test, dir: string, addressPort: number, count: number) => {
  const authority = createTestAuthority();
  const path = await startPath({
    dir,
    targets: [target('echo')],
    pins: [{ host, port: 80, address: '127.0.0.1', addressPort }],
    trustPem: authority.pem,
  });
  const seed = Number(process.env['OUTRIDER_SEED'] ?? Date.now() % 2 ** 31);
  t.comment(`seed ${seed}`);
  const all = fc.sample(input, { seed, numRuns: count });
  const width = 16;
  let next = 0;
  await Promise.all(
    Array.from({ length: width }, async () => {
      while (next < all.length) {
        const i = next;
        next += 1;
        await send(path.port, bytesOf(i, all[i] as never));
      }
    }),
  );
  await path.close();
  return path.events;
};

export interface SeenRequest {
  readonly path: string;
  /** All of its values, joined by a comma. */
  readonly authorization: string;
}

export const judge = (t: Test, count: number, events: Awaited<ReturnType<typeof runAll>>, seen: readonly SeenRequest[]): void => {
  const intents = new Set(events.filter(({ kind }) => kind === 'intent').map(({ path }) => path));
  const outcomes = events.filter(({ kind }) => kind === 'outcome');
  t.equal(outcomes.length, events.filter(({ kind }) => kind === 'intent').length, 'one outcome for each intent');
  const paths = seen.map(({ path }) => path);
  t.equal(new Set(paths).size, paths.length, 'no request was seen twice');
  for (const path of paths) if (!intents.has(path)) t.fail(`${path} was seen without an intent`);
  for (const { path, authorization } of seen)
    if (authorization !== 'Bearer credential-for-echo') t.fail(`${path} came with ${authorization}`);
  t.ok(paths.length > count / 10, `${paths.length} of ${count} inputs reached the origin`);
  t.ok(paths.length < count * 0.9, 'and others were refused');
};

/**
 * What an origin read as heads, chunk sizes and trailers. A body may hold any words, and part of one arrives before its program breaks off:
 * those bytes are nobody's fields.
 */
export const withoutBodies = (raw: string): string => {
  let rest = raw;
  let kept = '';
  const keep = (length: number): string => {
    const taken = rest.slice(0, length);
    kept += taken;
    rest = rest.slice(length);
    return taken;
  };
  const line = (end: string): string => keep(rest.includes(end) ? rest.indexOf(end) + end.length : rest.length);
  while (rest !== '') {
    const head = line('\r\n\r\n');
    rest = rest.slice(Number(/^content-length: *(\d+)\r$/im.exec(head)?.[1] ?? 0));
    if (!/^transfer-encoding: *chunked\r$/im.test(head)) continue;
    for (let size = Number.parseInt(line('\r\n'), 16); size > 0; size = Number.parseInt(line('\r\n'), 16)) rest = rest.slice(size + 2);
    for (let trailer = line('\r\n'); trailer !== '\r\n' && rest !== ''; ) trailer = line('\r\n');
  }
  return kept;
};
