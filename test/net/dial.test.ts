import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, isIPv6, type Server, Socket } from 'node:net';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { Destination } from '../../src/core/destination.ts';
import { limits } from '../../src/core/limits.ts';
import { createDialer, createResolver, type Dialer, type PinnedAddress } from '../../src/net/dial.ts';
import { type Attempt, familiesInTurn, firstToConnect } from '../../src/net/dial/tcp.ts';
import { freePort } from '../support/free-port.ts';

const strict = { privateAllowed: false, named: [] };
const loopback = { privateAllowed: false, named: ['127.0.0.1', '::1'] };
const at = (port: number, host = 'service.outrider.test'): Destination => ({ scheme: 'http', host, port });

/** A server that greets, and the addresses it was reached at. */
const startGreeter = async (t: Test, host: string, port = 0): Promise<{ port: number; reached: () => number; server: Server }> => {
  let reached = 0;
  const server = createServer((socket) => {
    reached += 1;
    socket.on('error', () => undefined).end(`from ${host}`);
  });
  server.listen(port, host);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return { port: (server.address() as AddressInfo).port, reached: () => reached, server };
};

const answering = (...answers: string[]): { dialer: Dialer; asked: string[] } => {
  const asked: string[] = [];
  const lookup = async (host: string): Promise<readonly string[]> => {
    asked.push(host);
    return answers;
  };
  return { dialer: createDialer({ resolver: createResolver([], undefined, lookup), chain: undefined }), asked };
};

const greeting = async (socket: Socket): Promise<string> => {
  let text = '';
  for await (const chunk of socket) text += String(chunk);
  return text;
};

t.test('addresses of both families are tried in turn, beginning with the one that the resolver put first', async (t) => {
  t.strictSame(familiesInTurn(['::1', '::2', '::3', '1.1.1.1', '2.2.2.2']), ['::1', '1.1.1.1', '::2', '2.2.2.2', '::3']);
  t.strictSame(familiesInTurn(['1.1.1.1', '::1', '::2']), ['1.1.1.1', '::1', '::2']);
  t.strictSame(familiesInTurn([]), []);
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(fc.uniqueArray(fc.oneof(fc.ipV4(), fc.ipV6())), (addresses) => {
      const inTurn = familiesInTurn(addresses);
      const fewer = Math.min(addresses.filter(isIPv6).length, addresses.filter((one) => !isIPv6(one)).length);
      const alternates = inTurn.slice(1, 2 * fewer).every((one, i) => isIPv6(one) !== isIPv6(inTurn[i] as string));
      return inTurn[0] === addresses[0] && alternates && inTurn.toSorted().join() === addresses.toSorted().join();
    }),
    { seed },
  );
});

/** Attempts that the test settles, and which of them were ended. */
const scripted = () => {
  const begun: { name: string; resolve: (value: string) => void; reject: (error: Error) => void }[] = [];
  const ended: string[] = [];
  let onBegin = (): void => undefined;
  const attempt = (name: string): Attempt<string> => {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    begun.push({ name, resolve, reject });
    onBegin();
    return { connected: promise, end: () => void ended.push(name) };
  };
  const begins = async (count: number): Promise<void> => {
    if (begun.length < count) await new Promise<void>((resolve) => (onBegin = () => begun.length >= count && resolve()));
  };
  return { attempt, begun, ended, begins };
};
const long = 600_000;

t.test('an address that does not answer does not hold up the next; the first to connect ends the others', async (t) => {
  const { attempt, begun, ended, begins } = scripted();
  const connected = firstToConnect(['a', 'b', 'c'], attempt, 1, long);
  await begins(3);
  begun[1]?.resolve('b');
  t.equal(await connected, 'b');
  t.strictSame(ended, ['a', 'c']);
  begun[0]?.resolve('a');
  await new Promise(setImmediate);
  t.strictSame(ended, ['a', 'c', 'a'], 'what connects too late is ended as well');
});

t.test('an address that fails hands over to the next at once', async (t) => {
  const { attempt, begun, begins } = scripted();
  const connected = firstToConnect(['a', 'b'], attempt, long, long);
  begun[0]?.reject(new Error('refused'));
  await begins(2);
  begun[1]?.resolve('b');
  t.equal(await connected, 'b');
});

t.test('when all addresses fail, all failures are told; when the deadline passes first, everything is ended', async (t) => {
  const failing = scripted();
  const failed = firstToConnect(['a', 'b'], failing.attempt, long, long);
  failing.begun[0]?.reject(new Error('first'));
  await failing.begins(2);
  failing.begun[1]?.reject(new Error('second'));
  await t.rejects(failed, { errors: [{ message: 'first' }, { message: 'second' }] });
  const hanging = scripted();
  await t.rejects(firstToConnect(['a', 'b'], hanging.attempt, 1, 20), { code: 'ETIMEDOUT' });
  t.strictSame(hanging.ended.toSorted(), ['a', 'b']);
});

t.test('a service that answers on one family only is reached, whichever the name gives first', async (t) => {
  for (const [only, other] of [
    ['127.0.0.1', '::1'],
    ['::1', '127.0.0.1'],
  ] as const) {
    const { port, reached } = await startOnOneFamily(t, only, other);
    for (const answers of [
      [only, other],
      [other, only],
    ]) {
      const { socket } = await answering(...answers).dialer.open(at(port), loopback, undefined);
      t.equal(await greeting(socket), `from ${only}`);
    }
    t.equal(reached(), 2);
  }
});

/** A port that is free on one family may be somebody's on the other: another one then. */
const startOnOneFamily = async (t: Test, only: string, other: string): ReturnType<typeof startGreeter> => {
  for (;;) {
    const greeter = await startGreeter(t, only);
    const probe = connect({ host: other, port: greeter.port });
    const isFree = await once(probe, 'connect').then(
      () => false,
      () => true,
    );
    probe.destroy();
    if (isFree) return greeter;
  }
};

