/** Who may call: Attest and Health are open, everything else takes a verified SVID of the trust domain that is still good. */
import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { spiffeId } from '../../src/core/spiffe-id.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { extendedKeyUsage, subjectAltName } from '../../src/pki/extension.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueEndEntity } from '../../src/pki/leaf.ts';
import { attest, openBroker, openEvents } from '../../src/rpc/client.ts';
import { type Connection, openConnection } from '../../src/rpc/client/connection.ts';
import { trustOf } from '../../src/rpc/client/peer.ts';
import type { CallerIdentity } from '../../src/rpc/server.ts';
import { brokerService, eventsService, healthService, type Method } from '../../src/rpc/service.ts';
import type { Svid } from '../../src/rpc/svid.ts';
import { grantRequestBytes, watchRequestBytes } from '../../src/rpc/wire.ts';
import { createFakeClock } from '../fakes/clock.ts';
import {
  attestedAs,
  broker,
  collector,
  collectorId,
  createDomain,
  event,
  evidence,
  grantFor,
  handlersOf,
  hourMs,
  peerOf,
  workloadId,
} from './trust-domain.ts';

const domain = createDomain();
const { authority } = domain;
const nowMs = Date.now();

const codeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'ok',
    (fault: Fault) => fault.code,
  );
const detailOf = (call: Promise<unknown>): Promise<string> => call.then(String, (fault: Fault) => `${fault.code}: ${fault.detail}`);
const streamEnd = (connection: Connection, method: Method): Promise<string> =>
  new Promise((resolve) => {
    const stream = method.requestStream ? connection.bidiStream(method) : connection.serverStream(method, watchRequestBytes());
    stream.on('error', (error) => resolve(connection.faultOf(error as never).code)).on('data', () => resolve('ok'));
  });

/** An SVID with anything in it. */
const odd = (o: { uris?: readonly string[]; usage?: readonly ('serverAuth' | 'clientAuth')[] }): Svid => {
  const key = createKeyPair();
  const { pem } = issueEndEntity(authority, {
    publicKey: key.publicKey,
    nowMs,
    lifetimeMs: hourMs,
    extensions: [
      extendedKeyUsage(...(o.usage ?? ['clientAuth'])),
      subjectAltName(true, { uris: o.uris ?? [workloadId], hosts: ['a.test'] }),
    ],
  });
  return { ...domain.svid(), certificateChainPem: pem, privateKey: key.privateKey };
};

t.test('without a certificate there is Attest and Health, and nothing else', async (t) => {
  const server = await broker(t, domain);
  const events = await collector(t, domain, async () => 1);
  const open = (address: string, id: string): Connection => {
    const connection = openConnection({ address, spiffeId: id, trustBundlePem: authority.certificatePem, identity: undefined });
    t.teardown(() => connection.close());
    return connection;
  };
  const atBroker = open(peerOf(server).address, peerOf(server).spiffeId);
  const atCollector = open(peerOf(events).address, collectorId);
  const svid = await attest({
    broker: peerOf(server),
    brokerCaPem: authority.certificatePem,
    evidence,
    key: createKeyPair(),
    timeoutMs: 3_000,
    clock: systemClock,
  });
  t.equal(svid.spiffeId, workloadId);
  t.equal(await codeOf(atBroker.unary(healthService.methods.check, Buffer.alloc(0), 3_000)), 'ok');
  t.equal(await codeOf(atCollector.unary(healthService.methods.check, Buffer.alloc(0), 3_000)), 'ok');

  const refusal = await detailOf(atBroker.unary(brokerService.methods.getGrant, grantRequestBytes('echo', 'v1'), 3_000));
  t.equal(refusal, 'identity_refused: No certificate was shown.');
  t.equal(await streamEnd(atBroker, brokerService.methods.watch), 'identity_refused');
  t.equal(await streamEnd(atCollector, eventsService.methods.record), 'identity_refused');
  t.equal(
    await codeOf(atCollector.unary(brokerService.methods.attest, Buffer.alloc(0), 3_000)),
    'broker_error',
    'the collector attests nobody',
  );
});

t.test('the handler knows the caller by its certificate', async (t) => {
  const callers: CallerIdentity[] = [];
  const handlers = handlersOf(domain, {
    getGrant: async (caller, target) => {
      callers.push(caller);
      return grantFor(target);
    },
  });
  const server = await broker(t, domain, { handlers });
  const svid = domain.svid();
  const channel = openBroker({ broker: peerOf(server), svid });
  t.teardown(() => channel.close());
  await channel.getGrant('echo', 'v1');
  t.match(callers, [{ spiffeId: workloadId, attested: attestedAs, certificateExpiresAtMs: svid.expiresAtMs }]);
});

