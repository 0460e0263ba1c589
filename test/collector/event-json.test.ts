/** The published JSON form: order, absence, escapes; one line that parses to the same values whatever the values are (THREATS R-5). */
import * as fc from 'fast-check';
import t from 'tap';
import { escapeUnprintable, eventLine } from '../../src/collector/event-json.ts';
import { event, workload } from './events.ts';

const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
t.comment(`seed ${seed}`);

const receipt = { reporter: workload, bootId: 'boot-1', receivedAtMs: Date.UTC(2026, 10, 22, 3, 0, 0, 5) };

t.test('a full event has every field, in the published order', async (t) => {
  const line = eventLine(
    event(7, {
      kind: 'outcome',
      traceId: '0af7651916cd43dd8448eb211c80319c',
      outcome: {
        status: 503,
        fault: 'target_closed',
        requestBodyBytes: 1,
        responseBodyBytes: 2,
        durationMs: 3.5,
        timeToFirstByteMs: 0,
        echoes: 0,
      },
      lostCount: 3,
    }),
    receipt,
  );
  t.equal(
    line,
    '{"time":"2026-11-22T02:59:59.250Z","kind":"outcome","requestId":"request-7","traceId":"0af7651916cd43dd8448eb211c80319c",' +
      '"workload":"spiffe://outrider.test/ns/demo/sa/demo-app","attestationId":"attestation-1","target":"echo",' +
      '"destination":"echo.outrider.test:443","scheme":"https","method":"GET","path":"/hello",' +
      '"decision":{"verdict":"allow","policy":"demo","policyVersion":"v1","rule":"read","reason":"rule read allows GET /hello"},' +
      '"grantId":"grant-1","credentials":[{"providerKind":"jwt","provider":"minted","placement":"bearer","fingerprint":"0123456789abcdef"}],' +
      '"outcome":{"status":503,"fault":"target_closed","requestBodyBytes":1,"responseBodyBytes":2,"durationMs":3.5,"timeToFirstByteMs":0},' +
      '"lostCount":3,"reporter":"spiffe://outrider.test/ns/demo/sa/demo-app","bootId":"boot-1","sequence":7,"receivedAt":"2026-11-22T03:00:00.005Z"}',
  );
});

t.test('what is empty is left out', async (t) => {
  const line = eventLine(
    event(1, {
      kind: 'pass',
      workload: '',
      attestationId: '',
      target: '',
      path: '',
      decision: { verdict: 'pass', policy: '', policyVersion: '', rule: '', reason: 'no target names it' },
      grantId: '',
      credentials: [],
    }),
    receipt,
  );
  t.same(Object.keys(JSON.parse(line) as object), [
    'time',
    'kind',
    'requestId',
    'destination',
    'scheme',
    'method',
    'decision',
    'reporter',
    'bootId',
    'sequence',
    'receivedAt',
  ]);
  t.match(line, '"decision":{"verdict":"pass","reason":"no target names it"}');
});

t.test('no time makes a line invalid', async (t) => {
  for (const timeMs of [Number.NaN, -1, 1e300, Number.POSITIVE_INFINITY]) {
    const { time } = JSON.parse(eventLine(event(1, { timeMs }), receipt)) as { time: string };
    t.match(time, /^(1970-01-01T00:00:00.000Z|9999-12-31T23:59:59.999Z)$/);
  }
});

t.test('no field could hold a query string, a header, a body or a credential', async (t) => {
  const names: string[] = [];
  const full = event(1, {
    outcome: { status: 200, fault: 'internal', requestBodyBytes: 0, responseBodyBytes: 0, durationMs: 0, timeToFirstByteMs: 0, echoes: 0 },
    traceId: 'x',
    lostCount: 1,
  });
  JSON.parse(eventLine(full, receipt), (name, value: unknown) => {
    if (name !== '') names.push(name);
    return value;
  });
  t.same(
    names.filter((name) => /query|header|cookie|secret|token|authorization|credential$|body$|value/i.test(name)),
    [],
    names.join(' '),
  );
});

const nasty = fc.oneof(
  { weight: 3, arbitrary: fc.string({ unit: 'binary', maxLength: 60 }) },
  {
    weight: 3,
    arbitrary: fc.string({
      unit: fc.constantFrom(
        ...Array.from('\r\n\t"\\{}[],:\u0000\u001b\u007f\u0085\u009b\u200b\u200e\u2028\u2029\u202e\u2066\ufeff\u{e0041}a🐎'),
      ),
      maxLength: 40,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.string({ unit: fc.integer({ min: 0xd800, max: 0xdfff }).map((unit) => String.fromCharCode(unit)), maxLength: 5 }),
  },
);
const harmful = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;

t.test(
  '10,000 random values in every text field: one line each, nothing in it that a terminal acts on, the same values back',
  async (t) => {
    let values = 0;
    fc.assert(
      fc.property(fc.array(nasty, { minLength: 10, maxLength: 10 }), (texts) => {
        const [requestId, target, destination, method, path, rule, reason, provider, grantId, fault] = texts as [
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
          string,
        ];
        values += texts.length;
        const line = eventLine(
          event(1, {
            requestId,
            target,
            destination,
            method,
            path,
            decision: { verdict: 'deny', policy: 'p', policyVersion: 'v', rule, reason },
            credentials: [{ providerKind: 'jwt', provider, placement: 'bearer', fingerprint: '' }],
            grantId,
            outcome: { status: 1, fault, requestBodyBytes: 0, responseBodyBytes: 0, durationMs: 0, timeToFirstByteMs: 0, echoes: 0 },
          }),
          receipt,
        );
        if (/[\r\n]/.test(line) || harmful.test(line)) return false;
        type Back = { [name: string]: string | undefined } & { decision: Back; credentials: [Back]; outcome: Back };
        const back = JSON.parse(line) as Back;
        const read = [
          back['requestId'],
          back['target'],
          back['destination'],
          back['method'],
          back['path'],
          back.decision['rule'],
          back.decision['reason'],
          back.credentials[0]['provider'],
          back['grantId'],
          back.outcome['fault'],
        ];
        return read.every((text, i) => (text ?? '') === texts[i]);
      }),
      { seed, numRuns: 1000 },
    );
    t.ok(values >= 10_000, `${values} values`);
  },
);

t.test('escaping a line that is escaped, or plain, changes nothing', async (t) => {
  const line = escapeUnprintable(JSON.stringify({ path: '/\u202e\u{e0041}é語' }));
  t.equal(line, '{"path":"/\\u202e\\udb40\\udc41é語"}');
  t.equal(escapeUnprintable(line), line);
});
