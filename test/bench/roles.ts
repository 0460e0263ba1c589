/**
 * What broker, collector and injector take: the figures beside `resources` in charts/outrider/values.yaml. Each is the bundle with the image's
 * flags, pinned to one core: `npm run build && node test/bench/roles.ts`. Resident memory and CPU are from /proc.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { Agent, createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Secret } from '../../src/core/secret.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { attest, openBroker, openEvents } from '../../src/rpc/client.ts';
import type { Svid } from '../../src/rpc/svid.ts';
import { eventsFrom } from '../collector/events.ts';
import { createTestAuthority, type ServerFiles } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { fromBundle, residentMiB, startRole } from '../support/processes.ts';
import { brokerYaml, collectorId, collectorYaml, prepareStack } from '../support/stack.ts';
import { cores, cpuSeconds, pinned } from './machine.ts';

t.setTimeout(0);
const seconds = Number(process.env['ROLE_SECONDS'] ?? 15);
const bundle = join(import.meta.dirname, '../../dist');

/** MiB now and at the highest, and the share of a core since `from`. */
const taken = (pid: number, from?: { readonly atMs: number; readonly cpu: number }): string => {
  const { now, peak } = residentMiB(pid);
  const share = from === undefined ? '' : `, ${((cpuSeconds([pid]) - from.cpu) / ((Date.now() - from.atMs) / 1000)).toFixed(2)} of a core`;
  return `${now.toFixed(0)} MiB (highest ${peak.toFixed(0)})${share}`;
};
const mark = (pid: number): { atMs: number; cpu: number } => ({ atMs: Date.now(), cpu: cpuSeconds([pid]) });

const targetsYaml = (count: number): string =>
  Array.from(
    { length: count },
    (_, i) => `  - { name: t${i}, hosts: [t${i}.outrider.test], credentials: [{ provider: echo-token, placement: { kind: bearer } }] }`,
  ).join('\n');

for (const targets of [100, 10_000]) {
  t.test(`a broker of ${targets} targets`, { timeout: 300_000 }, async (t) => {
    const stack = await prepareStack(t);
    const policies = '  - name: bench\n    rules:\n      - { name: use, effect: allow, workloads: [demo-app] }';
    const text = brokerYaml(stack.files, stack.issuer.url, { targets: targetsYaml(targets), policies });
    const role = await startRole(t, 'broker', stack.files.dir, text, fromBundle(bundle), {
      command: pinned(cores.product, [process.execPath]),
    });
    const pid = role.child.pid as number;
    await pause(5_000);
    t.comment(`idle: ${taken(pid)}`);
    const broker = { address: `127.0.0.1:${role.ports['gRPC']}`, spiffeId: 'spiffe://outrider.test/outrider/broker' };
    const brokerCaPem = readFileSync(stack.files.brokerCa, 'utf8');
    const from = mark(pid);
    let attestations = 0;
    let grants = 0;
    const proxy = async (): Promise<void> => {
      while (Date.now() < from.atMs + seconds * 1000) {
        const evidence = { kind: 'projected_token', token: new Secret(readFileSync(stack.files.token, 'utf8')) } as const;
        const svid: Svid = await attest({ broker, brokerCaPem, evidence, key: createKeyPair(), timeoutMs: 10_000, clock: systemClock });
        attestations += 1;
        const channel = openBroker({ broker, svid });
        for (let i = 0; i < 5; i += 1) {
          await channel.getGrant(`t${Math.floor(Math.random() * targets)}`, '');
          grants += 1;
        }
        channel.close();
      }
    };
    await Promise.all(Array.from({ length: 8 }, proxy));
    t.comment(
      `${Math.round(attestations / seconds)} attestations and ${Math.round(grants / seconds)} grants a second: ${taken(pid, from)}`,
    );
  });
}

t.test('a collector', { timeout: 300_000 }, async (t) => {
  const stack = await prepareStack(t);
  const broker = await stack.startBroker();
  const text = collectorYaml(stack.files, broker.grpc.port);
  const role = await startRole(t, 'collector', stack.files.dir, text, fromBundle(bundle), {
    command: pinned(cores.product, [process.execPath]),
  });
  const pid = role.child.pid as number;
  await role.ready;
  await pause(5_000);
  t.comment(`idle: ${taken(pid)}`);
  const svid = await attest({
    broker: { address: `127.0.0.1:${broker.grpc.port}`, spiffeId: 'spiffe://outrider.test/outrider/broker' },
    brokerCaPem: readFileSync(stack.files.brokerCa, 'utf8'),
    evidence: { kind: 'projected_token', token: new Secret(readFileSync(stack.files.token, 'utf8')) },
    key: createKeyPair(),
    timeoutMs: 10_000,
    clock: systemClock,
  });
  const from = mark(pid);
  /** Each with a sequence of its own, as proxies have them: 20 events ten times a second. */
  const stored = await Promise.all(
    Array.from({ length: 10 }, async () => {
      const bootId = randomUUID();
      let through = 0;
      const on = { stored: (_: string, to: number) => void (through = to), drained: () => undefined, ended: () => undefined };
      const collector = { address: `127.0.0.1:${role.ports['gRPC']}`, spiffeId: collectorId };
      const channel = openEvents({ collector, svid, on });
      for (let sequence = 1; Date.now() < from.atMs + seconds * 1000; sequence += 20) {
        channel.write(bootId, eventsFrom(sequence, sequence + 19, { attestationId: svid.attestationId, workload: svid.spiffeId }));
        await pause(100);
      }
      channel.close();
      return through;
    }),
  );
  const rate = Math.round(stored.reduce((sum, count) => sum + count, 0) / seconds);
  t.comment(`${rate} events a second over 10 streams: ${taken(pid, from)}`);
  t.ok(rate > 0);
});

