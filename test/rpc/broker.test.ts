/** The broker's server and its clients over real sockets. */
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import t, { type Test } from 'tap';
import { Fault, type FaultCode, faults } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';
import { attest, type BrokerChannel, openBroker, type WatchListener } from '../../src/rpc/client.ts';
import { openConnection } from '../../src/rpc/client/connection.ts';
import { trustOf } from '../../src/rpc/client/peer.ts';
import type { BrokerHandlers, RpcServer, WatchSender } from '../../src/rpc/server.ts';
import { brokerService } from '../../src/rpc/service.ts';
import { grantRequestBytes } from '../../src/rpc/wire.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { dersOf } from '../../src/pki/pem.ts';
import { broker, brokerId, createDomain, evidence, grantFor, handlersOf, listen, peerOf, silent, snapshot } from './trust-domain.ts';

const domain = createDomain();
const canary = 'canary-9d41';

const channelTo = (t: Test, server: RpcServer): BrokerChannel => {
  const channel = openBroker({ broker: peerOf(server), svid: domain.svid() });
  t.teardown(() => channel.close());
  return channel;
};
const faultOf = (call: Promise<unknown>): Promise<Fault> =>
  call.then(
    () => Promise.reject(new Error('it was answered')),
    (fault: Fault) => fault,
  );
/** Promises for what a test waits for. */
const gate = <T = void>(): { opened: Promise<T>; open: (value: T) => void } => {
  let open: (value: T) => void = () => undefined;
  const opened = new Promise<T>((resolve) => (open = resolve));
  return { opened, open };
};

t.test('every fault that a handler throws arrives as it is, without its cause', async (t) => {
  const lines: string[] = [];
  const server = await broker(t, domain, {
    log: createLog({ role: 'test', level: 'debug', write: (line) => lines.push(line) }),
    handlers: handlersOf(domain, {
      getGrant: async (_, target) => {
        throw new Fault(target as FaultCode, { detail: `detail of ${target}`, cause: new Error(canary) });
      },
    }),
  });
  const channel = channelTo(t, server);
  for (const code of Object.keys(faults)) {
    const fault = await faultOf(channel.getGrant(code, 'v1'));
    if (fault.code !== code || fault.detail !== `detail of ${code}`) t.fail(`${code} came back as ${fault.code}: ${fault.detail}`);
    if (JSON.stringify([fault.message, String(fault.cause)]).includes(canary)) t.fail(`the cause of ${code} crossed`);
  }
  t.equal(lines.filter((line) => line.includes(canary)).length, Object.keys(faults).length, 'the cause is in the log, each time');
});

t.test('what is no fault crosses as broker_error and without a word of it', async (t) => {
  const lines: string[] = [];
  const codes: string[] = [];
  const server = await broker(t, domain, {
    log: createLog({ role: 'test', level: 'error', write: (line) => lines.push(line) }),
    onCall: (method, code) => codes.push(`${method} ${code}`),
    handlers: handlersOf(domain, {
      getGrant: () => Promise.reject(new TypeError(canary)),
      attest: () => Promise.reject(new Error(canary)),
    }),
  });
  const svid = domain.svid();
  const tls = credentials.createSsl(
    Buffer.from(svid.trustBundlePem),
    Buffer.from(svid.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string),
    Buffer.from(svid.certificateChainPem),
    { checkServerIdentity: () => undefined },
  );
  const client = new Client(`localhost:${server.address.port}`, tls);
  t.teardown(() => client.close());
  const { path, requestSerialize, responseDeserialize } = brokerService.methods.getGrant;
  const error = await new Promise<ServiceError | null>((resolve) => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, grantRequestBytes('echo', 'v1'), new Metadata(), {}, resolve);
  });
  t.match(error?.metadata.toJSON(), { 'outrider-fault': ['broker_error'] });
  t.notMatch(JSON.stringify([error?.details, error?.message, error?.metadata.toJSON()]), canary, 'nothing of it is on the wire');
  t.match(lines.join(''), canary, 'it is in the log');
  t.match(
    (
      await faultOf(
        attest({
          broker: peerOf(server),
          brokerCaPem: svid.trustBundlePem,
          evidence,
          key: createKeyPair(),
          timeoutMs: 3_000,
          clock: systemClock,
        }),
      )
    ).code,
    'broker_error',
  );
  t.strictSame(codes, ['GetGrant broker_error', 'Attest broker_error']);
});

