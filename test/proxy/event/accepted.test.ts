import fc from 'fast-check';
import t from 'tap';
import { refusalOf } from '../../../src/collector/accept.ts';
import type { AccessEventDraft } from '../../../src/core/access-event.ts';
import { numbered } from '../../../src/proxy/event/entry.ts';
import { eventBatchBytes, eventBatchOf } from '../../../src/rpc/wire.ts';

/** An event that the collector refuses stays at the head of the proxy's queue: whatever a program sends, none may be made. */
const workload = 'spiffe://outrider.test/ns/demo/sa/demo-app';
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 3_000 }),
  fc.constantFrom('', '/a?b', '/a#b', '/#?', '\u0000', '\ud800', '/a\r\nb'),
);
const number = fc.oneof(fc.double(), fc.integer(), fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, -1, 2 ** 60));

const draft: fc.Arbitrary<AccessEventDraft> = fc.record({
  kind: fc.constantFrom('intent', 'outcome', 'refusal', 'pass', 'loss'),
  timeMs: number,
  requestId: text,
  workload: fc.constant(workload),
  attestationId: text,
  target: text,
  destination: text,
  scheme: text,
  method: text,
  path: text,
  decision: fc.option(
    fc.record({ verdict: fc.constantFrom('allow', 'deny', 'pass'), policy: text, policyVersion: text, rule: text, reason: text }),
    { nil: undefined },
  ),
  grantId: text,
  credentials: fc.array(fc.record({ providerKind: text, provider: text, placement: text, fingerprint: text }), { maxLength: 40 }),
  outcome: fc.option(
    fc.record({
      status: number,
      fault: text,
      requestBodyBytes: number,
      responseBodyBytes: number,
      durationMs: number,
      timeToFirstByteMs: number,
      echoes: number,
    }),
    { nil: undefined },
  ),
  traceId: text,
  lostCount: number,
  attempt: number,
});

t.test('no event that the proxy queues is one that the collector refuses', async (t) => {
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(draft, (one) => {
      // Over the wire, as it would travel: the reader at the other end is strict, too.
      const { events } = eventBatchOf(eventBatchBytes({ bootId: 'boot', events: [numbered(one, 1)] }));
      const refusal = refusalOf(workload, 'boot', events);
      if (refusal) throw new Error(`${refusal.reason}: ${refusal.detail}`);
    }),
    { seed, numRuns: 1_000 },
  );
  t.match(numbered({ ...fc.sample(draft, { seed, numRuns: 1 })[0], path: '/a#b?c' } as AccessEventDraft, 1), { path: '/a' });
});
