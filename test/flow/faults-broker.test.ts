import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { dersOf } from '../../src/pki/pem.ts';
import { attest } from '../../src/rpc/client.ts';
import { attestationBytes, grantBytes, snapshotBytes } from '../../src/rpc/wire.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { broker, brokerId, createDomain, evidence, grantFor, handlersOf, peerOf, snapshot, workloadId } from '../rpc/trust-domain.ts';
import { eventually } from '../support/stack.ts';
import { domain, identitiesOf, linkTo } from './faults/broker.ts';
import { answering, beginning, onGrpc, startSwitchboard, type Wrong, wrongPeers } from './faults/peers.ts';
import { expectedCodes, inParallel } from './faults/table.ts';

/**
 * A broker that is not there, silent, garbled or not the broker, at each stage of each call: a documented fault within the call's bound,
 * and the next call, at the same address, is right.
 */
t.setTimeout(180_000);
const identities = identitiesOf(brokerId);
let scenarios = 0;
t.teardown(() => t.comment(`${scenarios} scenarios`));

const attestBoundMs = 2_000;

const attestAt = (address: { readonly port: number }, timeoutMs: number = attestBoundMs) =>
  attest({
    broker: peerOf({ address }),
    brokerCaPem: domain.authority.certificatePem,
    evidence,
    key: createKeyPair(),
    timeoutMs,
    clock: systemClock,
  }).catch((fault: unknown) => fault as Fault);

const shown = (wrong: Wrong, result: unknown, tookMs: number): string =>
  `${wrong.stage}, ${wrong.what}: ${result instanceof Fault ? `${result.code} (${String(result.cause)})` : 'no fault'} after ${Math.round(tookMs)} ms`;

const svidMessage = attestationBytes({
  certificateChain: [Buffer.from('not this key')],
  trustBundle: [domain.authority.certificateDer],
  spiffeId: workloadId,
  expiresAtMs: Date.now() + 60_000,
  attestationId: 'a1',
});

t.test('attestation: each wrong ends in its fault within the bound, and the next attempt is right', async (t) => {
  const sound = await broker(t, domain);
  const wrong: string[] = [];
  await inParallel(wrongPeers(identities, svidMessage), 6, async (one) => {
    scenarios += 1;
    const board = await startSwitchboard(t);
    board.leadTo(await one.start(t));
    const startedAt = performance.now();
    const result = await attestAt(board.address);
    const tookMs = performance.now() - startedAt;
    if (!(result instanceof Fault) || !expectedCodes(one).includes(result.code) || tookMs > attestBoundMs + 1_000)
      wrong.push(shown(one, result, tookMs));
    board.leadTo(sound.address.port);
    const next = await attestAt(board.address, 10_000);
    if (next instanceof Fault) wrong.push(`afterwards: ${shown(one, next, 0)}`);
  });
  t.strictSame(wrong, []);
});

t.test('attestation: an SVID that does not hold together is not used', async (t) => {
  const sound = handlersOf(domain);
  type Attestation = Awaited<ReturnType<typeof sound.attest>>;
  const somebodys = dersOf(domain.svid().certificateChainPem);
  const lies: Record<string, (right: Attestation) => Partial<Attestation>> = {
    'for a key of somebody else': () => ({ certificateChain: somebodys }),
    'whose end is before its beginning': () => ({ expiresAtMs: Date.now() - 7_200_000 }),
    'with a chain of no certificates': () => ({ certificateChain: [] }),
    'with a bundle of no certificates': () => ({ trustBundle: [] }),
    'by an authority that is not in its bundle': () => ({ trustBundle: [createDomain().authority.certificateDer] }),
    'that is no certificate': () => ({ certificateChain: [Buffer.from('no')] }),
    'for another ID than it says': () => ({ spiffeId: brokerId }),
    'of another trust domain': () => ({ spiffeId: 'spiffe://elsewhere.test/ns/demo/sa/demo-app' }),
    'of no SPIFFE ID': () => ({ spiffeId: 'https://outrider.test/' }),
    'without a name': () => ({ attestationId: '' }),
  };
  const attestWith = async (lie: (right: Attestation) => Partial<Attestation>) => {
    const attest: typeof sound.attest = async (shown, request) => {
      const right = await sound.attest(shown, request);
      return { ...right, ...lie(right) };
    };
    const server = await broker(t, domain, { handlers: handlersOf(domain, { attest }) });
    return attestAt(server.address);
  };
  t.notOk((await attestWith(() => ({}))) instanceof Fault, 'the truth is taken');
  for (const [what, lie] of Object.entries(lies)) {
    scenarios += 1;
    const result = await attestWith(lie);
    t.equal(result instanceof Fault && result.code, 'broker_error', what);
  }
});

t.test('grants: each wrong ends in its fault within the bound, and the next one is right', async (t) => {
  const sound = await broker(t, domain);
  const wrong: string[] = [];
  await inParallel(wrongPeers(identities, grantBytes(grantFor('echo'))), 12, async (one) => {
    scenarios += 1;
    const clock = createFakeClock();
    const board = await startSwitchboard(t);
    board.leadTo(await one.start(t));
    const { getGrant, link, lines } = linkTo(t, board.address, clock);
    const startedAt = performance.now();
    const result = await getGrant();
    const tookMs = performance.now() - startedAt;
    if (!(result instanceof Fault) || !expectedCodes(one).includes(result.code) || tookMs > limits.getGrantTimeoutMs + 1_000)
      wrong.push(shown(one, result, tookMs));
    if (lines.join('').includes('canary-5e1f') && result instanceof Fault && result.detail.includes('canary'))
      wrong.push(`${one.what}: the peer's words are in the fault`);
    board.leadTo(sound.address.port);
    // The connection is tried anew after its pause, which is real.
    const next = await eventually(async () => {
      clock.advance(limits.reconnectPauseMaxMs);
      const found = await getGrant();
      return found instanceof Fault ? undefined : found;
    });
    if (next.target !== 'echo') wrong.push(`afterwards: ${next.target}`);
    link.close();
  });
  t.strictSame(wrong, []);
});

