/** A signature over the request: against published examples, and against OpenSSL over what was sent. */
import * as fc from 'fast-check';
import t from 'tap';
import type { HmacPlacement } from '../../src/core/grant.ts';
import { valuesOf } from '../../src/core/headers.ts';
import type { Prepared } from '../../src/proxy/exchange.ts';
import { needs, run } from '../pki/external-program.ts';
import { type Asked, asking, context, credential, injected, refusal, textOf } from '../support/injection.ts';
import { needsWholeBody } from '../../src/proxy/inject.ts';

const placement = (rest: Partial<HmacPlacement> = {}): HmacPlacement => ({
  kind: 'hmac',
  algorithm: 'sha256',
  message: '{timestamp}.{body}',
  encoding: 'hex',
  name: 'X-Signature',
  template: '{signature}',
  timestampName: 'X-Timestamp',
  nonceName: '',
  ...rest,
});

const field = (prepared: Prepared, name: string): string => valuesOf(prepared.headers, name.toLowerCase()).join('|');

t.test('it is what the example of Slack says', async (t) => {
  // https://docs.slack.dev/authentication/verifying-requests-from-slack: secret, time, body and signature of its worked example.
  const body =
    'token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar' +
    '&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=' +
    '&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN' +
    '&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c';
  const slack = placement({
    message: 'v0:{timestamp}:{body}',
    template: 'v0={signature}',
    name: 'X-Slack-Signature',
    timestampName: 'X-Slack-Request-Timestamp',
  });
  const sent = injected({ method: 'POST', body }, [credential(slack, '8f742231b10e8888abcd99yyyzzz85a5')], { nowMs: 1_531_420_618_000 });
  t.equal(field(sent, 'X-Slack-Signature'), 'v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503');
  t.equal(field(sent, 'X-Slack-Request-Timestamp'), '1531420618');
  t.equal(await textOf(sent.body), body);
});

