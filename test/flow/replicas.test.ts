/** Two brokers that share their keys through an API server, behind one address as a Service gives it: each can do what the other began. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createLocalJWKSet, jwtVerify } from 'jose';
import t, { type Test } from 'tap';
import { type RunningBroker, startBroker } from '../../src/broker/run.ts';
import { type Clock, systemClock } from '../../src/ops/clock.ts';
import type { BrokerSettings } from '../../src/settings/broker.ts';
import { parseSettings } from '../../src/settings/document.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { configMapPath, type ObjectServer, secretPath, startObjectServer } from '../fakes/object-server.ts';
import { field } from '../fakes/recorder.ts';
import { attestAt, channelTo, freePort, getJson, metricsOf } from '../support/broker.ts';
import { directoryOf } from '../support/directory.ts';
import { dial, exchange, wholeResponse } from '../support/path.ts';
import { type BrokerYaml, brokerYaml, eventually, host, metric, prepareStack, type Stack } from '../support/stack.ts';

const day = 24 * 3_600_000;

interface Replica {
  readonly broker: RunningBroker;
  readonly bundle: () => string;
  readonly apply: (providers: string) => void;
}

interface Replicas {
  readonly stack: Stack;
  readonly api: ObjectServer;
  readonly start: (name: string, more?: { readonly stopRequested?: Promise<void>; readonly adminPort?: number }) => Promise<Replica>;
}

/** Replicas have all in common but the directory of their leases; the proxies' bundle file is that of `a`. */
const prepare = async (t: Test, clock: Clock = systemClock): Promise<Replicas> => {
  const api = await startObjectServer(t);
  const dir = directoryOf(t, { 'api-ca.pem': api.caPem, 'api-token': api.bearer });
  const stack = await prepareStack(t, undefined, join(dir, 'stack'));
  const { files } = stack;
  const shared = `sharedKeys:
  apiServer: ${api.url}
  caFile: ${dir}/api-ca.pem
  tokenFile: ${dir}/api-token
  namespace: outrider
  secret: outrider-keys
  configMap: outrider-trust
`;
  const start: Replicas['start'] = async (name, { stopRequested, adminPort = 0 } = {}) => {
    const bundle = name === 'a' ? files.brokerCa : join(dir, `${name}-ca.pem`);
    const settings = (changes?: BrokerYaml): BrokerSettings => {
      const yaml = brokerYaml(files, stack.issuer.url, changes).replace(`${files.dir}/broker\n`, `${dir}/${name}\n`);
      const own = yaml.replace(files.brokerCa, bundle).replace('admin: 127.0.0.1:0', `admin: 127.0.0.1:${adminPort}`);
      return parseSettings(`${own}${shared}`, 'broker.yaml') as BrokerSettings;
    };
    const broker = await startBroker(settings(), { clock, log: stack.log(name), ...(stopRequested && { stopRequested }) });
    t.teardown(broker.close);
    return { broker, bundle: () => readFileSync(bundle, 'utf8'), apply: (providers) => broker.apply(settings({ providers })) };
  };
  return { stack, api, start };
};

/** As a Service does: every connection goes to one of those that are there. */
const startService = async (t: Test, ports: () => readonly number[]) => {
  let count = 0;
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    const there = ports();
    const onward = connect(there[count++ % there.length] as number, '127.0.0.1');
    for (const one of [socket, onward]) {
      open.add(one);
      one
        .on('error', () => undefined)
        .on('close', () => {
          open.delete(one);
          socket.destroy();
          onward.destroy();
        });
    }
    socket.pipe(onward).pipe(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    for (const one of open) one.destroy();
  });
  return { port: (server.address() as { port: number }).port };
};

const published = (api: ObjectServer): string =>
  (api.objects.get(configMapPath)?.['data'] as Record<string, string> | undefined)?.['ca.pem'] ?? '';