t.test('an SVID that does not hold together is not taken', async (t) => {
  const stranger = createDomain();
  const sound = handlersOf(domain);
  const attestWith = async (handlers: Partial<BrokerHandlers>): Promise<string> => {
    const server = await broker(t, domain, { handlers: handlersOf(domain, handlers) });
    const call = attest({
      broker: peerOf(server),
      brokerCaPem: domain.authority.certificatePem,
      evidence,
      key: createKeyPair(),
      timeoutMs: 3_000,
      clock: systemClock,
    });
    return call.then(
      () => 'ok',
      (fault: Fault) => fault.code,
    );
  };
  const changed = (o: Partial<Awaited<ReturnType<BrokerHandlers['attest']>>>): Partial<BrokerHandlers> => ({
    attest: async (...given) => ({ ...(await sound.attest(...given)), ...o }),
  });
  t.equal(await attestWith({}), 'ok');
  t.equal(await attestWith(changed({ spiffeId: 'spiffe://outrider.test/other' })), 'broker_error', 'of another ID than it says');
  t.equal(await attestWith(changed({ trustBundle: [stranger.authority.certificateDer] })), 'broker_error', 'by none of the authorities');
  const another = domain.svid();
  t.equal(await attestWith(changed({ certificateChain: dersOf(another.certificateChainPem) })), 'broker_error', 'for another key');
  t.equal(await attestWith(changed({ certificateChain: [domain.authority.certificateDer] })), 'broker_error', 'an authority');
  t.equal(await attestWith(changed({ certificateChain: [Buffer.of(1)] })), 'broker_error', 'no certificate');
  t.equal(await attestWith(changed({ expiresAtMs: Date.now() - 1000 })), 'broker_error', 'that is over');
  t.equal(
    await attestWith({ attest: (...given) => handlersOf(stranger).attest(...given) }),
    'ok',
    'a new authority, told by the broker itself',
  );
});

t.test('fifty grants at a time over one connection', async (t) => {
  const codes: string[] = [];
  const server = await broker(t, domain, { onCall: (method, code, seconds) => codes.push(`${method} ${code} ${seconds >= 0}`) });
  const channel = channelTo(t, server);
  const targets = Array.from({ length: 50 }, (_, i) => `target-${i}`);
  const grants = await Promise.all(targets.map((target) => channel.getGrant(target, 'v1')));
  t.strictSame(
    grants.map(({ target }) => target),
    targets,
  );
  t.strictSame(
    codes,
    targets.map(() => 'GetGrant ok true'),
  );
});

t.test('more calls than a connection carries at a time wait for their turn', async (t) => {
  let most = 0;
  let running = 0;
  const server = await broker(t, domain, {
    handlers: handlersOf(domain, {
      getGrant: async (_, target) => {
        most = Math.max(most, (running += 1));
        await new Promise((resolve) => setImmediate(resolve));
        running -= 1;
        return grantFor(target);
      },
    }),
  });
  const channel = channelTo(t, server);
  await channel.getGrant('first', 'v1');
  const grants = await Promise.all(Array.from({ length: 3 * limits.grpcStreamsMax }, (_, i) => channel.getGrant(`target-${i}`, 'v1')));
  t.equal(grants.length, 3 * limits.grpcStreamsMax);
  t.ok(most <= limits.grpcStreamsMax, `${most} at a time`);
});

t.test('the handler hears which grant was refused, and of none where none was', async (t) => {
  const heard: unknown[] = [];
  const server = await broker(t, domain, {
    handlers: handlersOf(domain, {
      getGrant: async (_, target, configurationVersion, rejectedGrantId) => {
        heard.push([configurationVersion, rejectedGrantId]);
        return grantFor(target);
      },
    }),
  });
  const channel = channelTo(t, server);
  await channel.getGrant('echo', 'v1');
  await channel.getGrant('echo', 'v2', 'g-1');
  t.strictSame(heard, [
    ['v1', ''],
    ['v2', 'g-1'],
  ]);
});

t.test('a grant for another target than was asked for is not taken', async (t) => {
  const server = await broker(t, domain, { handlers: handlersOf(domain, { getGrant: async () => grantFor('another') }) });
  t.equal((await faultOf(channelTo(t, server).getGrant('echo', 'v1'))).code, 'broker_error');
});

t.test('messages past the limit are refused, in both directions', async (t) => {
  const huge = grantFor('echo', {
    rules: Array.from({ length: 1000 }, (_, i) => ({
      policy: 'p'.repeat(1100),
      policyVersion: 'v',
      name: `r${i}`,
      effect: 'allow' as const,
      methods: [],
      paths: [],
      condition: '',
    })),
  });
  const lines: string[] = [];
  const server = await broker(t, domain, {
    log: createLog({ role: 'test', level: 'error', write: (line) => lines.push(line) }),
    handlers: handlersOf(domain, {
      getGrant: async () => huge,
      watch: (_, send) =>
        send.snapshot({ ...snapshot(), targets: [{ ...snapshot().targets[0]!, trustBundlePem: 'x'.repeat(limits.messageBytesMax) }] }),
    }),
  });
  const channel = channelTo(t, server);
  t.equal((await faultOf(channel.getGrant('echo', 'v1'))).code, 'broker_error');
  const ended = gate<Fault>();
  channel.watch({ snapshot: () => t.fail('it is too large'), revocation: () => undefined, ended: ended.open });
  t.equal((await ended.opened).code, 'broker_error');
  t.equal(lines.filter((line) => line.includes('the limit is')).length, 2, 'the log says why');

  const connection = openConnection(trustOf(peerOf(server), domain.svid()));
  t.teardown(() => connection.close());
  t.equal(
    (await faultOf(connection.unary(brokerService.methods.getGrant, Buffer.alloc(limits.messageBytesMax + 1), 3_000))).code,
    'broker_error',
  );
  t.equal((await faultOf(connection.unary(brokerService.methods.getGrant, Buffer.from([0xff, 0xff]), 3_000))).code, 'request_malformed');
});

