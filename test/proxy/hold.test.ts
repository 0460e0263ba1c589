/** hold: bodies that a placement needs whole, within bounds for one and for all. */
import t from 'tap';
import { createBudget } from '../../src/core/budget.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import type { Authorized, BodySource } from '../../src/proxy/exchange.ts';
import { hold } from '../../src/proxy/hold.ts';

const bodyOf = (chunks: readonly Uint8Array[], broken?: Fault): BodySource => ({
  chunks: {
    async *[Symbol.asyncIterator]() {
      yield* chunks;
      if (broken) throw broken;
    },
  },
  bytes: () => chunks.reduce((sum, { length }) => sum + length, 0),
  trailers: () => [['x-sum', '1']],
});

const asking = (body: BodySource | undefined): Authorized => ({ id: 'r1', body }) as unknown as Authorized;
const read = async (body: BodySource | undefined): Promise<string> => {
  const parts: Uint8Array[] = [];
  for await (const chunk of body?.chunks ?? []) parts.push(chunk);
  return Buffer.concat(parts).toString();
};

t.test('the whole body is at hand, can be read again, and keeps its trailers', async (t) => {
  const budget = createBudget(100);
  const { body } = await hold(asking(bodyOf([Buffer.from('one '), Buffer.from('two')])), budget);
  t.equal(Buffer.from(body?.held as Uint8Array).toString(), 'one two');
  t.equal(await read(body), 'one two');
  t.equal(await read(body), 'one two', 'a second time');
  t.strictSame(body?.trailers(), [['x-sum', '1']]);
  t.equal(body?.bytes(), 7);
  t.equal(budget.used(), 7);
  body?.release?.();
  body?.release?.();
  t.equal(budget.used(), 0, 'given back once');
});

t.test('a request without a body holds nothing, and an empty body is one', async (t) => {
  const budget = createBudget(1);
  t.equal((await hold(asking(undefined), budget)).body, undefined);
  const { body } = await hold(asking(bodyOf([])), budget);
  t.equal(body?.held?.length, 0);
  t.equal(await read(body), '');
});

t.test('a body above the bound is refused as soon as it is, and gives back what it took', async (t) => {
  const budget = createBudget(10 * limits.heldBodyBytesMax);
  const half = Buffer.alloc(limits.heldBodyBytesMax / 2);
  t.equal((await hold(asking(bodyOf([half, half])), budget)).body?.held?.length, limits.heldBodyBytesMax, 'the bound itself fits');
  const before = budget.used();
  await t.rejects(hold(asking(bodyOf([half, half, Buffer.from('x')])), budget), { code: 'body_too_large' });
  t.equal(budget.used(), before);
});

t.test('when all together is too much the request is refused for now', async (t) => {
  const budget = createBudget(5);
  await t.rejects(hold(asking(bodyOf([Buffer.from('abc'), Buffer.from('def')])), budget), { code: 'overloaded' });
  t.equal(budget.used(), 0);
});

t.test('a body that breaks off is the fault it breaks off with', async (t) => {
  const budget = createBudget(100);
  await t.rejects(hold(asking(bodyOf([Buffer.from('abc')], new Fault('client_closed'))), budget), { code: 'client_closed' });
  t.equal(budget.used(), 0);
});