const certificates = (pem: string): number => pem.match(/BEGIN CERTIFICATE/g)?.length ?? 0;
const jwksOf = ({ broker, bundle }: Replica): Promise<unknown> => getJson(`https://127.0.0.1:${broker.issuer.port}/jwks`, bundle());

t.test('two that start at once are one: what one attested the other serves, and their keys and bundles agree', async (t) => {
  const { stack, api, start } = await prepare(t);
  const [a, b] = await Promise.all([start('a'), start('b')]);
  t.equal(a.bundle(), b.bundle());
  t.equal(certificates(a.bundle()), 1);
  t.equal(published(api), a.bundle(), 'and the cluster has it before they are ready');
  const jwks = (await jwksOf(a)) as { keys: [] };
  t.strictSame(await jwksOf(b), jwks);
  t.equal(jwks.keys.length, 1);

  const svid = await attestAt(a.broker, a.bundle(), stack.issuer.token());
  const atB = channelTo(t, b.broker, svid);
  const grant = await atB.getGrant('echo', '');
  await jwtVerify(grant.credentials[0]?.value.reveal() ?? '', createLocalJWKSet(jwks), { audience: 'https://echo.outrider.test' });
  const snapshot = new Promise<string[]>((resolve) => {
    atB.watch({ snapshot: ({ targets }) => resolve(targets.map(({ name }) => name)), revocation: () => undefined, ended: () => undefined });
  });
  t.strictSame(await snapshot, ['echo']);
  t.notMatch(await metricsOf(b.broker), /attestations_total\{attestor="cluster",result="ok"\}/, 'nobody attested there');
  const again = await channelTo(t, a.broker, svid).getGrant('echo', '');
  t.equal(again.configurationVersion, grant.configurationVersion);

  const later = await start('c');
  t.equal(later.bundle(), a.bundle());
  t.strictSame(await jwksOf(later), jwks);
  t.notMatch(stack.logs.join(''), /PRIVATE KEY/);
});

