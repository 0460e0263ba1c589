import * as fc from 'fast-check';
import { Metadata, status } from '@grpc/grpc-js';
import t from 'tap';
import { asFault, Fault, type FaultCode, faults } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import type { Decision } from '../../src/core/policy.ts';
import { faultOf, statusOf } from '../../src/rpc/status.ts';

const seed = Date.now() & 0x7fffffff;
t.comment(`seed ${seed}`);

const canary = 'canary-5f2c';
const codes = Object.keys(faults) as FaultCode[];
const words = fc.string({ unit: 'grapheme', maxLength: 60 });
const decision: fc.Arbitrary<Decision> = fc.record({
  verdict: fc.constantFrom('allow', 'deny', 'pass'),
  policy: words,
  policyVersion: words,
  rule: words,
  reason: words,
});

t.test('every fault of the table crosses with its status, code, detail and decision, and without its cause', async (t) => {
  for (const code of codes) {
    fc.assert(
      fc.property(words, fc.option(decision, { nil: undefined }), (detail, decided) => {
        const sent = new Fault(code, { detail, ...(decided === undefined ? {} : { decision: decided }), cause: new Error(canary) });
        const wire = statusOf(sent);
        const seen = faultOf(wire);
        if (JSON.stringify([wire.code, wire.details, wire.metadata.toJSON()]).includes(canary)) throw new Error('the cause crossed');
        if (status[wire.code] !== faults[code].grpc) throw new Error('another status');
        if (seen.code !== code || seen.detail !== detail.toWellFormed()) throw new Error(`came back as ${seen.code}: ${seen.detail}`);
        if (JSON.stringify(seen.decision) !== JSON.stringify(decided)) throw new Error('another decision');
      }),
      { seed, numRuns: 20 },
    );
  }
  t.ok(codes.length > 30);
});

t.test('what is no fault crosses as broker_error and nothing else', async (t) => {
  for (const thrown of [new Error(canary), canary, undefined, { code: canary }, new TypeError(canary)]) {
    const { code, details, metadata } = statusOf(thrown);
    t.equal(code, status.INTERNAL);
    t.notMatch(JSON.stringify([details, metadata.toJSON()]), canary);
    t.match(faultOf({ code, details, metadata }), { code: 'broker_error', detail: '' });
  }
});

t.test('a long detail is cut, a long decision still arrives', async (t) => {
  const long = '\u{1f4a9}'.repeat(10_000);
  const reason = 'r'.repeat(10_000);
  const seen = faultOf(
    statusOf(
      new Fault('policy_denied', {
        detail: long,
        decision: { verdict: 'deny', policy: reason, policyVersion: reason, rule: reason, reason },
      }),
    ),
  );
  t.equal(seen.detail.length, limits.faultDetailCharsMax);
  t.equal(seen.decision?.reason.length, 1000);
  t.equal(seen.decision?.policy.length, 200);
});

t.test('a call that failed without a fault is named by what became of the connection', async (t) => {
  const untrusted = new Error('unable to verify the first certificate');
  const named = (code: status, details = '', last?: Error): string => faultOf({ code, details, metadata: new Metadata() }, last).code;
  t.equal(named(status.DEADLINE_EXCEEDED), 'broker_timeout');
  t.equal(named(status.UNAVAILABLE, 'connect ECONNREFUSED'), 'broker_unavailable');
  t.equal(named(status.UNAVAILABLE, `Last error: Error: ${untrusted.message}`, untrusted), 'broker_untrusted');
  t.equal(named(status.UNAVAILABLE, 'connect ECONNREFUSED', untrusted), 'broker_unavailable', 'refused once, but not this time');
  for (const code of [status.INTERNAL, status.UNKNOWN, status.UNIMPLEMENTED, status.RESOURCE_EXHAUSTED, status.DATA_LOSS])
    t.equal(named(code), 'broker_error', status[code]);
});

t.test('trailers that make no sense do no harm', async (t) => {
  const of = (trailers: Record<string, string>): Fault => {
    const metadata = new Metadata();
    for (const [key, value] of Object.entries(trailers)) metadata.set(key, value);
    return faultOf({ code: status.PERMISSION_DENIED, details: 'x', metadata });
  };
  t.equal(of({ 'outrider-fault': 'no_such_fault' }).code, 'broker_error');
  t.equal(of({ 'outrider-fault': 'constructor' }).code, 'broker_error');
  for (const decision of ['%', 'null', '[]', '{"verdict":"maybe"}', '{"verdict":7}', encodeURIComponent('{"verdict":"deny","rule":{}}')]) {
    const fault = of({ 'outrider-fault': 'policy_denied', 'outrider-detail': '%zz', 'outrider-decision': decision });
    t.equal(fault.code, 'policy_denied');
    t.equal(fault.detail, '');
    t.ok(fault.decision === undefined || fault.decision.rule === '', decision);
  }
  t.equal(asFault(of({ 'outrider-fault': 'policy_denied' })).code, 'policy_denied');
});
