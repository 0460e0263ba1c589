/** Fields of access events: bounded, distinguishable, encodable (THREATS R-5). */
import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import t from 'tap';
import { numbered } from '../../../src/proxy/event/entry.ts';
import { boundedField } from '../../../src/proxy/event/field.ts';
import { eventBatchBytes, eventBatchOf } from '../../../src/rpc/wire.ts';
import { draft } from './fakes.ts';

const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
t.comment(`seed ${seed}`);

const anyText = fc.string({ unit: 'binary', maxLength: 900 });

t.test('a value within the bound is kept as it is', async (t) => {
  t.equal(boundedField('/hello', 128), '/hello');
  t.equal(boundedField('x'.repeat(128), 128), 'x'.repeat(128));
  t.equal(boundedField('é'.repeat(64), 128), 'é'.repeat(64));
  t.equal(boundedField('\r\n\u001b[31m\u202e', 128), '\r\n\u001b[31m\u202e');
});

t.test('a longer value keeps its beginning and says how much was cut and what its hash was', async (t) => {
  const value = `/${'a'.repeat(5000)}/end`;
  const field = boundedField(value, 1024);
  const match = /^(\/a+) \[(\d+) more bytes, sha256 ([0-9a-f]{64})\]$/.exec(field);
  t.ok(match);
  const [, beginning = '', count, hash] = match ?? [];
  const rest = value.slice(beginning.length);
  t.equal(Number(count), rest.length);
  t.equal(hash, createHash('sha256').update(rest).digest('hex'));
  t.ok(Buffer.byteLength(field) > 1000, 'little of the bound is wasted');
});

t.test('whatever the value: never longer than the bound, the same when bounded again, and cut to what is well-formed', async (t) => {
  fc.assert(
    fc.property(anyText, fc.integer({ min: 128, max: 700 }), (value, max) => {
      const field = boundedField(value, max);
      if (Buffer.byteLength(value) <= max) return field === value;
      return Buffer.byteLength(field) <= max && field.isWellFormed() && boundedField(field, max) === field;
    }),
    { seed, numRuns: 5000 },
  );
  t.pass();
});

t.test('two long values that differ anywhere stay different', async (t) => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme', minLength: 200, maxLength: 400 }),
      fc.nat(),
      fc.constantFrom('a', 'é', '語', '🐎'),
      (value, at, other) => {
        const chars = Array.from(value);
        const i = at % chars.length;
        fc.pre(chars[i] !== other);
        const changed = chars.with(i, other).join('');
        return boundedField(value, 160) !== boundedField(changed, 160);
      },
    ),
    { seed, numRuns: 3000 },
  );
  t.pass();
});

t.test('a character is never cut in two', async (t) => {
  for (let pad = 0; pad < 8; pad += 1) {
    const field = boundedField(`${'x'.repeat(pad)}${'🐎'.repeat(200)}`, 200);
    t.notMatch(field, /\ufffd/);
    t.ok(Buffer.byteLength(field) <= 200);
  }
});

t.test('a lone surrogate, which UTF-8 cannot carry, stops no batch: it arrives as U+FFFD', async (t) => {
  const event = numbered(draft({ path: '/a\ud800b' }), 1);
  const { events } = eventBatchOf(eventBatchBytes({ bootId: 'boot-1', events: [event] }));
  t.equal(events[0]?.path, '/a\ufffdb');
});
