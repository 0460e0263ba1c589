import { spawn } from 'node:child_process';
import dns from 'node:dns';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import type { Grant } from '../../src/core/grant.ts';
import type { TargetSnapshot } from '../../src/core/target.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import { type Clock, systemClock } from '../../src/ops/clock.ts';
import { startBrokerLink } from '../../src/proxy/broker-link.ts';
import { createGrantCache } from '../../src/proxy/grant/cache.ts';
import { type BrokerHandlers, type RpcServer, startBrokerServer, type WatchSender } from '../../src/rpc/server.ts';
import type { Svid } from '../../src/rpc/svid.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { brokerId, createDomain, grantFor, handlersOf, silent, snapshot, workloadId } from '../rpc/trust-domain.ts';
import { freePort } from '../support/free-port.ts';
import { eventually } from '../support/stack.ts';

/** One name, several brokers: what a proxy makes of a headless Service, and of addresses that come and go behind a name. */

const domain = createDomain();
const name = 'brokers.outrider.test';

/** What the name means, to grpc-js as well as to everybody in this process. */
const named = (t: Test, ...first: readonly string[]) => {
  let addresses = first;
  let lookups = 0;
  const original = dns.promises.lookup;
  const lookup = async (host: string, options: object): Promise<unknown> => {
    if (host !== name) return original(host, options);
    lookups += 1;
    if (addresses.length === 0) throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: 'ENOTFOUND' });
    return addresses.map((address) => ({ address, family: 4 }));
  };
  dns.promises.lookup = lookup as typeof original;
  t.teardown(() => (dns.promises.lookup = original));
  return { lead: (...to: readonly string[]) => void (addresses = to), lookups: () => lookups };
};

const start = async (t: Test, host: string, port: number, o: Partial<BrokerHandlers> = {}): Promise<RpcServer> => {
  const handlers = handlersOf(domain, { getGrant: async (_, target) => grantFor(target, { id: host }), ...o });
  const server = await startBrokerServer({
    listen: { host, port },
    identity: domain.identity(),
    handlers,
    log: silent,
    clock: systemClock,
  });
  t.teardown(() => server.close());
  return server;
};

/** Stands before a broker and can vanish without a word of goodbye, as a process that is killed. */
const killable = async (t: Test, host: string, port: number, to: RpcServer): Promise<{ kill: () => void }> => {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    const onward = connect(to.address.port, to.address.address);
    for (const one of [socket, onward]) {
      open.add(one);
      one
        .on('error', () => undefined)
        .on('close', () => {
          socket.destroy();
          onward.destroy();
        });
    }
    socket.pipe(onward).pipe(socket);
  }).listen(port, host);
  await once(server, 'listening');
  const kill = (): void => {
    server.close();
    for (const one of open) one.destroy();
  };
  t.teardown(kill);
  return { kill };
};

