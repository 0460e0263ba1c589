/** What a batch must be to be recorded. */
import t from 'tap';
import { refusalOf } from '../../src/collector/accept.ts';
import { limits } from '../../src/core/limits.ts';
import { event, eventsFrom, workload } from './events.ts';

const reasonOf = (...args: Parameters<typeof refusalOf>): string | undefined => refusalOf(...args)?.reason;

t.test('a batch of its sender, in order, is taken; gaps in it too, and a batch without events', async (t) => {
  t.equal(refusalOf(workload, 'boot-1', eventsFrom(1, 200)), undefined);
  t.equal(refusalOf(workload, 'boot-1', [event(3), event(9)]), undefined);
  t.equal(refusalOf(workload, 'boot-1', []), undefined);
});

t.test('an event that names another workload than its sender is refused, whatever its place and kind', async (t) => {
  const other = 'spiffe://outrider.test/ns/demo/sa/other';
  for (const kind of ['intent', 'outcome', 'refusal', 'pass', 'loss'] as const) {
    t.equal(reasonOf(workload, 'boot-1', [event(1), event(2, { kind, workload: other })]), 'workload', kind);
  }
  t.notMatch(refusalOf(workload, 'boot-1', [event(1, { workload: other })])?.detail, other, 'its name is not repeated');
});

t.test('without an identity there may be refusals, passes and losses, but no intent and no outcome', async (t) => {
  for (const kind of ['refusal', 'pass', 'loss'] as const)
    t.equal(reasonOf(workload, 'boot-1', [event(1, { kind, workload: '' })]), undefined, kind);
  for (const kind of ['intent', 'outcome'] as const)
    t.equal(reasonOf(workload, 'boot-1', [event(1, { kind, workload: '' })]), 'workload', kind);
});

t.test('sequence numbers rise from 1', async (t) => {
  for (const sequence of [0, -1, 1.5, Number.NaN, 2 ** 53])
    t.equal(reasonOf(workload, 'boot-1', [event(sequence)]), 'sequence', `${sequence}`);
  t.equal(reasonOf(workload, 'boot-1', [event(2), event(2)]), 'sequence');
  t.equal(reasonOf(workload, 'boot-1', [event(2), event(1)]), 'sequence');
});

t.test('a boot id is a short name', async (t) => {
  for (const bootId of ['', 'a b', 'a\nb', '../x', 'x'.repeat(65)])
    t.equal(reasonOf(workload, bootId, [event(1)]), 'boot_id', JSON.stringify(bootId));
});

t.test('a path with a query string, and a field without a bound, are refused: a proxy never writes them', async (t) => {
  t.equal(reasonOf(workload, 'boot-1', [event(1, { path: '/a?token=x' })]), 'field');
  t.equal(reasonOf(workload, 'boot-1', [event(1, { path: '/a#x' })]), 'field');
  const long = 'x'.repeat(limits.eventFieldBytesMax + 1);
  for (const field of ['requestId', 'attestationId', 'target', 'destination', 'scheme', 'method', 'grantId', 'traceId'] as const) {
    t.equal(reasonOf(workload, 'boot-1', [event(1, { [field]: long })]), 'field', field);
  }
  t.equal(reasonOf(workload, 'boot-1', [event(1, { path: `/${long}` })]), 'field');
  t.equal(
    reasonOf(workload, 'boot-1', [event(1, { decision: { verdict: 'deny', policy: '', policyVersion: '', rule: '', reason: long } })]),
    'field',
  );
  const credential = { providerKind: '', provider: '', placement: '', fingerprint: long };
  t.equal(reasonOf(workload, 'boot-1', [event(1, { credentials: [credential] })]), 'field');
  const many = Array.from({ length: limits.eventCredentialsMax + 1 }, () => ({ ...credential, fingerprint: '' }));
  t.equal(reasonOf(workload, 'boot-1', [event(1, { credentials: many })]), 'field');
});