/** Has the trust domain's authorities, lets everything be made, and lists nothing. */
const startLenientApiServer = async (t: Test, files: ServerFiles, pem: string): Promise<string> => {
  const server = createServer(files, (request, response) => {
    const isCopy = request.url?.startsWith('/api/v1/namespaces/shop/') === true && request.method === 'GET';
    const metadata = { name: 'x', uid: 'u', resourceVersion: '1' };
    request.resume();
    response.writeHead(isCopy ? 404 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ apiVersion: 'v1', kind: 'Any', metadata, data: { 'ca.pem': pem }, items: [] }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
};

/** A pod as a Deployment makes it. */
const reviewOf = (i: number): string => {
  const metadata = { generateName: `shop-${i}-`, namespace: 'shop', labels: { app: 'shop' } };
  const env = Array.from({ length: 20 }, (_, n) => ({ name: `SETTING_${n}`, value: `value-${n}` }));
  const spec = { serviceAccountName: 'shop', containers: [{ name: 'app', image: 'app:1', env, ports: [{ containerPort: 8080 }] }] };
  const resource = { group: '', version: 'v1', resource: 'pods' };
  const request = {
    uid: `u${i}`,
    namespace: 'shop',
    operation: 'CREATE',
    resource,
    object: { apiVersion: 'v1', kind: 'Pod', metadata, spec },
  };
  return JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request });
};

t.test('an injector', { timeout: 300_000 }, async (t) => {
  const directory = directoryOf(t);
  const authority = createTestAuthority('Authority of the bench');
  const files = authority.serverFor('127.0.0.1');
  const at = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text, { mode: 0o600 });
    return join(directory, name);
  };
  const api = await startLenientApiServer(t, files, authority.pem);
  const text = `kind: injector
listen: 127.0.0.1:0
admin: 127.0.0.1:0
cluster: { apiServer: "${api}", caFile: ${at('ca.pem', authority.pem)}, tokenFile: ${at('token', 'bench-token')} }
namespace: outrider
serving: { files: { certFile: ${at('tls.crt', files.cert)}, keyFile: ${at('tls.key', files.key)} } }
trust: { configMap: outrider-trust }
webhookConfiguration: outrider-injector
sidecar:
  image: outrider:bench
  broker: { address: "broker.outrider.svc:15002", spiffeId: spiffe://outrider.test/outrider/broker }
  collector: { address: "collector.outrider.svc:15005", spiffeId: ${collectorId} }
`;
  const role = await startRole(t, 'injector', directory, text, fromBundle(bundle), { command: pinned(cores.product, [process.execPath]) });
  const pid = role.child.pid as number;
  await role.ready;
  await pause(5_000);
  t.comment(`idle: ${taken(pid)}`);
  const agent = new Agent({ keepAlive: true, ca: authority.pem });
  t.teardown(() => agent.destroy());
  const create = async (i: number): Promise<number> => {
    const sent = request({
      agent,
      host: '127.0.0.1',
      port: role.ports['webhook'],
      path: '/mutate',
      method: 'POST',
      headers: { 'content-type': 'application/json' },
    });
    sent.end(reviewOf(i));
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    response.resume();
    await once(response, 'end');
    return response.statusCode ?? 0;
  };
  const from = mark(pid);
  let pods = 0;
  /** A hundred a second: a cluster that starts anew. */
  for (let turn = 0; Date.now() < from.atMs + seconds * 1000; turn += 1) {
    const answers = await Promise.all(Array.from({ length: 10 }, (_, i) => create(turn * 10 + i)));
    pods += answers.filter((status) => status === 200).length;
    await pause(Math.max(0, from.atMs + (turn + 1) * 100 - Date.now()));
  }
  t.comment(`${Math.round(pods / seconds)} pods a second: ${taken(pid, from)}`);
  t.ok(pods > 0);
});
