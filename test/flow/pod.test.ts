import { chmodSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { buildBundle } from '../../scripts/build.ts';
import { field, type RecordedRequest } from '../fakes/recorder.ts';
import { needs, run } from '../pki/external-program.ts';
import { dial, exchange, wholeResponse } from '../support/path.ts';
import { fromBundle, startRole } from '../support/processes.ts';
import { collectorYaml, eventually, host, metric, prepareStack, proxyYaml, type StackFiles } from '../support/stack.ts';

/** What a container gives a role and what it does not: no user of its own in /etc/passwd, no home, no place to write but its volumes. */

t.setTimeout(180_000);

/** OpenShift's: a number from the namespace's range, in group 0. */
const user = 1_000_680_000;

const isPossible = (): boolean => process.getuid?.() === 0 && run('unshare', ['--mount', 'true']).ok;

/** The command before a role's: the file system read-only but for `volumes`, the user, no capability, and of the environment the PATH alone. */
const container = (volumes: readonly string[]): readonly string[] => [
  'unshare',
  '--mount',
  'sh',
  '-euc',
  [
    'mount --make-rprivate /',
    ...volumes.map((volume) => `mount --bind ${volume} ${volume}`),
    'mount -o remount,bind,ro /',
    `exec env -i --chdir=/ PATH="$PATH" setpriv --reuid=${user} --regid=0 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "$@"`,
  ].join('\n'),
  'sh',
  process.execPath,
];

/** A file of a projected volume as the kubelet changes it: a new directory, then the link to it. */
const project = (volume: string, name: string, text: string): void => {
  const version = mkdtempSync(join(volume, '..version-'));
  chmodSync(version, 0o755);
  writeFileSync(join(version, name), text, { mode: 0o644 });
  symlinkSync(version, join(volume, '..data_new'));
  renameSync(join(volume, '..data_new'), join(volume, '..data'));
  if (statSync(join(volume, name), { throwIfNoEntry: false }) === undefined) symlinkSync(join('..data', name), join(volume, name));
};

t.test(
  'proxy and collector in a pod: their files come late and change, and they need no more than their volumes',
  needs('setpriv'),
  async (t) => {
    if (!isPossible()) {
      t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], 'mount namespaces are required');
      return t.comment('no mount namespace may be made here: left out');
    }
    const dir = mkdtempSync(join(tmpdir(), 'outrider-pod-'));
    t.teardown(() => rmSync(dir, { recursive: true, force: true }));
    chmodSync(dir, 0o755);
    const bundle = join(dir, 'bundle');
    await buildBundle(bundle);
    const stack = await prepareStack(t, undefined, join(dir, 'stack'));
    const { files } = stack;
    chmodSync(files.originCa, 0o644);
    const volume = (name: string, mode = 0o755): string => {
      const path = join(dir, name);
      mkdirSync(path);
      chmodSync(path, mode);
      return path;
    };
    const [trust, token, collectorToken] = [volume('trust'), volume('token'), volume('collector-token')];
    // As the kubelet makes an emptyDir.
    const [open, own, store] = [volume('public', 0o777), volume('private', 0o777), volume('store', 0o777)];
    const inside: StackFiles = {
      ...files,
      dir,
      brokerCa: join(trust, 'ca.pem'),
      token: join(token, 'token'),
      collectorToken: join(collectorToken, 'token'),
      bundle: join(open, 'ca-bundle.pem'),
      events: join(store, 'events.jsonl'),
    };
    const svidLifetime = '4s';
    const first = await stack.startBroker({ svidLifetime });
    const { port } = first.grpc;

    const program = fromBundle(bundle);
    const collector = await startRole(t, 'collector', dir, collectorYaml(inside, port), program, { command: container([store]) });
    const proxySettings = proxyYaml(inside, port, collector.ports['gRPC'] as number, stack.origin)
      .replace('admin: 127.0.0.1:0', 'admin: 0.0.0.0:0')
      .replace(
        /^interception: .*$/m,
        `interception: { bundleFile: ${inside.bundle}, trustStoreFile: ${open}/trust-store.p12, stateFile: ${own}/authority.pem }`,
      );
    const proxy = await startRole(t, 'proxy', dir, proxySettings, program, { command: container([open, own]) });
    const admin = (role: typeof proxy) => ({ port: role.ports['admin'] as number });
    const attempts = async (result: string): Promise<readonly number[]> => [
      await metric(admin(proxy), 'outrider_proxy_svid_renewals_total', `result="${result}"`),
      await metric(admin(collector), 'outrider_collector_svid_renewals_total', `result="${result}"`),
    ];
    const bothHad = async (result: string): Promise<void> => {
      const before = await attempts(result);
      await eventually(async () => (await attempts(result)).every((count, i) => count > (before[i] as number)));
    };

    // Nothing is mounted yet.
    await bothHad('evidence_missing');
    for (const role of [proxy, collector]) {
      const ready = await fetch(`http://127.0.0.1:${admin(role).port}/readyz`);
      t.equal(ready.status, 503);
      t.match(await ready.text(), 'evidence_missing', 'says what it waits for');
      t.equal((await fetch(`http://127.0.0.1:${admin(role).port}/livez`)).status, 200);
    }
    project(token, 'token', readFileSync(files.token, 'utf8'));
    project(collectorToken, 'token', readFileSync(files.collectorToken, 'utf8'));
    await bothHad('broker_untrusted');
    project(trust, 'ca.pem', readFileSync(files.brokerCa, 'utf8'));
    await Promise.all([collector.ready, proxy.ready]);

    const ask = async (path: string): Promise<string> => {
      const socket = await dial(proxy.ports['proxy'] as number);
      const answer = await exchange(socket, `GET http://${host}${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
      socket.destroy();
      return answer;
    };
    const isStored = (path: string): boolean => readFileSync(inside.events, 'utf8').includes(`"path":"${path}"`);
    t.match(await ask('/first'), /^HTTP\/1\.1 200 /);
    t.match(field(stack.origin.requests.at(-1) as RecordedRequest, 'authorization'), [/^Bearer /]);
    await eventually(() => isStored('/first'));
    const modes = (...names: readonly string[]): string[] => names.map((name) => (statSync(name).mode & 0o777).toString(8));
    t.same(modes(inside.bundle, join(open, 'trust-store.p12')), ['644', '644'], 'programs of any user read these');
    t.same(modes(join(own, 'authority.pem')), ['600']);

    // Another authority altogether, as after the broker has lost its state: who has its certificate mounted comes back by itself.
    await first.close();
    rmSync(join(files.dir, 'broker'), { recursive: true });
    const second = await stack.startBroker({ svidLifetime, port });
    await bothHad('broker_untrusted');
    t.equal(await metric(second.admin, 'outrider_broker_attestations_total', 'result="ok"'), 0);
    project(trust, 'ca.pem', readFileSync(files.brokerCa, 'utf8'));
    await bothHad('ok');
    await eventually(async () => (await ask('/second')).startsWith('HTTP/1.1 200 '));
    await eventually(() => isStored('/second'));

    for (const role of [proxy, collector]) {
      t.equal(await role.stop(), 0);
      t.notMatch(role.output(), /EROFS|EACCES|EPERM|"level":"error"|eyJ/);
    }
  },
);