t.test('a client that sends more than the limit is cut off by the server', async (t) => {
  const server = await broker(t, domain, {
    handlers: handlersOf(domain, { getGrant: () => Promise.reject(new Error('it must not come this far')) }),
  });
  const svid = domain.svid();
  const key = Buffer.from(svid.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string);
  const tls = credentials.createSsl(Buffer.from(svid.trustBundlePem), key, Buffer.from(svid.certificateChainPem), {
    checkServerIdentity: () => undefined,
  });
  const client = new Client(`localhost:${server.address.port}`, tls, { 'grpc.max_send_message_length': -1 });
  t.teardown(() => client.close());
  const { path, requestSerialize, responseDeserialize } = brokerService.methods.getGrant;
  const error = await new Promise<ServiceError | null>((resolve) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      Buffer.alloc(limits.messageBytesMax + 1),
      new Metadata(),
      {},
      resolve,
    );
  });
  t.match(error?.details, /larger than max/i);
});

t.test('close() lets calls in flight finish, takes no new ones and frees the port', async (t) => {
  const [entered, release] = [gate(), gate()];
  const server = await broker(t, domain, {
    handlers: handlersOf(domain, {
      getGrant: async (_, target) => {
        entered.open();
        await release.opened;
        return grantFor(target);
      },
    }),
  });
  const channel = channelTo(t, server);
  const inFlight = channel.getGrant('echo', 'v1');
  await entered.opened;
  const closed = server.close();
  t.equal(server.close(), closed, 'closing twice is closing once');
  const late = openBroker({ broker: peerOf(server), svid: domain.svid() });
  t.equal((await faultOf(late.getGrant('echo', 'v1'))).code, 'broker_unavailable');
  release.open();
  t.equal((await inFlight).target, 'echo');
  await closed;
  const again = await broker(t, domain, { listen: { ...listen, port: server.address.port } });
  t.equal((await channel.getGrant('echo', 'v1')).target, 'echo', 'the same channel finds the next broker');
  t.equal(again.address.port, server.address.port);
});

t.test("a channel's close() lets its calls in flight finish", async (t) => {
  const [entered, release] = [gate(), gate()];
  const server = await broker(t, domain, {
    handlers: handlersOf(domain, {
      getGrant: async (_, target) => {
        entered.open();
        await release.opened;
        return grantFor(target);
      },
    }),
  });
  const channel = openBroker({ broker: peerOf(server), svid: domain.svid() });
  channel.watch({ snapshot: () => undefined, revocation: () => undefined, ended: () => t.fail('closing is not worth a word') });
  const inFlight = channel.getGrant('echo', 'v1');
  await entered.opened;
  channel.close();
  release.open();
  t.equal((await inFlight).target, 'echo');
  t.equal((await faultOf(channel.getGrant('echo', 'v1'))).code, 'broker_unavailable');
  await server.close();
});

t.test("the server's identity and clients' authorities change under live calls", async (t) => {
  const next = createDomain();
  const server = await broker(t, domain);
  const channel = channelTo(t, server);
  const ended = gate<Fault>();
  const snapshots = gate();
  channel.watch({ snapshot: () => snapshots.open(), revocation: () => undefined, ended: ended.open });
  await snapshots.opened;
  let isDone = false;
  const calls = (async (): Promise<number> => {
    let n = 0;
    for (; !isDone; n += 1) await channel.getGrant(`target-${n}`, 'v1');
    return n;
  })();
  const freshly = async (from: typeof domain): Promise<string> => {
    const fresh = openBroker({ broker: peerOf(server), svid: from.svid() });
    const code = await fresh.getGrant('echo', 'v1').then(
      () => 'ok',
      (fault: Fault) => fault.code,
    );
    fresh.close();
    return code;
  };
  for (let i = 0; i < 5; i += 1) {
    server.setIdentity(domain.identity());
    t.equal(await freshly(domain), 'ok', 'a renewed certificate');
  }
  server.setIdentity(next.identity());
  t.equal(await freshly(next), 'ok', 'a new authority');
  t.equal(await freshly(domain), 'broker_untrusted', 'who trusts the old one alone is told');
  isDone = true;
  t.ok((await calls) > 0, 'no call of the connection that was open failed');
  t.equal(await Promise.race([ended.opened.then(() => 'ended'), Promise.resolve('open')]), 'open');
});