/** A proxy's link to the brokers of that name, whose SVID anyone of the trust domain has issued. */
const link = (t: Test, port: number, told: (snapshot: TargetSnapshot) => void = () => undefined, clock: Clock = systemClock) => {
  let svid = domain.svid();
  let onRenewal: (svid: Svid) => void = () => undefined;
  let snapshots = 0;
  const metrics = createMetrics('proxy');
  const made = startBrokerLink({
    broker: { address: `${name}:${port}`, spiffeId: brokerId },
    svids: {
      current: () => svid,
      fault: () => undefined,
      onChange: (listener) => {
        onRenewal = listener;
        return () => undefined;
      },
      ready: async () => svid,
      renew: () => undefined,
      close: () => undefined,
    },
    onSnapshot: (one) => {
      snapshots += 1;
      told(one);
    },
    onRevocation: () => undefined,
    clock,
    random: Math.random,
    metrics,
    log: silent,
  });
  t.teardown(() => made.close());
  const whoGrants = async (): Promise<string> => {
    try {
      return (await made.getGrant('echo', '')).id;
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  const renew = (): void => {
    svid = domain.svid();
    onRenewal(svid);
  };
  /** What is exported of a metric: labels → value. */
  const exported = async (metric: string): Promise<Record<string, number>> => {
    const lines = (await metrics.expose()).matchAll(new RegExp(`^${metric}(?:\\{(.*)\\})? (\\S+)$`, 'gm'));
    return Object.fromEntries([...lines].map(([, labels = '', value]) => [labels, Number(value)]));
  };
  return { ...made, whoGrants, renew, exported, snapshots: () => snapshots };
};

/** How long it took until it held, in milliseconds. */
const timeUntil = async (what: () => boolean | Promise<boolean>): Promise<number> => {
  const startedAt = performance.now();
  await eventually(what);
  return performance.now() - startedAt;
};

t.test('of several brokers behind a name one may be killed or end: grants and the watch go on at another', async (t) => {
  const port = await freePort();
  const real = await start(t, '127.0.0.4', 0);
  const { kill } = await killable(t, '127.0.0.2', port, real);
  const ending = await start(t, '127.0.0.3', port);
  const last = await start(t, '127.0.0.5', port);
  const { lead } = named(t, '127.0.0.2', '127.0.0.3', '127.0.0.5');
  const { whoGrants, snapshots } = link(t, port);
  await eventually(() => snapshots() === 1);
  t.equal(await whoGrants(), '127.0.0.4');
  kill();
  const killedMs = await timeUntil(async () => (await whoGrants()) === '127.0.0.3' && snapshots() === 2);
  t.ok(killedMs < 3_000, `after one was killed: ${killedMs} ms`);

  lead('127.0.0.3', '127.0.0.5');
  const closed = ending.close();
  const endedMs = await timeUntil(async () => (await whoGrants()) === '127.0.0.5' && snapshots() === 3);
  t.ok(endedMs < 3_000, `after one ended in order: ${endedMs} ms`);
  await closed;
  t.equal(await whoGrants(), last.address.address);
});

t.test('a broker that comes back under another address is found, though the name still led to the old one for a while', async (t) => {
  const port = await freePort();
  const before = await start(t, '127.0.0.2', port);
  const { lead, lookups } = named(t, '127.0.0.2');
  const { whoGrants, snapshots } = link(t, port);
  await eventually(() => snapshots() === 1);
  await before.close();
  const count = lookups();
  // The first look for another address finds the old one still.
  await eventually(async () => (await whoGrants()) === 'broker_unavailable' && lookups() > count);
  await start(t, '127.0.0.3', port);
  lead('127.0.0.3');
  const ms = await timeUntil(async () => (await whoGrants()) === '127.0.0.3' && snapshots() === 2);
  t.ok(ms < 5_000, `${ms} ms`);
});

t.test('a name that means nothing for a while is asked for again', async (t) => {
  const port = await freePort();
  const { lead } = named(t);
  await start(t, '127.0.0.2', port);
  const { whoGrants, snapshots } = link(t, port);
  t.equal(await whoGrants(), 'broker_unavailable');
  lead('127.0.0.2');
  const ms = await timeUntil(async () => (await whoGrants()) === '127.0.0.2' && snapshots() === 1);
  t.ok(ms < 5_000, `${ms} ms`);
});

/** A process that accepts nothing: once its backlog is full, a SYN to it is not answered. Undefined where the kernel answers for it. */
const swallow = async (t: Test, host: string, port: number): Promise<boolean> => {
  const listener = spawn(process.execPath, [
    '--eval',
    `require('node:net').createServer().listen({ host: '${host}', port: ${port}, backlog: 1 }, () => process.kill(process.pid, 'SIGSTOP'))`,
  ]);
  const fill: Socket[] = [];
  t.teardown(() => {
    listener.kill('SIGKILL');
    for (const socket of fill) socket.destroy();
  });
  await eventually(async () => {
    const socket = connect({ host, port });
    fill.push(socket);
    return new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
  });
  for (let i = 0; i < 50; i += 1) {
    const socket = connect({ host, port });
    fill.push(socket.on('error', () => undefined));
    const isAnswered = await Promise.race([
      new Promise<boolean>((resolve) => socket.once('connect', () => resolve(true))),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 300)),
    ]);
    if (!isAnswered) return true;
  }
  return false;
};

t.test('an address that swallows what it is sent does not keep a proxy from the next, nor from where the name leads later', async (t) => {
  const port = await freePort();
  if (!(await swallow(t, '127.0.0.2', port))) return t.comment('this kernel has no end of its backlog: left out');
  await start(t, '127.0.0.3', port);
  const { lead } = named(t, '127.0.0.2', '127.0.0.3');
  const both = link(t, port);
  const besideMs = await timeUntil(async () => (await both.whoGrants()) === '127.0.0.3' && both.snapshots() === 1);
  t.ok(besideMs < 2_000, `another address of the name: ${besideMs} ms`);

  lead('127.0.0.2');
  // Nobody asks for grants: the watch alone must find its way.
  const alone = link(t, port);
  await eventually(() => alone.fault() !== undefined);
  lead('127.0.0.3');
  const ms = await timeUntil(() => alone.snapshots() === 1);
  t.ok(ms < 7_000, `${ms} ms`);
});

t.test('a rule that one broker has removed is not enforced later, because another had it still when the proxy came to that', async (t) => {
  const port = await freePort();
  const granted = (configurationVersion: string): Grant => grantFor('echo', { id: `of ${configurationVersion}`, configurationVersion });
  await start(t, '127.0.0.2', port, { getGrant: async () => granted('v2'), watch: (_, send) => send.snapshot(snapshot('v2')) });
  const asked: ((grant: Grant) => void)[] = [];
  const watching: WatchSender[] = [];
  await start(t, '127.0.0.3', port, {
    getGrant: () => new Promise((resolve) => asked.push(resolve)),
    watch: (_, send) => void watching.push(send),
  });
  const { lead } = named(t, '127.0.0.2');

  const versions: string[] = [];
  const { getGrant, renew } = link(t, port, ({ configurationVersion }) => {
    versions.push(configurationVersion);
    cache.keepOnly(configurationVersion);
  });
  const cache = createGrantCache({
    fetch: ({ target, configurationVersion }) => getGrant(target, configurationVersion),
    clock: systemClock,
    random: Math.random,
  });
  const get = async (): Promise<Grant> => cache.get({ workload: workloadId, target: 'echo', configurationVersion: versions.at(-1) ?? '' });
  await eventually(() => versions.length === 1);
  lead('127.0.0.3');
  renew();
  const early = get();
  await eventually(() => asked.length === 1 && watching.length === 1);
  watching[0]?.snapshot(snapshot('v1'));
  await eventually(() => versions.length === 2);
  asked[0]?.(granted('v1'));
  t.match(await early, { id: 'of v1' }, 'what the broker that is watched has in force');
  watching[0]?.snapshot(snapshot('v2'));
  await eventually(() => versions.length === 3);
  const late = get();
  await eventually(() => asked.length === 2);
  asked[1]?.(granted('v2'));
  t.match(await late, { id: 'of v2' });
  t.strictSame(versions, ['v2', 'v1', 'v2']);
});

