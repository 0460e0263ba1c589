/** The stream of access events over real sockets: what is acknowledged is stored, and nobody is flooded. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import type { AccessEvent } from '../../src/core/access-event.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { type EventChannel, openEvents } from '../../src/rpc/client.ts';
import type { RpcServer } from '../../src/rpc/server.ts';
import { collector, collectorId, createDomain, event, listen, peerOf } from './trust-domain.ts';

const domain = createDomain();

const gate = <T = void>(): { opened: Promise<T>; open: (value: T) => void } => {
  let open: (value: T) => void = () => undefined;
  const opened = new Promise<T>((resolve) => (open = resolve));
  return { opened, open };
};

interface Observed {
  readonly channel: EventChannel;
  readonly stored: readonly [bootId: string, through: number][];
  readonly storedThrough: (sequence: number) => Promise<void>;
  readonly ended: Promise<Fault>;
}

const observe = (t: Test, server: Pick<RpcServer, 'address'>, onDrained: () => void = () => undefined): Observed => {
  const stored: [string, number][] = [];
  const waiting: { sequence: number; resolve: () => void }[] = [];
  const ended = gate<Fault>();
  const channel = openEvents({
    collector: peerOf(server, collectorId),
    svid: domain.svid(),
    on: {
      stored: (bootId, through) => {
        stored.push([bootId, through]);
        for (const { sequence, resolve } of waiting) if (through >= sequence) resolve();
      },
      drained: onDrained,
      ended: ended.open,
    },
  });
  t.teardown(() => channel.close());
  return {
    channel,
    stored,
    ended: ended.opened,
    storedThrough: (sequence) => new Promise((resolve) => waiting.push({ sequence, resolve })),
  };
};

/** A way to the server that can be cut. */
const relay = async (t: Test, server: RpcServer): Promise<Pick<RpcServer, 'address'> & { cut: () => void }> => {
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    const onward = connect(server.address.port, '127.0.0.1');
    for (const one of [socket, onward]) sockets.add(one.on('error', () => undefined));
    socket.pipe(onward).pipe(socket);
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const cut = (): void => {
    listener.close();
    for (const socket of sockets) socket.destroy();
  };
  t.teardown(cut);
  return { address: listener.address() as AddressInfo, cut };
};

const lastOf = (events: readonly AccessEvent[]): number => events.at(-1)?.sequence ?? 0;

t.test('what is stored is acknowledged, as it came and in order', async (t) => {
  const batches: [string, string, readonly AccessEvent[]][] = [];
  const deltas: number[] = [];
  const server = await collector(
    t,
    domain,
    async (caller, bootId, events) => {
      batches.push([caller.spiffeId, bootId, events]);
      return lastOf(events);
    },
    { onStream: (delta) => deltas.push(delta) },
  );
  const { channel, stored, storedThrough } = observe(t, server);
  const outcome = {
    status: 200,
    fault: '',
    requestBodyBytes: 0,
    responseBodyBytes: 12_345_678_901,
    durationMs: 12.345,
    timeToFirstByteMs: 1.5,
    echoes: 2,
  };
  const decision = {
    verdict: 'allow' as const,
    policy: 'demo',
    policyVersion: 'p1',
    rule: 'read',
    reason: 'rule read of policy demo allows GET /hello',
  };
  const credentials = [{ providerKind: 'jwt', provider: 'minted', placement: 'bearer', fingerprint: 'ab12' }];
  const sent = [
    event(1, { decision, credentials }),
    event(2, { kind: 'outcome', outcome }),
    event(3, { kind: 'loss', lostCount: 7, path: '/ünï' }),
  ];
  t.equal(channel.write('boot', sent.slice(0, 2)), true);
  channel.write('boot', sent.slice(2));
  await storedThrough(3);
  t.strictSame(
    batches.map(([caller, bootId]) => [caller, bootId]),
    [
      [domain.svid().spiffeId, 'boot'],
      [domain.svid().spiffeId, 'boot'],
    ],
  );
  t.strictSame(
    batches.flatMap(([, , events]) => events),
    sent,
  );
  t.strictSame(stored, [
    ['boot', 2],
    ['boot', 3],
  ]);
  channel.close();
  await server.close();
  t.strictSame(deltas, [1, -1], 'one stream, counted in and out');
});

t.test('close() ends the stream once all that was written is acknowledged', async (t) => {
  const release = gate();
  const server = await collector(t, domain, async (_, __, events) => {
    await release.opened;
    return lastOf(events);
  });
  const { channel, stored, storedThrough, ended } = observe(t, server);
  for (let i = 1; i <= 5; i += 1) channel.write('boot', [event(i)]);
  channel.close();
  release.open();
  await storedThrough(5);
  t.equal(stored.length, 5);
  await server.close();
  t.equal(
    await Promise.race([ended.then(({ code }) => code), Promise.resolve('not ended')]),
    'not ended',
    'a stream that ended well ends without a word',
  );
});

