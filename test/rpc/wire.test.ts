import { strict as assert } from 'node:assert';
import { inspect } from 'node:util';
import { create, type DescMessage, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import * as fc from 'fast-check';
import t from 'tap';
import type { AccessEvent, Outcome } from '../../src/core/access-event.ts';
import { Fault } from '../../src/core/fault.ts';
import type { Grant, Placement } from '../../src/core/grant.ts';
import { limits } from '../../src/core/limits.ts';
import type { Decision } from '../../src/core/policy.ts';
import { targetProtocols, tlsVersions } from '../../src/core/target.ts';
import { Secret } from '../../src/core/secret.ts';
import {
  AttestRequestSchema,
  AttestResponseSchema,
  type CredentialSchema,
  Effect,
  GetGrantRequestSchema,
  GetGrantResponseSchema,
  WatchResponseSchema,
} from '../../src/proto/gen/outrider/v1/broker_pb.js';
import { EventKind as EventKindMessage, RecordRequestSchema, RecordResponseSchema } from '../../src/proto/gen/outrider/v1/events_pb.js';
import {
  acknowledgementBytes,
  acknowledgementOf,
  attestationBytes,
  attestationOf,
  attestRequestBytes,
  attestRequestOf,
  eventBatchBytes,
  eventBatchOf,
  grantBytes,
  grantOf,
  grantRequestOf,
  revocationBytes,
  snapshotBytes,
  updateOf,
  WireError,
} from '../../src/rpc/wire.ts';
import { badBundles, soundBundle } from '../support/client-certificates.ts';
import { event, evidence, grantFor, snapshot } from './trust-domain.ts';

const seed = Date.now() & 0x7fffffff;
t.comment(`seed ${seed}`);
const check = <T>(arbitrary: fc.Arbitrary<T>, holds: (value: T) => boolean | void): void =>
  fc.assert(fc.property(arbitrary, holds), { seed, numRuns: 200 });

const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> => fc.record(model, { noNullPrototype: true });
const id = fc.string({ unit: 'grapheme-ascii', minLength: 1, maxLength: 40 });
const timeMs = fc.integer({ min: 0, max: Date.UTC(9999, 0, 1) });
const field = fc.stringMatching(/^[!-~]{1,20}$/);
const bytes = <D extends DescMessage>(schema: D, message: MessageInitShape<D>): Uint8Array => toBinary(schema, create(schema, message));
const revealed = (grant: Grant): unknown => ({ ...grant, credentials: grant.credentials.map((c) => ({ ...c, value: c.value.reveal() })) });

const placement: fc.Arbitrary<Placement> = fc.oneof(
  fc.constant({ kind: 'bearer' as const }),
  record({ kind: fc.constant('basic' as const), username: field.map((value) => value.replaceAll(':', '')) }),
  record({
    kind: fc.constant('header' as const),
    name: fc.stringMatching(/^[A-Za-z-]{1,20}$/),
    template: field.map((value) => `x${value.replaceAll('{', '')} {credential}`),
  }),
  record({ kind: fc.constant('query' as const), name: id }),
);

const text = record({ placement, value: fc.string({ unit: 'grapheme', minLength: 1 }).map((value) => new Secret(value)) });
/** Few, because keys are dear. */
const certificates = [soundBundle(Date.now()), soundBundle(Date.now())];
const certificate = record({
  placement: fc.constant<Placement>({ kind: 'client_certificate' }),
  value: fc.constantFrom(...certificates).map((value) => new Secret(value)),
});

const grant: fc.Arbitrary<Grant> = record({
  id,
  target: id,
  binding: record({
    hosts: fc.array(fc.constantFrom('a.test', '10.0.0.1', '2001:db8::1'), { minLength: 1 }),
    ports: fc.array(fc.integer({ min: 1, max: 65_535 }), { minLength: 1 }),
    cleartextAllowed: fc.boolean(),
  }),
  configurationVersion: id,
  expiresAtMs: timeMs,
  lifetimeMs: fc.integer({ min: 1, max: limits.grantLifetimeMaxMs }),
  credentials: fc.array(
    fc
      .tuple(fc.oneof(text, certificate), record({ providerKind: id, provider: id, fingerprint: id, expiresAtMs: timeMs }))
      .map(([what, whence]) => ({ ...what, ...whence })),
  ),
  rules: fc.array(
    record({
      policy: id,
      policyVersion: id,
      name: id,
      effect: fc.constantFrom('allow' as const, 'deny' as const),
      methods: fc.array(id),
      paths: fc.array(id),
      condition: fc.string(),
    }),
  ),
});

const count = fc.maxSafeNat();
const spanMs = fc.integer({ min: 0, max: 1_000_000_000_000 }).map((micros) => micros / 1000);
const outcome: fc.Arbitrary<Outcome> = record({
  status: fc.integer({ min: 0, max: 999 }),
  fault: fc.string(),
  requestBodyBytes: count,
  responseBodyBytes: count,
  durationMs: spanMs,
  timeToFirstByteMs: spanMs,
  echoes: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
});
const decision: fc.Arbitrary<Decision> = record({
  verdict: fc.constantFrom('allow' as const, 'deny' as const, 'pass' as const),
  policy: fc.string(),
  policyVersion: fc.string(),
  rule: fc.string(),
  reason: fc.string(),
});
const accessEvent: fc.Arbitrary<AccessEvent> = record({
  sequence: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  kind: fc.constantFrom('intent' as const, 'outcome' as const, 'refusal' as const, 'pass' as const, 'loss' as const),
  timeMs,
  requestId: fc.string(),
  workload: fc.string(),
  attestationId: fc.string(),
  target: fc.string(),
  destination: fc.string(),
  scheme: fc.string(),
  method: fc.string(),
  path: fc.string({ unit: 'grapheme' }),
  decision: fc.option(decision, { nil: undefined }),
  grantId: fc.string(),
  credentials: fc.array(record({ providerKind: fc.string(), provider: fc.string(), placement: fc.string(), fingerprint: fc.string() })),
  outcome: fc.option(outcome, { nil: undefined }),
  traceId: fc.string(),
  lostCount: count,
  attempt: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
});

t.test('grants, snapshots, revocations, attestations and events come back as they went', async (t) => {
  check(grant, (value) => assert.deepEqual(revealed(grantOf(grantBytes(value))), revealed(value)));
  check(fc.array(accessEvent, { maxLength: 5 }), (events) =>
    assert.deepEqual(eventBatchOf(eventBatchBytes({ bootId: 'boot', events })), { bootId: 'boot', events }),
  );
  check(count, (through) =>
    assert.deepEqual(acknowledgementOf(acknowledgementBytes({ bootId: 'boot', through })), { bootId: 'boot', through }),
  );
  t.strictSame(updateOf(snapshotBytes(snapshot())), { kind: 'snapshot', snapshot: snapshot() });
  for (const protocol of targetProtocols) {
    for (const tlsVersionMin of tlsVersions) {
      const one = { ...snapshot(), targets: snapshot().targets.map((target) => ({ ...target, protocol, tlsVersionMin })) };
      t.strictSame(updateOf(snapshotBytes(one)), { kind: 'snapshot', snapshot: one });
    }
  }
  t.strictSame(updateOf(snapshotBytes({ configurationVersion: 'v0', targets: [] })), {
    kind: 'snapshot',
    snapshot: { configurationVersion: 'v0', targets: [] },
  });
  for (const grantIds of [[], ['a', 'b']])
    t.strictSame(updateOf(revocationBytes({ target: 'echo', grantIds })), { kind: 'revocation', revocation: { target: 'echo', grantIds } });
  const attestation = {
    certificateChain: [Buffer.of(1)],
    trustBundle: [Buffer.of(2), Buffer.of(3)],
    spiffeId: 'spiffe://outrider.test/a',
    expiresAtMs: 12_345,
    attestationId: 'x',
  };
  t.strictSame(attestationOf(attestationBytes(attestation)), attestation);
  const request = attestRequestOf(attestRequestBytes(evidence, Buffer.of(7)));
  t.equal(request.evidence.token.reveal(), evidence.token.reveal());
  t.notMatch(JSON.stringify(request), evidence.token.reveal(), 'evidence is a secret at once');
  t.ok(request.certificateRequest.equals(Buffer.of(7)));
});

t.test('a credential is a secret as soon as it is read', async (t) => {
  const read = grantOf(grantBytes(grantFor('echo')));
  t.equal(read.credentials[0]?.value.reveal(), 'the-credential');
  t.notMatch(inspect(read, { depth: 10 }), 'the-credential');
});

const soundGrant: MessageInitShape<typeof GetGrantResponseSchema> = {
  grantId: 'g',
  target: 'echo',
  configurationVersion: 'v1',
  binding: { hosts: ['echo.outrider.test'], ports: [443] },
  expiresAt: { seconds: 1n },
  lifetime: { seconds: 60n },
};
const soundCredential: MessageInitShape<typeof CredentialSchema> = {
  placement: { kind: { case: 'bearer', value: {} } },
  value: Buffer.from('x'),
  providerKind: 'jwt',
  provider: 'p',
  fingerprint: 'f',
  expiresAt: { seconds: 1n },
};
const soundRule = { policy: 'p', policyVersion: 'v', name: 'r', effect: Effect.ALLOW };
const soundTarget = { name: 'echo', hosts: ['echo.outrider.test'], ports: [443] };
const long = 'x'.repeat(limits.wireTextBytesMax + 1);

t.test('a grant that is not whole is refused', async (t) => {
  const read = (o: object): Grant => grantOf(bytes(GetGrantResponseSchema, { ...soundGrant, ...o }));
  t.equal(read({}).id, 'g', 'the one that the others are made from is sound');
  const refused: Record<string, object> = {
    'without an id': { grantId: '' },
    'with an id too long': { grantId: long },
    'without a target': { target: '' },
    'without a configuration': { configurationVersion: '' },
    'without a binding': { binding: undefined },
    'bound to no host': { binding: { hosts: [], ports: [443] } },
    'bound to no port': { binding: { hosts: ['a.test'], ports: [] } },
    'bound to a host in another spelling': { binding: { hosts: ['A.test'], ports: [443] } },
    'bound to a wildcard': { binding: { hosts: ['*.test'], ports: [443] } },
    'bound to port 0': { binding: { hosts: ['a.test'], ports: [0] } },
    'bound to port 65,536': { binding: { hosts: ['a.test'], ports: [65_536] } },
    'without an expiry': { expiresAt: undefined },
    'that expired before 1970': { expiresAt: { seconds: -1n } },
    'that expires past the year 9999': { expiresAt: { seconds: 253_402_300_800n } },
    'with too many nanoseconds': { expiresAt: { seconds: 1n, nanos: 1_000_000_000 } },
    'without a lifetime': { lifetime: undefined },
    'with no lifetime': { lifetime: {} },
    'with a negative lifetime': { lifetime: { seconds: -5n } },
    'with a negative fraction': { lifetime: { seconds: 5n, nanos: -1 } },
    'with a lifetime past the limit': { lifetime: { seconds: BigInt(limits.grantLifetimeMaxMs / 1000), nanos: 1000 } },
    'with an effect of a later version': { rules: [{ ...soundRule, effect: 3 }] },
    'with no effect': { rules: [{ ...soundRule, effect: Effect.UNSPECIFIED }] },
    'with a rule without a name': { rules: [{ ...soundRule, name: '' }] },
    'with an empty method': { rules: [{ ...soundRule, methods: [''] }] },
    'with a credential without an expiry': { credentials: [{ ...soundCredential, expiresAt: undefined }] },
    'with a credential of no provider': { credentials: [{ ...soundCredential, provider: '' }] },
    'with a credential without a placement': { credentials: [{ ...soundCredential, placement: undefined }] },
  };
  for (const [name, change] of Object.entries(refused)) t.throws(() => read(change), { name: 'WireError' }, name);
  t.throws(() => grantOf(Buffer.of(0x0a, 0x05, 0x41)), { name: 'WireError' }, 'cut');
});

t.test('a credential that this version cannot place fails closed', async (t) => {
  const read = (o: object): Grant => grantOf(bytes(GetGrantResponseSchema, { ...soundGrant, credentials: [{ ...soundCredential, ...o }] }));
  t.equal(read({}).credentials.length, 1);
  const header = (name: string, template: string): object => ({ placement: { kind: { case: 'header', value: { name, template } } } });
  const refused: Record<string, object> = {
    'no placement, or one of a later version': { placement: {} },
    'a user name with a colon': { placement: { kind: { case: 'basic', value: { username: 'a:b' } } } },
    'a user name with a line break': { placement: { kind: { case: 'basic', value: { username: 'a\r\nb' } } } },
    'a header without a name': header('', '{credential}'),
    'a header name with a space': header('x y', '{credential}'),
    'a template without the credential': header('x', 'token'),
    'a template with it twice': header('x', '{credential}{credential}'),
    'a template with a line break': header('x', '{credential}\r\ny: z'),
    'a parameter without a name': { placement: { kind: { case: 'query', value: {} } } },
    'no value': { value: Buffer.alloc(0) },
    'a value past the limit': { value: Buffer.alloc(limits.credentialBytesMax + 1, 65) },
    'a value that is not text': { value: Buffer.of(0xff) },
  };
  for (const [name, change] of Object.entries(refused)) t.throws(() => read(change), { name: 'Fault', code: 'credential_invalid' }, name);
  // The bytes of a placement that version 1 does not have: field 9 of the oneof.
  const [before, after] = [bytes(GetGrantResponseSchema, soundGrant), Buffer.from('32070a024a00120178', 'hex')];
  t.throws(() => grantOf(Buffer.concat([before, after])), { code: 'credential_invalid' }, 'a field that is not known');
});

t.test('a client certificate without a certificate and its private key is refused at receipt, and nothing of it is said', async (t) => {
  const read = (value: string): Grant =>
    grantOf(
      bytes(GetGrantResponseSchema, {
        ...soundGrant,
        credentials: [{ ...soundCredential, placement: { kind: { case: 'clientCertificate', value: {} } }, value: Buffer.from(value) }],
      }),
    );
  const sound = certificates[0] as string;
  t.match(read(sound).credentials[0], { placement: { kind: 'client_certificate' } });
  t.equal(read(sound).credentials[0]?.value.reveal(), sound);
  for (const [what, { bundle }] of Object.entries(badBundles(Date.now()))) {
    try {
      read(bundle);
      t.fail(`${what} was taken`);
    } catch (error) {
      t.match(error, { name: 'Fault', code: 'credential_invalid' }, what);
      const said = inspect(error, { depth: 9 });
      for (const line of bundle.split('\n').filter((one) => one.length > 40)) t.notOk(said.includes(line), `${what} is not shown`);
    }
  }
});

t.test('what a target of another version asks for is read as what comes nearest, and never as a lower TLS floor', async (t) => {
  const read = (o: object): unknown => {
    const message = bytes(WatchResponseSchema, {
      update: { case: 'snapshot', value: { configurationVersion: 'v1', targets: [{ ...soundTarget, ...o }] } },
    });
    const update = updateOf(message);
    assert(update.kind === 'snapshot' && update.snapshot.targets[0]);
    const { protocol, tlsVersionMin } = update.snapshot.targets[0];
    return [protocol, tlsVersionMin];
  };
  t.strictSame(read({}), ['auto', 'TLSv1.2'], 'a broker that does not know of them');
  t.strictSame(read({ protocol: 99, tlsVersionMin: 99 }), ['auto', 'TLSv1.3'], 'a broker that knows more than we do');
});

t.test('an update that is not whole is refused', async (t) => {
  const snapshotWith = (o: object, configurationVersion = 'v1'): Uint8Array =>
    bytes(WatchResponseSchema, { update: { case: 'snapshot', value: { configurationVersion, targets: [{ ...soundTarget, ...o }] } } });
  t.equal(updateOf(snapshotWith({})).kind, 'snapshot');
  const refused: Record<string, Uint8Array> = {
    'none, or one of a later version': bytes(WatchResponseSchema, {}),
    'without a version': snapshotWith({}, ''),
    'a target without a name': snapshotWith({ name: '' }),
    'a target without hosts': snapshotWith({ hosts: [] }),
    'a host with a dot at its end': snapshotWith({ hosts: ['a.test.'] }),
    'a host that some resolver reads as an address': snapshotWith({ hosts: ['127.1'] }),
    'a port past the last': snapshotWith({ ports: [70_000] }),
    'a revocation of nothing': bytes(WatchResponseSchema, { update: { case: 'revocation', value: {} } }),
    'a revocation of an empty id': bytes(WatchResponseSchema, {
      update: { case: 'revocation', value: { target: 'echo', grantIds: [''] } },
    }),
  };
  for (const [name, message] of Object.entries(refused)) t.throws(() => updateOf(message), { name: 'WireError' }, name);
});

t.test('an attestation that is not whole is refused', async (t) => {
  const sound = {
    certificateChain: [Buffer.of(1)],
    trustBundle: [Buffer.of(2)],
    spiffeId: 'spiffe://outrider.test/a',
    expiresAt: { seconds: 1n },
    attestationId: 'x',
  };
  const read = (o: object): unknown => attestationOf(bytes(AttestResponseSchema, { ...sound, ...o }));
  t.ok(read({}));
  for (const change of [
    { certificateChain: [] },
    { trustBundle: [] },
    { spiffeId: 'https://outrider.test/a' },
    { expiresAt: undefined },
    { attestationId: '' },
  ]) {
    t.throws(() => read(change), { name: 'WireError' }, JSON.stringify(change));
  }
});

t.test('a request that is not whole is refused with the fault that fits', async (t) => {
  const token = (value: string): object => ({ evidence: { kind: { case: 'projectedToken', value } } });
  const read = (o: object): unknown =>
    attestRequestOf(bytes(AttestRequestSchema, { ...token('t'), certificateRequest: Buffer.of(1), ...o }));
  t.ok(read({}));
  t.throws(() => read({ evidence: undefined }), { code: 'evidence_missing' });
  t.throws(() => read({ evidence: {} }), { code: 'evidence_missing' }, 'of no kind that is known');
  t.throws(() => read(token('')), { code: 'evidence_missing' });
  t.throws(() => read(token('t'.repeat(limits.evidenceBytesMax + 1))), { code: 'evidence_invalid' });
  t.throws(() => read({ certificateRequest: Buffer.alloc(0) }), { code: 'certificate_request_invalid' });
  t.throws(() => read({ certificateRequest: Buffer.alloc(limits.certificateRequestBytesMax + 1) }), {
    code: 'certificate_request_invalid',
  });
  t.throws(() => grantRequestOf(bytes(GetGrantRequestSchema, {})), { name: 'WireError' });
  t.throws(() => grantRequestOf(bytes(GetGrantRequestSchema, { target: long })), { name: 'WireError' });
});

t.test('events that are not whole are refused', async (t) => {
  const sound = { sequence: 1n, kind: EventKindMessage.INTENT, time: { seconds: 1n } };
  const read = (o: object, bootId = 'boot'): unknown => eventBatchOf(bytes(RecordRequestSchema, { bootId, events: [{ ...sound, ...o }] }));
  t.ok(read({}));
  t.throws(() => read({}, ''), { name: 'WireError' }, 'no boot id');
  const refused: readonly object[] = [
    { sequence: 0n },
    { sequence: 2n ** 53n },
    { kind: EventKindMessage.UNSPECIFIED },
    { kind: 99 },
    { time: undefined },
    { path: long },
    { decision: {} },
    { decision: { verdict: 9 } },
    { outcome: {} },
    { outcome: { status: 1000, duration: {}, timeToFirstByte: {} } },
    { outcome: { status: 200, duration: { seconds: -1n }, timeToFirstByte: {} } },
    { outcome: { status: 200, duration: {}, timeToFirstByte: {}, responseBodyBytes: 2n ** 60n } },
    { lostCount: 2n ** 53n },
  ];
  for (const change of refused) t.throws(() => read(change), { name: 'WireError' }, inspect(change));
  t.throws(() => acknowledgementOf(bytes(RecordResponseSchema, { storedThrough: 1n })), { name: 'WireError' });
  t.throws(() => acknowledgementOf(bytes(RecordResponseSchema, { bootId: 'boot', storedThrough: 2n ** 53n })), { name: 'WireError' });
});

t.test('no bytes make a reader throw anything but a WireError or a Fault', async () => {
  const readers = [grantOf, grantRequestOf, updateOf, attestationOf, attestRequestOf, eventBatchOf, acknowledgementOf];
  const sound = [
    grantBytes(grantFor('echo')),
    snapshotBytes(snapshot()),
    eventBatchBytes({ bootId: 'boot', events: [event(1), event(2)] }),
  ];
  const mutated = fc
    .tuple(fc.constantFrom(...sound), fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 4 }))
    .map(([from, changes]) => {
      const changed = Buffer.from(from);
      for (const [at, value] of changes) changed[at % changed.length] = value;
      return changed;
    });
  check(fc.oneof(fc.uint8Array({ maxLength: 200 }), mutated), (input) => {
    for (const read of readers) {
      try {
        read(input);
      } catch (error) {
        if (!(error instanceof WireError || error instanceof Fault)) throw error;
      }
    }
  });
});