t.test('a watch counts as a call when it begins and when it is lost, and whether there is one is shown', async (t) => {
  const port = await freePort();
  const { lead } = named(t);
  const { renew, exported, snapshots } = link(t, port);
  const connected = async (): Promise<number | undefined> => (await exported('outrider_proxy_broker_connected'))[''];
  const watches = async (code: string): Promise<number | undefined> =>
    (await exported('outrider_proxy_broker_calls_total'))[`method="Watch",code="${code}"`];
  t.equal(await connected(), 0);
  t.equal(await watches('ok'), 0);

  const senders: WatchSender[] = [];
  const watched: Partial<BrokerHandlers> = {
    watch: (_, send) => {
      senders.push(send);
      send.snapshot(snapshot());
    },
  };
  const first = await start(t, '127.0.0.2', port, watched);
  lead('127.0.0.2');
  await eventually(() => snapshots() === 1);
  t.equal(await connected(), 1);
  t.equal(await watches('ok'), 1);
  const inVain = await watches('broker_unavailable');
  senders[0]?.snapshot(snapshot('v2'));
  await eventually(() => snapshots() === 2);
  t.equal(await watches('ok'), 1, 'once for each watch');

  renew();
  t.equal(await connected(), 1, 'a new identity is not a broker lost');
  await eventually(() => snapshots() === 3);
  t.equal(await connected(), 1);
  t.equal(await watches('ok'), 2);
  t.equal(await watches('broker_unavailable'), inVain);

  lead();
  await first.close();
  await eventually(async () => (await connected()) === 0);
  await start(t, '127.0.0.3', port, watched);
  lead('127.0.0.3');
  await eventually(() => snapshots() === 4);
  t.equal(await connected(), 1);
  t.equal(await watches('ok'), 3);
  t.ok(((await watches('broker_unavailable')) ?? 0) > (inVain ?? 0));
});

t.test('what alerts rest on is exported from the start, so that the first failure is not lost to a rate', async (t) => {
  const { exported } = link(t, await freePort());
  const calls = Object.keys(await exported('outrider_proxy_broker_calls_total'));
  for (const method of ['Attest', 'GetGrant', 'Watch'])
    for (const code of ['ok', 'broker_unavailable', 'broker_timeout', 'broker_untrusted', 'broker_error'])
      t.ok(calls.includes(`method="${method}",code="${code}"`), `${method} ${code}`);
});

/** One that has heard of its targets, and whose broker at 127.0.0.2 has been closed since. */
const linkThatLostItsBroker = async (t: Test) => {
  const port = await freePort();
  named(t, '127.0.0.2');
  const before = await start(t, '127.0.0.2', port);
  const clock = createFakeClock();
  const { whoGrants, snapshots } = link(t, port, undefined, clock);
  await eventually(() => snapshots() === 1);
  await before.close();
  return { port, clock, whoGrants, snapshots };
};

t.test('a broker that grants again is watched again at once, and where that fails, after the pause and no sooner', async (t) => {
  const { port, clock, whoGrants } = await linkThatLostItsBroker(t);
  await eventually(() => clock.waiting() === 1);

  let watches = 0;
  const refusing = await start(t, '127.0.0.2', port, {
    watch: () => {
      watches += 1;
      throw new Fault('overloaded');
    },
  });
  await eventually(async () => (await whoGrants()) === '127.0.0.2' && watches === 1);
  await eventually(() => clock.waiting() === 1);
  for (let i = 0; i < 10; i += 1) t.equal(await whoGrants(), '127.0.0.2');
  t.equal(watches, 1);
  clock.advance(limits.reconnectPauseMaxMs);
  await eventually(() => watches === 2);
  await refusing.close();
});

t.test('the watch is back as soon as a grant says that the broker is', async (t) => {
  const { port, clock, whoGrants, snapshots } = await linkThatLostItsBroker(t);
  for (let i = 2; i <= 3; i += 1) {
    await eventually(() => clock.waiting() === 1);
    const again = await start(t, '127.0.0.2', port);
    await eventually(async () => (await whoGrants()) === '127.0.0.2');
    await eventually(() => snapshots() === i);
    t.equal(clock.waiting(), 0, 'no pause was waited for');
    await again.close();
  }
});