t.test('grants that lie are not used', async (t) => {
  const grant = grantFor('echo');
  const [credential] = grant.credentials;
  if (!credential) throw new Error('a grant has a credential');
  const bytes = (change: Partial<typeof grant>): Buffer => grantBytes({ ...grant, ...change });
  const lies: [string, Buffer, string][] = [
    ['for another target', bytes({ target: 'other' }), 'broker_error'],
    ['without a life', bytes({ lifetimeMs: 0 }), 'broker_error'],
    ['that lives for a day', bytes({ lifetimeMs: 86_400_000 }), 'broker_error'],
    ['without an id', bytes({ id: '' }), 'broker_error'],
    ['of no configuration', bytes({ configurationVersion: '' }), 'broker_error'],
    ['for port 0', bytes({ binding: { ...grant.binding, ports: [0] } }), 'broker_error'],
    ['for port 70000', bytes({ binding: { ...grant.binding, ports: [70_000] } }), 'broker_error'],
    ['for a host in another spelling', bytes({ binding: { ...grant.binding, hosts: ['ECHO.outrider.test.'] } }), 'broker_error'],
    ['for every host', bytes({ binding: { ...grant.binding, hosts: ['*'] } }), 'broker_error'],
    ['for no host', bytes({ binding: { ...grant.binding, hosts: [] } }), 'broker_error'],
    [
      'with an empty credential',
      bytes({
        credentials: [{ ...credential, value: new Secret('') }],
      }),
      'credential_invalid',
    ],
    ['of a mebibyte', Buffer.alloc(limits.messageBytesMax + 1, 10), 'broker_error'],
  ];
  for (const [what, message, code] of lies) {
    scenarios += 1;
    const { getGrant } = linkTo(t, { port: await onGrpc(t, identities.sound, answering(message)) }, createFakeClock());
    const result = await getGrant();
    t.equal(result instanceof Fault && result.code, code, what);
  }
});

t.test('the watch: each wrong is known within the bound, and the next one brings the targets', async (t) => {
  const sound = await broker(t, domain);
  const wrong: string[] = [];
  // A stream may well bring a message and then fail: the failure is told then, and the targets stand.
  await inParallel(wrongPeers(identities, snapshotBytes(snapshot())), 12, async (one) => {
    scenarios += 1;
    const clock = createFakeClock();
    const board = await startSwitchboard(t);
    board.leadTo(await one.start(t));
    const startedAt = performance.now();
    const { link, snapshots } = linkTo(t, board.address, clock);
    const fault = await eventually(() => link.fault());
    const tookMs = performance.now() - startedAt;
    if (
      tookMs > limits.getGrantTimeoutMs + 1_000 ||
      ![...expectedCodes(one), ...(one.stage === 'body' ? ['broker_unavailable'] : [])].includes(fault.code)
    )
      wrong.push(shown(one, fault, tookMs));
    const before = snapshots.length;
    board.leadTo(sound.address.port);
    await eventually(() => {
      clock.advance(limits.reconnectPauseMaxMs);
      return snapshots.length > before && link.fault() === undefined;
    });
    link.close();
  });
  t.strictSame(wrong, []);
});

t.test('snapshots that lie end the watch, and what was known stands', async (t) => {
  const [echo] = snapshot().targets;
  if (!echo) throw new Error('a snapshot has a target');
  const lies: [string, Parameters<typeof snapshotBytes>[0]][] = [
    ['a host in another spelling', { configurationVersion: 'v2', targets: [{ ...echo, hosts: ['Echo.Outrider.test'] }] }],
    ['a wildcard', { configurationVersion: 'v2', targets: [{ ...echo, hosts: ['*.outrider.test'] }] }],
    ['a host with a port', { configurationVersion: 'v2', targets: [{ ...echo, hosts: ['echo.outrider.test:443'] }] }],
    ['an address in a spelling of libc', { configurationVersion: 'v2', targets: [{ ...echo, hosts: ['127.1'] }] }],
    ['an address bound to an interface', { configurationVersion: 'v2', targets: [{ ...echo, hosts: ['fe80::1%eth0'] }] }],
    ['an address in a longer spelling', { configurationVersion: 'v2', targets: [{ ...echo, hosts: ['2001:DB8:0::7'] }] }],
    ['port 0', { configurationVersion: 'v2', targets: [{ ...echo, ports: [0] }] }],
    ['port 65536', { configurationVersion: 'v2', targets: [{ ...echo, ports: [65_536] }] }],
    ['no ports', { configurationVersion: 'v2', targets: [{ ...echo, ports: [] }] }],
    ['a target without a name', { configurationVersion: 'v2', targets: [{ ...echo, name: '' }] }],
    ['no version', { configurationVersion: '', targets: [echo] }],
  ];
  for (const [what, lie] of lies) {
    scenarios += 1;
    const port = await onGrpc(t, identities.sound, beginning(snapshotBytes(snapshot()), snapshotBytes(lie)));
    const { link, snapshots } = linkTo(t, { port }, createFakeClock());
    const fault = await eventually(() => link.fault() ?? (snapshots.length > 1 ? 'it was believed' : undefined));
    t.equal(fault instanceof Fault ? fault.code : fault, 'broker_error', what);
    t.equal(snapshots.length, 1, `${what}: what was known stands`);
  }
});
