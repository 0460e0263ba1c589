/**
 * Events as the proxy writes them, against the schema that the collector reads them by. test/rpc/wire.test.ts sends generated events both
 * ways; here is what the writer does besides: it writes once what events have in common, and lengths before it knows them.
 */
import { strict as assert } from 'node:assert';
import { create, toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import t from 'tap';
import type { AccessEvent } from '../../src/core/access-event.ts';
import { limits } from '../../src/core/limits.ts';
import { RecordRequestSchema } from '../../src/proto/gen/outrider/v1/events_pb.js';
import { eventBatchBytes, eventBatchOf } from '../../src/rpc/wire.ts';
import { draft, outcomeOf } from '../proxy/event/fakes.ts';

const numbered = (fields: Parameters<typeof draft>[0], sequence: number): AccessEvent => ({ ...draft(fields), sequence });
const back = (events: readonly AccessEvent[]): readonly AccessEvent[] => eventBatchOf(eventBatchBytes({ bootId: 'boot', events })).events;

t.test('requests of several workloads, targets, grants and rules keep their own, in whatever order they come', async (t) => {
  const seed = fc.sample(fc.nat(), 1)[0] as number;
  t.comment(`seed ${seed}`);
  const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }) => fc.record(model, { noNullPrototype: true });
  const few = (...values: readonly string[]) => fc.constantFrom(...values);
  const uses = [
    [],
    [{ providerKind: 'jwt', provider: 'a', placement: 'bearer', fingerprint: '1' }],
    [{ providerKind: 'jwt', provider: 'b', placement: 'basic', fingerprint: '2' }],
  ];
  const event = record({
    workload: few('spiffe://a', 'spiffe://b'),
    attestationId: few('1', '2'),
    target: few('', 'echo', 'other'),
    destination: few('', 'a.test:443', 'b.test:443'),
    scheme: few('http', 'https'),
    grantId: few('', 'g1', 'g2'),
    credentials: fc.constantFrom(...uses),
    decision: fc.option(
      record({
        verdict: fc.constantFrom('allow' as const, 'deny' as const),
        policy: few('', 'p'),
        policyVersion: few('1', '2'),
        rule: few('r', 's'),
        reason: few('', 'because'),
      }),
      { nil: undefined },
    ),
  });
  fc.assert(
    fc.property(fc.array(event, { minLength: 1, maxLength: 30 }), (list) => {
      const events = list.map((fields, i) => numbered(fields, i + 1));
      assert.deepEqual(back(events), events);
    }),
    { seed },
  );
});

t.test('texts come back whole at every length where the length itself grows, in ASCII and beyond it', async (t) => {
  for (const unit of ['a', 'é', '€', '😀'])
    for (const length of [0, 1, 31, 32, 42, 43, 47, 48, 49, 63, 64, 126, 127, 128, 129, 300, 8_191, 5_461, 5_462, 5_463]) {
      if (1 + length * unit.length > limits.wireTextBytesMax) continue;
      const path = `/${unit.repeat(length)}`;
      const events = [numbered({ path, traceId: path, scheme: path }, 1), numbered({ path: '/after' }, 2)];
      assert.deepEqual(back(events), events, `${length} × ${unit}`);
    }
  t.pass('all of them');
});

t.test('a lone surrogate becomes U+FFFD and what follows is in place', async (t) => {
  const [first, second] = back([numbered({ path: '/\ud800x', method: 'GET' }, 1), numbered({ path: '/next' }, 2)]);
  t.equal(first?.path, '/\ufffdx');
  t.equal(second?.path, '/next');
});

t.test('a batch larger than the room there is at first grows it, and the next one is none the worse', async (t) => {
  const events = Array.from({ length: 400 }, (_, i) => outcome(i + 1));
  t.same(back(events), events);
  t.same(back(events.slice(0, 2)), events.slice(0, 2));
});

t.test('bytes of one batch are its own: the next does not write into them', async (t) => {
  const one = eventBatchBytes({ bootId: 'boot', events: [outcome(1)] });
  const copy = Buffer.from(one);
  eventBatchBytes({ bootId: 'other', events: [outcome(2), outcome(3)] });
  t.same(one, copy);
});

t.test('the fields that are not set are not written, as the schema has it', async (t) => {
  const bytes = eventBatchBytes({ bootId: 'b', events: [] });
  t.same(bytes, Buffer.from(toBinary(RecordRequestSchema, create(RecordRequestSchema, { bootId: 'b' }))));
});

t.test('a count that is none is a bug, and says so before anything is sent', async (t) => {
  for (const sequence of [-1, 1.5, Number.NaN, 2 ** 53])
    t.throws(() => eventBatchBytes({ bootId: 'boot', events: [{ ...outcome(1), sequence }] }), { name: 'AssertionError' });
  t.same(back([outcome(1)]), [outcome(1)]);
});

const outcome = (sequence: number): AccessEvent => ({ ...outcomeOf(draft({ requestId: `request ${sequence}` })), sequence });