t.test('a watch brings a snapshot at once, then changes and revocations, in order', async (t) => {
  const sender = gate<WatchSender>();
  const over = gate();
  const server = await broker(t, domain, {
    handlers: handlersOf(domain, {
      watch: (_, send, ended) => {
        send.snapshot(snapshot('v1'));
        sender.open(send);
        ended.addEventListener('abort', () => over.open());
      },
    }),
  });
  const seen: unknown[] = [];
  const all = gate();
  const listener: WatchListener = {
    snapshot: (value) => void seen.push(value),
    revocation: (value) => {
      seen.push(value);
      if (seen.length === 4) all.open();
    },
    ended: () => t.fail('it was cancelled by us'),
  };
  const watch = channelTo(t, server).watch(listener);
  const send = await sender.opened;
  send.revocation({ target: 'echo', grantIds: ['a', 'b'] });
  send.snapshot({ configurationVersion: 'v2', targets: [] });
  send.revocation({ target: 'echo', grantIds: [] });
  await all.opened;
  t.strictSame(seen, [
    snapshot('v1'),
    { target: 'echo', grantIds: ['a', 'b'] },
    { configurationVersion: 'v2', targets: [] },
    { target: 'echo', grantIds: [] },
  ]);
  watch.cancel();
  await over.opened;
  send.snapshot(snapshot('v3'));
  t.equal(seen.length, 4, 'nothing is sent to nobody');
});

t.test('a watch that is refused, or whose broker goes, ends with the reason, once', async (t) => {
  const codes: string[] = [];
  const refusing = await broker(t, domain, {
    onCall: (method, code) => codes.push(`${method} ${code}`),
    handlers: handlersOf(domain, {
      watch: () => {
        throw new Fault('workload_unknown', { detail: 'not any more' });
      },
    }),
  });
  const refused = gate<Fault>();
  channelTo(t, refusing).watch({ snapshot: () => t.fail('refused'), revocation: () => undefined, ended: refused.open });
  t.match(await refused.opened, { code: 'workload_unknown', detail: 'not any more' });
  t.strictSame(codes, ['Watch workload_unknown']);

  const server = await broker(t, domain);
  const first = gate();
  const faultsSeen: Fault[] = [];
  const ended = gate();
  const channel = channelTo(t, server);
  channel.watch({
    snapshot: () => first.open(),
    revocation: () => undefined,
    ended: (fault) => {
      faultsSeen.push(fault);
      ended.open();
    },
  });
  await first.opened;
  await server.close();
  await ended.opened;
  t.match(faultsSeen, [{ code: 'broker_unavailable' }]);
  const again = gate<Fault>();
  channel.watch({ snapshot: () => t.fail('nobody is there'), revocation: () => undefined, ended: again.open });
  t.equal((await again.opened).code, 'broker_unavailable');
  const next = await broker(t, domain, { listen: { ...listen, port: server.address.port } });
  t.ok(next);
  const resumed = gate();
  const tryAgain = (): void =>
    void channel.watch({ snapshot: () => resumed.open(), revocation: () => undefined, ended: () => setImmediate(tryAgain) });
  tryAgain();
  await resumed.opened;
});

t.test('a watcher that does not read loses its watch, not the broker its memory', async (t) => {
  const codes = gate<string>();
  const sender = gate<WatchSender>();
  const server = await broker(t, domain, {
    onCall: (_, code) => codes.open(code),
    handlers: handlersOf(domain, { watch: (_, send) => sender.open(send) }),
  });
  const connection = openConnection(trustOf(peerOf(server), domain.svid()));
  t.teardown(() => connection.close());
  const stream = connection.serverStream(brokerService.methods.watch, Buffer.alloc(0));
  stream.on('error', () => undefined).pause();
  const send = await sender.opened;
  const large = { ...snapshot(), targets: [{ ...snapshot().targets[0]!, trustBundlePem: 'x'.repeat(limits.messageBytesMax / 2) }] };
  let sent = 0;
  let code: string | undefined;
  void codes.opened.then((value) => (code = value));
  for (; code === undefined && sent < 1000; sent += 1) {
    send.snapshot(large);
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.equal(code, 'broker_unavailable');
  t.ok(sent < 100, `after ${sent} snapshots`);
  stream.cancel();
});

t.test('a port in use is said in words', async (t) => {
  const server = await broker(t, domain);
  await t.rejects(broker(t, domain, { listen: { ...listen, port: server.address.port } }), /in use/);
  t.equal(peerOf(server).spiffeId, brokerId);
  t.ok(silent);
});
