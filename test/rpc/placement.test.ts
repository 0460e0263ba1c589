/** Placements on the wire: each comes back as it went, and what could not be written without guessing is refused. */
import { strict as assert } from 'node:assert';
import { create, toBinary } from '@bufbuild/protobuf';
import * as fc from 'fast-check';
import t from 'tap';
import type { AwsPlacement, Grant, HmacPlacement, Placement } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import {
  AwsAlgorithm,
  BodyFormat,
  GetGrantResponseSchema,
  HmacAlgorithm,
  HmacEncoding,
} from '../../src/proto/gen/outrider/v1/broker_pb.js';
import { grantBytes, grantOf, grantRequestBytes, grantRequestOf } from '../../src/rpc/wire.ts';
import { grantFor } from './trust-domain.ts';

const seed = Date.now() & 0x7fffffff;
t.comment(`seed ${seed}`);

const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> => fc.record(model, { noNullPrototype: true });
const token = fc.stringMatching(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}$/);
const literal = fc.stringMatching(/^[A-Za-z0-9._~:@!$&'()*+,=-]{0,10}$/);
const field = fc.stringMatching(/^[!-~]{0,20}$/).map((text) => text.replaceAll(/[{}]/g, ''));

const hmac: fc.Arbitrary<HmacPlacement> = fc
  .record({
    algorithm: fc.constantFrom('sha256' as const, 'sha512' as const),
    encoding: fc.constantFrom('hex' as const, 'base64' as const),
    parts: fc.array(
      fc.constantFrom('{method}', '{host}\n', '{path}', '{query}', '{body}', '{body_sha256}', '{timestamp}', '{nonce}', 'v0:'),
      { minLength: 1, maxLength: 8 },
    ),
    before: field,
  })
  .map(({ algorithm, encoding, parts, before }) => ({
    kind: 'hmac' as const,
    algorithm,
    message: `{method}${parts.join(':')}`,
    encoding,
    name: 'X-Signature',
    template: `${before}{signature}`,
    timestampName: 'X-Timestamp',
    nonceName: 'X-Nonce',
  }));

const aws: fc.Arbitrary<AwsPlacement> = fc.oneof(
  record({
    kind: fc.constant('aws_sigv4' as const),
    algorithm: fc.constant('sigv4' as const),
    service: fc.constantFrom('', 's3', 'execute-api'),
    region: fc.constantFrom('', 'eu-west-1'),
  }),
  record({
    kind: fc.constant('aws_sigv4' as const),
    algorithm: fc.constant('sigv4a' as const),
    service: fc.constantFrom('', 's3'),
    region: fc.constantFrom('', '*', 'us-east-1,eu-west-1', 'us-*'),
  }),
);

const placement: fc.Arbitrary<Placement> = fc.oneof(
  record({ kind: fc.constant('cookie' as const), name: token }),
  record({
    kind: fc.constant('path_segment' as const),
    segment: fc.integer({ min: 1, max: 32 }),
    template: fc.tuple(literal, literal).map(([a, b]) => `${a}{credential}${b}`),
  }),
  record({
    kind: fc.constant('body_field' as const),
    format: fc.constant('json' as const),
    field: fc.constantFrom('/a', '/a/b~1c/~0', '/', '/ä/0'),
  }),
  record({ kind: fc.constant('body_field' as const), format: fc.constant('form' as const), field: token }),
  hmac,
  aws,
  fc.constant({ kind: 'dpop' as const }),
);

const values: Readonly<Record<string, string>> = {
  aws_sigv4: '{"Version":1,"AccessKeyId":"EXAMPLE_ACCESS_KEY_1","SecretAccessKey":"s"}',
  dpop: '{"access_token":"t","private_key":"k"}',
};
const grantWith = (of: Placement, value = values[of.kind] ?? 'text'): Grant => {
  const grant = grantFor('echo');
  return { ...grant, credentials: grant.credentials.slice(0, 1).map((one) => ({ ...one, placement: of, value: new Secret(value) })) };
};

t.test('every placement comes back as it went', async () => {
  fc.assert(
    fc.property(placement, (one) => assert.deepEqual(grantOf(grantBytes(grantWith(one))).credentials[0]?.placement, one)),
    { seed, numRuns: 1_000 },
  );
});

const sound = {
  cookie: { name: 'session' },
  pathSegment: { segment: 1, template: 'bot{credential}' },
  bodyField: { format: BodyFormat.JSON, field: '/key' },
  hmac: {
    algorithm: HmacAlgorithm.SHA256,
    message: '{body}',
    encoding: HmacEncoding.HEX,
    name: 'X-Signature',
    template: '{signature}',
    timestampName: '',
    nonceName: '',
  },
  awsSigv4: { algorithm: AwsAlgorithm.SIGV4, service: 's3', region: 'eu-west-1' },
} as const;
const kindOf = { cookie: 'text', pathSegment: 'text', bodyField: 'text', hmac: 'text', awsSigv4: 'aws_sigv4' } as const;

const read = (kind: keyof typeof sound, rest: object, value = values[kindOf[kind]] ?? 'text'): Placement | undefined => {
  const credential = {
    placement: { kind: { case: kind, value: { ...sound[kind], ...rest } } },
    value: Buffer.from(value),
    providerKind: 'static_file',
    provider: 'p',
    fingerprint: 'f',
    expiresAt: { seconds: 1n },
  };
  const message = {
    grantId: 'g',
    target: 'echo',
    configurationVersion: 'v1',
    binding: { hosts: ['echo.outrider.test'], ports: [443] },
    expiresAt: { seconds: 1n },
    lifetime: { seconds: 60n },
    credentials: [credential],
  };
  return grantOf(toBinary(GetGrantResponseSchema, create(GetGrantResponseSchema, message as never))).credentials[0]?.placement;
};

t.test('what this version does not know, or could not write without guessing, fails closed', async (t) => {
  const refused: Readonly<Record<keyof typeof sound, readonly object[]>> = {
    cookie: [
      { name: '' },
      { name: 'a b' },
      { name: 'a=b' },
      { name: 'a;b' },
      { name: 'ä' },
      { name: 'x'.repeat(limits.headerBytesMax + 1) },
    ],
    pathSegment: [
      { segment: 0 },
      { segment: 33 },
      { template: 'bot' },
      { template: '{credential}{credential}' },
      { template: 'a/{credential}' },
      { template: '{credential}?' },
      { template: '%2e{credential}' },
      { template: ';{credential}' },
      { template: `${'x'.repeat(65)}{credential}` },
    ],
    bodyField: [
      { format: BodyFormat.UNSPECIFIED },
      { format: 3 },
      { field: '' },
      { field: 'key' },
      { field: '/a~2' },
      { field: '/a'.repeat(17) },
      { field: `/${'x'.repeat(256)}` },
      { format: BodyFormat.FORM, field: '' },
      { format: BodyFormat.FORM, field: 'a b' },
    ],
    hmac: [
      { algorithm: HmacAlgorithm.UNSPECIFIED },
      { algorithm: 3 },
      { encoding: HmacEncoding.UNSPECIFIED },
      { encoding: 9 },
      { message: '' },
      { message: 'nothing' },
      { message: '{body}{secret}' },
      { message: `{body}${'x'.repeat(1_024)}` },
      { message: '{body}\0' },
      { name: '' },
      { name: 'a b' },
      { timestampName: 'a b' },
      { timestampName: 'x_signature' },
      { message: '{timestamp}{body}' },
      { message: '{nonce}{body}' },
      { template: '' },
      { template: '{signature}{signature}' },
      { template: '{signature}{body}' },
      { template: '{signature}\r\nX: y' },
    ],
    awsSigv4: [
      { algorithm: AwsAlgorithm.UNSPECIFIED },
      { algorithm: 3 },
      { service: 'S3' },
      { service: 'a/b' },
      { region: 'eu west' },
      { region: 'eu-west-1,us-east-1' },
      { region: '*' },
      { algorithm: AwsAlgorithm.SIGV4A, region: 'a,,b' },
    ],
  };
  for (const kind of Object.keys(sound) as (keyof typeof sound)[]) {
    t.ok(read(kind, {}), `${kind}: the one that the others are made from is sound`);
    for (const rest of refused[kind])
      t.throws(() => read(kind, rest), { code: 'credential_invalid' }, `${kind} ${JSON.stringify(rest).slice(0, 60)}`);
  }
});

t.test('a value that is not of the form that its placement takes is refused, without saying what it is', async (t) => {
  const forms: readonly (readonly [Placement, readonly string[]])[] = [
    [{ kind: 'aws_sigv4', algorithm: 'sigv4', service: '', region: '' }, ['canary', '{}', '{"AccessKeyId":"EXAMPLE_ACCESS_KEY_1"}']],
    [{ kind: 'dpop' }, ['canary', '{}', '{"access_token":"canary"}', '{"access_token":"a b","private_key":"canary"}']],
  ];
  for (const [of, texts] of forms) {
    for (const text of texts) {
      try {
        grantOf(grantBytes(grantWith(of, text)));
        t.fail(`${of.kind} took ${text}`);
      } catch (error) {
        t.match(error, { code: 'credential_invalid' });
        t.notMatch(`${String(error)} ${String((error as Error).cause)}`, 'canary');
      }
    }
  }
});

t.test('a request for a grant may say which one was refused', async (t) => {
  t.strictSame(grantRequestOf(grantRequestBytes('echo', 'v1')), { target: 'echo', configurationVersion: 'v1', rejectedGrantId: '' });
  t.strictSame(grantRequestOf(grantRequestBytes('echo', 'v1', 'g1')), {
    target: 'echo',
    configurationVersion: 'v1',
    rejectedGrantId: 'g1',
  });
  t.throws(() => grantRequestOf(grantRequestBytes('echo', 'v1', 'x'.repeat(limits.wireTextBytesMax + 1))), { name: 'WireError' });
});