t.test('the collector takes one batch of a stream at a time and the proxy is told to wait', async (t) => {
  let running = 0;
  let most = 0;
  const [entered, release] = [gate(), gate()];
  const server = await collector(t, domain, async (_, __, events) => {
    most = Math.max(most, (running += 1));
    entered.open();
    await release.opened;
    running -= 1;
    return lastOf(events);
  });
  const all = 2_000;
  let written = 0;
  const writeOn = (): void => {
    while (written < all && channel.write('boot', [event((written += 1), { path: `/${'x'.repeat(6_000)}` })]));
  };
  const { channel, storedThrough } = observe(t, server, writeOn);
  const done = storedThrough(all);
  writeOn();
  t.equal(written < all, true, 'not even before there is a connection');
  await entered.opened;
  for (let [turns, before] = [0, -1]; turns < 200; turns = written === before ? turns + 1 : 0) {
    before = written;
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(written < all / 2, `while the first is being stored, ${written} fit into the buffers between and the rest waits`);
  release.open();
  await done;
  t.equal(most, 1, 'never two batches of one stream');
});

t.test('a batch that cannot be stored ends the stream: neither it nor what follows is acknowledged', async (t) => {
  const asked: number[] = [];
  const server = await collector(t, domain, async (_, __, events) => {
    asked.push(lastOf(events));
    if (lastOf(events) === 2) throw new Fault('event_backlog', { detail: 'The disk is full.', cause: new Error('ENOSPC at /secret/path') });
    return lastOf(events);
  });
  const { channel, stored, ended } = observe(t, server);
  for (const i of [1, 2, 3]) channel.write('boot', [event(i)]);
  const fault = await ended;
  t.match(fault, { code: 'event_backlog', detail: 'The disk is full.' });
  t.notMatch(`${fault.message} ${String(fault.cause)}`, '/secret/path');
  t.strictSame(asked, [1, 2], 'the third was not even looked at');
  t.ok(stored.every(([, through]) => through < 2));
  t.equal(channel.write('boot', [event(4)]), false, 'an ended stream takes nothing');
});

t.test('messages that are not valid end the stream', async (t) => {
  const server = await collector(t, domain, async (_, __, events) => lastOf(events));
  const { channel, ended } = observe(t, server);
  channel.write('boot', [event(1, { path: 'x'.repeat(limits.wireTextBytesMax + 1) })]);
  t.match(await ended, { code: 'request_malformed', detail: /path is too long/ });
});

t.test('what was not acknowledged when the connection broke is written again on the next', async (t) => {
  const kept: number[] = [];
  const [entered, release] = [gate(), gate()];
  let isHanging = true;
  const server = await collector(t, domain, async (_, __, events) => {
    if (isHanging && lastOf(events) === 2) {
      entered.open();
      await release.opened;
    }
    for (const { sequence } of events) if (!kept.includes(sequence)) kept.push(sequence);
    return lastOf(events);
  });
  const path = await relay(t, server);
  const before = observe(t, path);
  before.channel.write('boot', [event(1)]);
  await before.storedThrough(1);
  before.channel.write('boot', [event(2)]);
  await entered.opened;
  path.cut();
  t.equal((await before.ended).code, 'broker_unavailable');
  isHanging = false;
  const after = observe(t, server);
  after.channel.write('boot', [event(2), event(3)]);
  await after.storedThrough(3);
  release.open();
  t.strictSame(kept, [1, 2, 3]);
  t.strictSame(before.stored, [['boot', 1]], 'what hung was never acknowledged');
});

t.test('a collector that shuts down finishes the batch at hand and says so', async (t) => {
  const [entered, release] = [gate(), gate()];
  const server = await collector(t, domain, async (_, __, events) => {
    entered.open();
    await release.opened;
    return lastOf(events);
  });
  const { channel, stored, ended } = observe(t, server);
  channel.write('boot', [event(1)]);
  channel.write('boot', [event(2)]);
  await entered.opened;
  const closed = server.close();
  release.open();
  t.equal((await ended).code, 'broker_unavailable');
  await closed;
  t.strictSame(stored, [['boot', 1]], 'the batch at hand, and no other');
  const next = await collector(t, domain, async (_, __, events) => lastOf(events), { listen: { ...listen, port: server.address.port } });
  const again = observe(t, next);
  again.channel.write('boot', [event(2)]);
  await again.storedThrough(2);
});

t.test('a batch larger than a message travels in parts', async (t) => {
  const sizes: number[] = [];
  const server = await collector(t, domain, async (_, __, events) => {
    sizes.push(events.length);
    return lastOf(events);
  });
  const { channel, storedThrough } = observe(t, server);
  const path = `/${'x'.repeat(8_000)}`;
  channel.write(
    'boot',
    Array.from({ length: 200 }, (_, i) => event(i + 1, { path })),
  );
  await storedThrough(200);
  t.equal(
    sizes.reduce((sum, size) => sum + size, 0),
    200,
  );
  t.ok(sizes.length > 1);
});

t.test('a proxy that vanishes is noticed', async (t) => {
  const gone = gate();
  const server = await collector(t, domain, async (_, __, events) => lastOf(events), {
    onStream: (delta) => (delta === -1 ? gone.open() : undefined),
  });
  const path = await relay(t, server);
  const { channel, storedThrough } = observe(t, path);
  channel.write('boot', [event(1)]);
  await storedThrough(1);
  path.cut();
  await gone.opened;
});