t.test('it is what the example of GitHub says', async (t) => {
  // https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries: "Testing the webhook payload validation".
  const github = placement({ message: '{body}', template: 'sha256={signature}', name: 'X-Hub-Signature-256', timestampName: '' });
  const sent = injected({ method: 'POST', body: 'Hello, World!' }, [credential(github, "It's a Secret to Everybody")]);
  t.strictSame(sent.headers, [['X-Hub-Signature-256', 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17']]);
});

t.test('every part is signed as it is sent, after the other placements', needs('openssl', 'version'), async (t) => {
  const all = '{method}\n{host}\n{path}\n{query}\n{timestamp}\n{nonce}\n{body_sha256}\n{body}';
  const asked: Asked = {
    method: 'POST',
    path: '/v1/keyX/a%20b',
    query: '?b=2&a={method}&api_key=theirs',
    headers: [
      ['content-type', 'application/json'],
      ['content-length', '12'],
    ],
    body: '{"id":1,"a":1}',
    destination: { port: 8443 },
  };
  const others = [
    credential({ kind: 'body_field', format: 'json', field: '/id' }, '{nonce}'),
    credential({ kind: 'query', name: 'api_key' }, 'q'),
    credential({ kind: 'path_segment', segment: 2, template: 'key{credential}' }, 'p'),
  ];
  for (const [algorithm, encoding] of [
    ['sha256', 'hex'],
    ['sha512', 'base64'],
  ] as const) {
    const signing = placement({ algorithm, encoding, message: all, nonceName: 'X-Nonce', template: 'sig {signature}' });
    // First in the list, and yet written last.
    const sent = injected(asked, [credential(signing, 'k€y'), ...others]);
    const body = await textOf(sent.body);
    t.equal(body, '{"id":"{nonce}","a":1}');
    t.equal(sent.path, '/v1/keyp/a%20b?b=2&a={method}&api_key=q');
    const bodyHash = run('openssl', ['dgst', '-sha256', '-r'], { input: body }).output.split(' ')[0];
    const [path, query] = sent.path.split('?');
    const message = [
      'POST',
      'api.outrider.test:8443',
      path,
      query,
      field(sent, 'X-Timestamp'),
      field(sent, 'X-Nonce'),
      bodyHash,
      body,
    ].join('\n');
    const verdict = run(
      'openssl',
      ['dgst', `-${algorithm}`, '-mac', 'HMAC', '-macopt', `hexkey:${Buffer.from('k€y').toString('hex')}`, '-r'],
      { input: message },
    );
    t.equal(field(sent, 'X-Signature'), `sig ${Buffer.from(verdict.output.split(' ')[0] as string, 'hex').toString(encoding)}`, algorithm);
  }
});

t.test('signature, time and nonce of the program are replaced, in any spelling of their names', async (t) => {
  const signing = placement({ message: '{nonce}{path}', nonceName: 'X-Nonce', template: 't={timestamp},n={nonce},v1={signature}' });
  const headers = [
    ['X-SIGNATURE', 'theirs'],
    ['x_signature', 'theirs'],
    ['X-Timestamp', 'theirs'],
    ['x_nonce', 'theirs'],
    ['X-Other', 'kept'],
  ] as const;
  const sent = injected({ headers }, [credential(signing, 'key')]);
  const nonce = context.uuid();
  t.strictSame(sent.headers.slice(0, 3), [
    ['X-Other', 'kept'],
    ['X-Timestamp', '1700000000'],
    ['X-Nonce', nonce],
  ]);
  t.match(field(sent, 'X-Signature'), new RegExp(`^t=1700000000,n=${nonce},v1=[0-9a-f]{64}$`));
});

t.test('the body is read whole only where it is signed', async (t) => {
  const asks = (message: string): boolean => needsWholeBody(asking({ method: 'POST', body: 'x' }, credential(placement({ message }), 'k')));
  t.strictSame([asks('{body}'), asks('{body_sha256}'), asks('{path}{timestamp}')], [true, true, false]);
  t.notOk(needsWholeBody(asking({}, credential(placement(), 'k'))), 'no body, nothing to read');
  const empty = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
  const without = injected({}, [credential(placement({ message: '{body_sha256}' }), 'k')]);
  const literal = injected({}, [credential(placement({ message: `{method}${empty}`.replace('{method}', '') + '{body}' }), 'k')]);
  t.equal(field(without, 'X-Signature'), field(literal, 'X-Signature'), 'a body that is not there is an empty one');
});

t.test('the key is never shown, and what could not be a placement is refused', async (t) => {
  t.strictSame(injected({}, [credential(placement(), 'the-key')]).unspoken, [], 'an answer cannot repeat what was not sent');
  t.notMatch(JSON.stringify(injected({}, [credential(placement(), 'the-key')]).headers), 'the-key');
  const refused: readonly Partial<HmacPlacement>[] = [
    { message: 'nothing' },
    { message: '{secret}' },
    { template: 'x' },
    { template: '{signature}{body}' },
    { template: 'a\r\nb{signature}' },
    { name: 'x y' },
    { timestampName: 'x_signature' },
    { timestampName: '' },
  ];
  for (const rest of refused)
    t.equal(
      refusal(() => injected({}, [credential(placement(rest), 'k')])),
      'credential_invalid',
      JSON.stringify(rest),
    );
  t.equal(
    refusal(() => injected({}, [credential(placement(), '')])),
    'credential_invalid',
  );
  t.equal(
    refusal(() => injected({}, [credential(placement(), 'k'), credential(placement({ name: 'X-B', timestampName: 'X-C' }), 'k')])),
    'credential_invalid',
    'two signatures',
  );
});

t.test('two requests that differ in anything that is signed have different signatures', async () => {
  const seed = Date.now() & 0x7fffffff;
  t.comment(`seed ${seed}`);
  const signing = credential(placement({ message: '{method} {path} {body_sha256}' }), 'key');
  const part = fc.record({
    method: fc.constantFrom('GET', 'PUT'),
    path: fc.constantFrom('/', '/a', '/b'),
    body: fc.string({ maxLength: 3 }),
  });
  fc.assert(
    fc.property(part, part, (one, other) => {
      const isSame = one.method === other.method && one.path === other.path && one.body === other.body;
      return (field(injected(one, [signing]), 'X-Signature') === field(injected(other, [signing]), 'X-Signature')) === isSame;
    }),
    { seed, numRuns: 300 },
  );
});