t.test('an IPv6 literal is dialled as it is', async (t) => {
  const { port } = await startGreeter(t, '::1');
  const { dialer, asked } = answering('127.0.0.1');
  const { socket, alpn } = await dialer.open(at(port, '::1'), loopback, undefined);
  t.equal(socket.remoteFamily, 'IPv6');
  t.equal(alpn, '');
  t.equal(await greeting(socket), 'from ::1');
  t.strictSame(asked, [], 'and never looked up');
});

t.test('a refusal is told from other failures, even beside a family that has no network', async (t) => {
  const port = await freePort();
  await t.rejects(answering('127.0.0.1').dialer.open(at(port), loopback, undefined), { code: 'target_refused' });
  await t.rejects(answering('127.0.0.1', '::1').dialer.open(at(port), loopback, undefined), { code: 'target_refused' });
  // An address of no interface and no route: the system refuses to send there.
  const nowhere = { privateAllowed: false, named: ['255.255.255.255'] };
  await t.rejects(answering('255.255.255.255').dialer.open(at(port), nowhere, undefined), { code: 'target_unreachable' });
  const beside = { privateAllowed: false, named: ['255.255.255.255', '::1'] };
  await t.rejects(answering('::1', '255.255.255.255').dialer.open(at(port), beside, undefined), { code: 'target_refused' });
});

t.test('an address bound to a network interface is refused wherever it comes from', async (t) => {
  const allowed = { privateAllowed: true, named: ['fe80::1%lo', '::1%lo', 'fd00::1%lo'] };
  for (const address of allowed.named) {
    const { dialer } = answering('127.0.0.1', address);
    await t.rejects(dialer.open(at(80), { ...allowed, named: [...allowed.named, '127.0.0.1'] }, undefined), {
      code: 'destination_prohibited',
    });
    await t.rejects(dialer.open(at(80), allowed, undefined, { address, port: 80 }), { code: 'destination_prohibited' });
    const pin: PinnedAddress = { host: 'service.outrider.test', port: 80, address, addressPort: 80 };
    await t.rejects(createResolver([pin]).resolve(at(80), allowed), { code: 'destination_prohibited' });
  }
});

t.test('one prohibited answer among permitted ones refuses the name', async (t) => {
  const { reached, port } = await startGreeter(t, '127.0.0.1');
  for (const bad of ['169.254.169.254', '10.0.0.1', '::ffff:10.0.0.1', 'fe80::1']) {
    const { dialer } = answering('127.0.0.1', bad);
    await t.rejects(dialer.open(at(port), loopback, undefined), { code: 'destination_prohibited' }, bad);
  }
  await t.rejects(answering('127.0.0.1').dialer.open(at(port), strict, undefined), { code: 'destination_prohibited' });
  await t.rejects(answering().dialer.open(at(port), strict, undefined), { code: 'target_unresolved' });
  t.equal(reached(), 0);
});

t.test('where a program was going by itself it goes without a look-up or a judgement, but never to this proxy', async (t) => {
  const { port } = await startGreeter(t, '127.0.0.1');
  const elsewhere = await freePort();
  const asked: string[] = [];
  const lookup = async (host: string): Promise<readonly string[]> => {
    asked.push(host);
    return ['8.8.8.8'];
  };
  const own = await freePort();
  const pin: PinnedAddress = { host: 'service.outrider.test', port, address: '127.0.0.1', addressPort: elsewhere };
  const resolver = createResolver([pin], (candidate) => candidate.port === own, lookup);
  const dialer = createDialer({ resolver, chain: undefined });
  const { socket } = await dialer.open(at(port), strict, undefined, { address: '127.0.0.1', port });
  t.equal(await greeting(socket), 'from 127.0.0.1');
  t.strictSame(asked, []);
  const refused = { code: 'destination_prohibited', detail: 'It is this proxy itself.' };
  await t.rejects(dialer.open(at(port), strict, undefined, { address: '127.0.0.1', port: own }), refused);
});

t.test(
  'a silent connection is asked for after a minute, and is not ended',
  { skip: process.platform !== 'linux' && 'Linux' },
  async (t) => {
    const held: Socket[] = [];
    const server = createServer((socket) => void held.push(socket));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { dialer } = answering('127.0.0.1');
    const { socket } = await dialer.open(at((server.address() as AddressInfo).port), loopback, undefined);
    t.teardown(() => {
      for (const one of [socket, ...held]) one.destroy();
      server.close();
    });
    const port = (socket.localPort as number).toString(16).toUpperCase().padStart(4, '0');
    const row = readFileSync('/proc/net/tcp', 'utf8')
      .split('\n')
      // Established (01): a port may also stand there for a connection that has ended.
      .find((line) => new RegExp(`^ *\\d+: [0-9A-F]{8}:${port} [0-9A-F]{8}:[0-9A-F]{4} 01 `).test(line)) as string;
    // The timer that is running (2: keepalive) and the hundredths of a second until it ends.
    const [, timer, left] = / ([0-9]{2}):([0-9A-F]{8}) /.exec(row.replace(/ [0-9A-F]{8}:[0-9A-F]{8} /, ' ')) as unknown as string[];
    t.equal(timer, '02');
    const leftMs = Number.parseInt(left as string, 16) * 10;
    t.ok(leftMs > limits.targetProbeDelayMs - 30_000 && leftMs <= limits.targetProbeDelayMs, `${leftMs} ms`);
    t.equal(socket.timeout, undefined, 'and nothing of ours counts its silence');
  },
);