t.test('a certificate that is not a good SVID of the trust domain is refused, and why is said', async (t) => {
  const server = await broker(t, domain);
  const events = await collector(t, domain, async (_, __, batch) => batch.at(-1)?.sequence ?? 0);
  const refused: Record<string, readonly [Svid, string]> = {
    'by another authority': [createDomain().svid(), 'identity_refused'],
    expired: [domain.svid({ nowMs: nowMs - 2 * hourMs }), 'identity_expired'],
    'not yet valid': [domain.svid({ nowMs: nowMs + 2 * hourMs }), 'identity_refused'],
    'for servers only': [odd({ usage: ['serverAuth'] }), 'identity_refused'],
    'of another trust domain, by our authority': [domain.svid({ id: spiffeId('other.test', 'ns', 'demo') }), 'identity_refused'],
    'without an ID': [odd({ uris: [] }), 'identity_refused'],
    'with two IDs': [odd({ uris: [workloadId, 'spiffe://outrider.test/other'] }), 'identity_refused'],
    'with an ID that is the trust domain alone': [odd({ uris: ['spiffe://outrider.test'] }), 'identity_refused'],
    'of one whom nobody attested (a role, a client certificate that a target is shown)': [
      domain.svid({ attested: undefined }),
      'identity_refused',
    ],
    "the authority's own": [
      { ...domain.svid(), certificateChainPem: authority.certificatePem, privateKey: authority.key.privateKey },
      'identity_refused',
    ],
  };
  for (const [name, [svid, code]] of Object.entries(refused)) {
    const trusting = { ...svid, trustBundlePem: authority.certificatePem };
    const channel = openBroker({ broker: peerOf(server), svid: trusting });
    t.equal(await codeOf(channel.getGrant('echo', 'v1')), code, name);
    channel.close();
    const connection = openConnection(trustOf(peerOf(server), trusting));
    t.equal(await streamEnd(connection, brokerService.methods.watch), code, `${name}, watching`);
    connection.close();
    const toCollector = openConnection(trustOf(peerOf(events, collectorId), trusting));
    t.equal(await streamEnd(toCollector, eventsService.methods.record), code, `${name}, recording`);
    toCollector.close();
  }
});

t.test('an ID of another trust domain is refused even where its authority would let it through', async (t) => {
  // A trust domain that is no host name has no name constraint to hold it.
  const unconstrained = createDomain('10.0.0.1');
  const server = await broker(t, unconstrained);
  for (const [id, code] of [
    [workloadId, 'ok'],
    [spiffeId('other.test', 'ns', 'demo'), 'identity_refused'],
    [spiffeId('sub.outrider.test', 'ns', 'demo'), 'identity_refused'],
  ] as const) {
    const channel = openBroker({ broker: peerOf(server), svid: unconstrained.svid({ id }) });
    t.equal(await codeOf(channel.getGrant('echo', 'v1')), code, id);
    channel.close();
  }
});

t.test('an SVID that expires while its connection is open is refused from then on', async (t) => {
  const clock = createFakeClock();
  const server = await broker(t, domain, { clock });
  const events = await collector(t, domain, async (_, __, batch) => batch.at(-1)?.sequence ?? 0, { clock });
  const svid = domain.svid();
  const channel = openBroker({ broker: peerOf(server), svid });
  t.teardown(() => channel.close());
  const watchEnded = new Promise<Fault>((resolve, reject) => {
    channel.watch({ snapshot: () => undefined, revocation: () => reject(new Error('there is none')), ended: resolve });
  });
  let stored: () => void = () => undefined;
  const firstStored = new Promise<void>((resolve) => (stored = resolve));
  let ended: (fault: Fault) => void = () => undefined;
  const eventsEnded = new Promise<Fault>((resolve) => (ended = resolve));
  const stream = openEvents({
    collector: peerOf(events, collectorId),
    svid,
    on: { stored: () => stored(), drained: () => undefined, ended: (fault) => ended(fault) },
  });
  stream.write('boot', [event(1)]);
  await firstStored;
  t.equal(await codeOf(channel.getGrant('echo', 'v1')), 'ok');

  clock.advance(svid.expiresAtMs - clock.now() - 1);
  t.equal(await codeOf(channel.getGrant('echo', 'v1')), 'ok', 'a moment before');
  clock.advance(1);
  t.equal(await codeOf(channel.getGrant('echo', 'v1')), 'identity_expired');
  t.equal((await watchEnded).code, 'identity_expired');
  stream.write('boot', [event(2)]);
  t.equal((await eventsEnded).code, 'identity_expired');
});
