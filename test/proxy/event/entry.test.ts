/** A draft as it is queued: no query string, nothing an encoder refuses, nothing without a bound. */
import t from 'tap';
import { limits } from '../../../src/core/limits.ts';
import { numbered } from '../../../src/proxy/event/entry.ts';
import { draft, outcomeOf } from './fakes.ts';

t.test('the usual draft is queued as it is, with its number', async (t) => {
  const usual = draft();
  t.same(numbered(usual, 7), { ...usual, sequence: 7 });
  const ended = outcomeOf(usual);
  t.same(numbered(ended, 8), { ...ended, sequence: 8 });
});

t.test('a query string never gets into an event, even if the router should let one through', async (t) => {
  t.equal(numbered(draft({ path: '/search?q=secret' }), 1).path, '/search');
  t.equal(numbered(draft({ path: `/${'a'.repeat(3000)}?q=secret` }), 1).path.includes('secret'), false);
  const names = Object.keys(numbered(outcomeOf(draft()), 1));
  t.notOk(
    names.some((name) => /query|header|body$|credential$|token|secret/i.test(name)),
    `fields: ${names.join(', ')}`,
  );
});

t.test('every text is bounded', async (t) => {
  const long = 'x'.repeat(8000);
  const event = numbered(
    draft({
      requestId: long,
      workload: long,
      attestationId: long,
      target: long,
      destination: long,
      scheme: long,
      method: long,
      path: `/${long}`,
      decision: { verdict: 'deny', policy: long, policyVersion: long, rule: long, reason: long },
      grantId: long,
      credentials: Array.from({ length: 50 }, () => ({ providerKind: long, provider: long, placement: long, fingerprint: long })),
      outcome: { status: 200, fault: long, requestBodyBytes: 1, responseBodyBytes: 1, durationMs: 1, timeToFirstByteMs: 1, echoes: 0 },
      traceId: long,
    }),
    1,
  );
  const texts: string[] = [];
  JSON.stringify(event, (_, value: unknown) => {
    if (typeof value === 'string') texts.push(value);
    return value;
  });
  t.equal(texts.length, 17 + 4 * limits.eventCredentialsMax);
  t.ok(texts.filter((text) => text !== event.workload).every((text) => Buffer.byteLength(text) <= limits.eventFieldBytesMax));
  t.equal(Buffer.byteLength(event.workload) <= 2048, true);
  t.ok(Buffer.byteLength(JSON.stringify(event)) < limits.messageBytesMax / 4, 'one event always fits a message');
});

t.test('a SPIFFE ID is never cut, however long', async (t) => {
  const longest = `spiffe://outrider.test/${'a'.repeat(2048 - 23)}`;
  t.equal(longest.length, 2048);
  t.equal(numbered(draft({ workload: longest }), 1).workload, longest);
});

t.test('numbers that no encoder takes become zero', async (t) => {
  const outcome = {
    status: -1,
    fault: '',
    requestBodyBytes: Number.NaN,
    responseBodyBytes: 1.5,
    durationMs: Number.POSITIVE_INFINITY,
    timeToFirstByteMs: -1,
    echoes: -1,
  };
  const event = numbered({ ...draft(), timeMs: Number.NaN, outcome }, 1);
  t.equal(event.timeMs, 0);
  t.same(event.outcome, {
    status: 0,
    fault: '',
    requestBodyBytes: 0,
    responseBodyBytes: 1,
    durationMs: 0,
    timeToFirstByteMs: 0,
    echoes: 0,
  });
  t.equal(numbered(draft({ timeMs: 1e300 }), 1).timeMs, 0);
  t.equal(numbered({ ...outcomeOf(draft(), 1000) }, 1).outcome?.status, 0);
});
