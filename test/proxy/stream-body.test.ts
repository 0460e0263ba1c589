import { PassThrough } from 'node:stream';
import t from 'tap';
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