t.test("a program's requests go on when the broker its proxy talks to is gone", { timeout: 60_000 }, async (t) => {
  const { stack, start } = await prepare(t);
  const there = new Map([
    ['a', await start('a')],
    ['b', await start('b')],
  ]);
  const service = await startService(t, () => [...there.values()].map(({ broker }) => broker.grpc.port));
  const collector = await stack.startCollector(service.port);
  const proxy = await stack.startProxy(service.port, collector.grpc.port);
  await Promise.all([collector.ready(), proxy.ready()]);
  const socket = await dial(proxy.listen.port);
  t.teardown(() => socket.destroy());
  const request = async (): Promise<string> =>
    (await exchange(socket, `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse)).slice(0, 12);
  t.equal(await request(), 'HTTP/1.1 200');
  for (const [name, left] of [
    ['a', 'b'],
    ['b', 'c'],
  ] as const) {
    const { broker } = there.get(name) as Replica;
    const { broker: survivor, apply } = there.get(left) as Replica;
    const attestations = (): Promise<number> => metric(survivor.admin, 'outrider_broker_attestations_total', 'attestor="cluster"');
    const before = await attestations();
    there.delete(name);
    await broker.close();
    t.equal(await request(), 'HTTP/1.1 200', `${name} is gone`);
    await eventually(async () => (await metric(survivor.admin, 'outrider_broker_watchers')) === 1);
    // Another configuration drops the grant that the proxy holds: the next one must come from who is left.
    apply('  - { kind: jwt, name: echo-token, audience: "https://echo.outrider.test", lifetime: 4m }');
    await eventually(async () => {
      t.equal(await request(), 'HTTP/1.1 200');
      return (await metric(survivor.admin, 'outrider_broker_grants_total', 'result="ok"')) > 0;
    });
    t.equal(await attestations(), before, 'without a new attestation');
    if (!there.has('c')) there.set('c', await start('c'));
  }
  t.ok(
    stack.origin.requests.every((one) => field(one, 'authorization').length === 1),
    'each with its credential',
  );
});

t.test('a broker that starts waits for the API server, is not ready and makes no keys; one that runs goes on without it', async (t) => {
  const { stack, api, start } = await prepare(t);
  const a = await start('a');
  const stored = JSON.stringify(api.objects.get(secretPath));
  api.isAway = true;
  const svid = await attestAt(a.broker, a.bundle(), stack.issuer.token());
  await t.resolves(channelTo(t, a.broker, svid).getGrant('echo', ''));
  const adminPort = await freePort();
  const starting = start('b', { adminPort });
  await eventually(() => stack.logs.some((line) => /"role":"b".*503.*waiting for the keys that the brokers share/.test(line)));
  const look = (path: string) => fetch(`http://127.0.0.1:${adminPort}${path}`);
  t.equal((await look('/livez')).status, 200, 'nobody needs to restart it');
  const ready = await look('/readyz');
  t.equal(ready.status, 503);
  t.match(await ready.text(), 'waiting for the keys of the trust domain');
  t.match(await (await look('/metrics')).text(), 'outrider_broker_');
  t.notOk(stack.logs.some((line) => /"role":"b".*ready/.test(line)));
  const { promise: stopRequested, resolve: stop } = Promise.withResolvers<void>();
  const stopped = t.rejects(start('c', { stopRequested }), { name: 'StartStopped', message: /asked to stop while it waited/ });
  stop();
  await stopped;
  api.isAway = false;
  const b = await starting;
  t.equal(b.bundle(), a.bundle());
  t.equal(JSON.stringify(api.objects.get(secretPath)), stored);
});

t.test(
  'authority and signing key are rotated by one, seen by both, and nobody who knew the old ones is cut off',
  { timeout: 60_000 },
  async (t) => {
    const startedAt = Date.now();
    // Everything is long ago, until the clock has come to the present: TLS knows no other. It comes close and then goes on in seconds, so
    // that polls which were under way when it jumped are followed by others.
    const clock = createFakeClock(startedAt - 212.5 * day - 1_200_000);
    const inTime = (what: () => boolean | Promise<boolean>): Promise<boolean> =>
      eventually(() => {
        clock.advance(1_000);
        return what();
      });
    const { stack, api, start } = await prepare(t, clock);
    const [a, b] = await Promise.all([start('a'), start('b')]);
    const oldBundle = a.bundle();
    clock.advance(182.5 * day);
    await inTime(() => [a.bundle(), b.bundle(), published(api)].every((pem) => certificates(pem) === 2));
    t.equal(a.bundle(), b.bundle(), 'one successor, though both were due at once');
    t.equal(published(api), a.bundle());
    t.ok(a.bundle().startsWith(oldBundle), 'beside the one before');

    clock.advance(30 * day);
    const newBundle = a.bundle().slice(oldBundle.length);
    for (const { broker } of [a, b]) {
      // Its other server, which has the same certificate, is quicker to say no.
      await inTime(() =>
        getJson(`https://127.0.0.1:${broker.issuer.port}/jwks`, newBundle).then(
          () => true,
          () => false,
        ),
      );
    }
    clock.advance(Date.now() - clock.now());
    await t.rejects(attestAt(a.broker, oldBundle, stack.issuer.token()), { code: 'broker_untrusted' }, 'the new one signs');
    for (const [at, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const svid = await attestAt(at.broker, newBundle, stack.issuer.token());
      t.equal(svid.trustBundlePem, at.bundle(), 'whoever attests learns the whole bundle');
      await t.resolves(channelTo(t, other.broker, svid).getGrant('echo', ''));
    }
    await inTime(async () => JSON.stringify(await jwksOf(a)) === JSON.stringify(await jwksOf(b)));
    const { expiresAtMs } = await attestAt(b.broker, b.bundle(), stack.issuer.token());
    t.ok(expiresAtMs > startedAt);
  },
);
