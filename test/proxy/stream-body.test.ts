import { PassThrough } from 'node:stream';
import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import { StreamBody } from '../../src/proxy/listener/stream-body.ts';

/** Whoever reads a body takes `done` for its end, and ends the request to the target there: only a whole body may say it (THREATS F-5). */
const bodyOf = () => {
  const stream = new PassThrough();
  let isWhole = false;
  stream.once('end', () => (isWhole = true));
  const body = new StreamBody({
    stream,
    isComplete: () => isWhole,
    trailers: () => [],
    idleMs: 60_000,
    mayPause: () => true,
    onFirstRead: () => undefined,
  });
  return { stream, body };
};

t.test('a whole body ends', async (t) => {
  const { stream, body } = bodyOf();
  const chunks: string[] = [];
  stream.write('he');
  setImmediate(() => stream.end('llo'));
  for await (const chunk of body.chunks) chunks.push(Buffer.from(chunk).toString());
  t.same(chunks, ['he', 'llo']);
});

t.test('a read that waits when nobody wants the rest any more is refused, and not told that the body has ended', async (t) => {
  const { stream, body } = bodyOf();
  stream.write('he');
  t.same(await body.next(), { done: false, value: Buffer.from('he') });
  const waits = body.next();
  await body.return();
  await t.rejects(waits, { code: 'client_closed' });
  await t.rejects(body.next(), { code: 'client_closed' }, 'and so is whoever reads on');
});

t.test('however much has come, it is given on in pieces that a connection can hold', async (t) => {
  const { stream, body } = bodyOf();
  const sent = Buffer.alloc(3 * limits.bodyPieceBytesMax + 1, 'abc');
  // As HTTP/2 delivers it: frame by frame, past every mark, until the window is full.
  for (let at = 0; at < sent.length; at += 16 * 1024) stream.push(sent.subarray(at, at + 16 * 1024));
  stream.push(null);
  const pieces: Uint8Array[] = [];
  for await (const piece of body.chunks) pieces.push(piece);
  t.ok(
    pieces.every(({ length }) => length <= limits.bodyPieceBytesMax),
    `pieces of ${pieces.map(({ length }) => length).join(', ')} bytes`,
  );
  t.ok(Buffer.concat(pieces).equals(sent));
  t.equal(body.bytes(), sent.length);
});

t.test('after its end, letting go of a body changes nothing', async (t) => {
  const { stream, body } = bodyOf();
  stream.end();
  t.same(await body.next(), { done: true, value: undefined });
  await body.return();
  t.same(await body.next(), { done: true, value: undefined });
});

for (const [when, isRead] of [
  ['before anybody reads it', false],
  ['while it is read', true],
] as const)
  t.test(`a body that has come whole and whose program leaves ${when} is broken off, and nobody waits for it`, async (t) => {
    const stream = new PassThrough();
    const body = new StreamBody({
      stream,
      isComplete: () => true,
      trailers: () => [],
      idleMs: 60_000,
      mayPause: () => false,
      onFirstRead: () => undefined,
    });
    stream.write('he');
    if (isRead) {
      await body.next();
      const waits = body.next();
      stream.destroy();
      await t.rejects(waits, { code: 'client_closed' });
    } else {
      stream.destroy();
      await t.rejects(body.next(), { code: 'client_closed' });
    }
  });
