/** What changes while a broker runs: configuration files, trust bundles, signing keys, its own certificate. */
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import { type Clock, systemClock } from '../../src/ops/clock.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { startClusterIssuer } from '../fakes/cluster-issuer.ts';
import { attestAt, brokerFiles, channelTo, createLogLines, demoPolicies, getJson, metricsOf, startBrokerRig } from '../support/broker.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { startBroker } from '../../src/broker/run.ts';
import { watchFiles } from '../../src/broker/run/watch-files.ts';
import { directoryOf } from '../support/directory.ts';
import { eventually } from '../support/stack.ts';

/** The system's clock, with files read again after milliseconds rather than seconds. */
const quickPolls: Clock = {
  ...systemClock,
  after: (ms, callback) => systemClock.after(ms === limits.configurationPollMs ? 5 : ms, callback),
};

/** Whole, as an editor or a mount does: a poll must not see half of it. */
const put = (file: string, content: string): void => {
  writeFileSync(`${file}.new`, content);
  renameSync(`${file}.new`, file);
};

await t.test(
  'a changed file is in force without a restart; a rejected one leaves the old in force, is counted and says every problem',
  async (t) => {
    const rig = await startBrokerRig(t, { clock: quickPolls, isReloading: true });
    const { files, logs, broker, cluster } = rig;
    const bundle = readFileSync(files.bundle, 'utf8');
    const channel = channelTo(t, broker, await attestAt(broker, bundle, cluster.token()));
    await t.resolves(channel.getGrant('echo', ''));

    put(files.configuration, files.text(demoPolicies.replace('allow', 'deny')));
    await logs.next(/configuration in force/);
    await t.rejects(channel.getGrant('echo', ''), { code: 'policy_denied', decision: { rule: 'use-echo' } });

    put(files.configuration, files.text().replace('trustDomain', 'trustDomian').replace('audience: outrider', 'audience: ""'));
    const line = await logs.next(/configuration rejected/);
    const { problems } = JSON.parse(line) as { problems: string[] };
    t.ok(problems.length >= 2, 'all problems at once');
    for (const problem of problems) t.match(problem, /broker\.yaml:\d+:\d+ /);
    t.match(line, /trustDomain/);
    await t.rejects(channel.getGrant('echo', ''), { code: 'policy_denied' }, 'the one before stays in force');
    t.match(
      await metricsOf(broker),
      /outrider_broker_configuration_current 0\n/,
      'and that the file is not in force can be seen for as long',
    );

    // As after a rollback: nothing new is in force, and nothing is wrong any more.
    put(files.configuration, files.text(demoPolicies.replace('allow', 'deny')));
    await eventually(async () => /outrider_broker_configuration_current 1\n/.test(await metricsOf(broker)));

    put(files.configuration, files.text().replace('outrider.test\nstateDir', 'other.test\nstateDir'));
    t.match(await logs.next(/configuration rejected/), /trustDomain: cannot change while the broker runs/);
    put(files.configuration, 'kind: collector');
    await logs.next(/configuration rejected/);
    rmSync(files.configuration);
    await logs.next(/configuration rejected/);

    put(files.configuration, files.text());
    await logs.next(/configuration in force/);
    await t.resolves(channel.getGrant('echo', ''));
    const metrics = await metricsOf(broker);
    t.match(metrics, /outrider_broker_configuration_current 1\n/);
    t.match(metrics, /outrider_broker_configuration_reloads_total\{result="ok"\} 2\n/);
    t.match(metrics, /outrider_broker_configuration_reloads_total\{result="rejected"\} 4\n/);
  },
);

await t.test('a configuration that was rejected for a file it names is tried again when that file appears', async (t) => {
  const { files, logs } = await startBrokerRig(t, { clock: quickPolls, isReloading: true });
  const caFile = join(files.directory, 'late-ca.pem');
  const more = `\n  - { name: new, hosts: [new.outrider.test], caFile: ${caFile}, credentials: [{ provider: own, placement: { kind: bearer } }] }`;
  put(files.configuration, files.text(demoPolicies, more));
  t.match(await logs.next(/configuration rejected/), /target new: caFile .* cannot be used \(ENOENT\)/);
  put(caFile, createTestAuthority().pem);
  t.match(await logs.next(/configuration (in force|rejected)/), /in force/);
});

await t.test('a mounted file that is swapped by its directory link is noticed', async (t) => {
  const clock = createFakeClock();
  const directory = directoryOf(t);
  const publish = (version: string): void => {
    mkdirSync(join(directory, version));
    writeFileSync(join(directory, version, 'broker.yaml'), version);
    symlinkSync(version, join(directory, '..data_tmp'));
    renameSync(join(directory, '..data_tmp'), join(directory, '..data'));
  };
  publish('..first');
  symlinkSync(join('..data', 'broker.yaml'), join(directory, 'broker.yaml'));
  let changes = 0;
  const watch = watchFiles(
    () => [join(directory, 'broker.yaml')],
    clock,
    () => {
      changes += 1;
    },
  );
  t.teardown(watch.close);
  const until = async (count: number): Promise<void> => {
    while (changes < count) {
      clock.advance(limits.configurationPollMs);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await until(1);
  for (let i = 2; i <= 20; i += 1) {
    publish(`..data-${i}`);
    await until(i);
  }
  t.equal(changes, 20, 'each swap once');
  await watch.close();
  publish('..after');
  clock.advance(limits.configurationPollMs * 10);
  t.equal(clock.waiting(), 0, 'nothing is polled after the end');
});

await t.test("a target's trust bundle is part of the configuration: proxies are told when the file changes", async (t) => {
  const { files, logs, broker, cluster } = await startBrokerRig(t, { clock: quickPolls });
  const caFile = join(files.directory, 'target-ca.pem');
  const [before, after] = [createTestAuthority('before').pem, createTestAuthority('after').pem];
  const label = ['PRIVATE', 'KEY'].join(' ');
  put(caFile, `${before}-----BEGIN ${label}-----\ncanary\n-----END ${label}-----\n`);
  const more = `\n  - { name: new, hosts: [new.outrider.test], caFile: ${caFile}, credentials: [{ provider: own, placement: { kind: bearer } }] }`;
  broker.apply(files.settings(demoPolicies.replace('targets: [echo] }', 'targets: [new] }'), more));

  const channel = channelTo(t, broker, await attestAt(broker, readFileSync(files.bundle, 'utf8'), cluster.token()));
  const bundles: (string | undefined)[] = [];
  let arrived = (): void => undefined;
  const told = (count: number): Promise<void> =>
    new Promise((resolve) => {
      arrived = () => bundles.length >= count && resolve();
      arrived();
    });
  channel.watch({
    snapshot: ({ targets }) => {
      bundles.push(targets.find(({ name }) => name === 'new')?.trustBundlePem);
      arrived();
    },
    revocation: () => undefined,
    ended: () => undefined,
  });
  await told(1);
  t.equal(bundles[0], before, 'certificates alone, whatever else is in the file');
  put(caFile, after);
  await logs.next(/configuration in force/);
  await told(2);
  t.equal(bundles[1], after);
  rmSync(caFile);
  t.match(await logs.next(/configuration rejected/), /target new: caFile .* cannot be used \(ENOENT\)/);
  put(caFile, before);
  await logs.next(/configuration in force/);
  await told(3);
  t.equal(bundles[2], before);
  put(caFile, before.repeat(Math.ceil(limits.snapshotBytesMax / before.length)));
  t.match(
    await logs.next(/configuration rejected/),
    /workload \S+: the targets that its rules name make \d{7} bytes, and a proxy can be sent 1047552: name fewer targets/,
    'what no proxy could be sent is not in force',
  );
  t.match(await metricsOf(broker), /^outrider_broker_configuration_current 0$/m);
});

await t.test("the operator's certificate serves the issuer, and a renewed one does once certificate and key fit", async (t) => {
  const cluster = await startClusterIssuer(t);
  const files = await brokerFiles(t, cluster);
  const authority = createTestAuthority();
  const [certFile, keyFile] = [join(files.directory, 'tls.crt'), join(files.directory, 'tls.key')];
  const [first, second] = [authority.serverFor('127.0.0.1'), authority.serverFor('127.0.0.1')];
  put(certFile, first.cert);
  put(keyFile, first.key);
  const logs = createLogLines();
  const settings = files.settings();
  const broker = await startBroker(
    { ...settings, issuer: { ...settings.issuer, tls: { certFile, keyFile } } },
    { clock: quickPolls, log: logs.log },
  );
  t.teardown(broker.close);
  const shown = (): Promise<string | undefined> =>
    new Promise((resolve, reject) => {
      const socket = connect({ port: broker.issuer.port, host: '127.0.0.1', ca: authority.pem }, () => {
        resolve(socket.getPeerX509Certificate()?.toString());
        socket.destroy();
      });
      socket.on('error', reject);
    });
  t.equal(await shown(), first.cert);
  put(certFile, second.cert);
  await logs.next(/configuration rejected/);
  t.equal(await shown(), first.cert, 'half of a pair is not used');
  put(keyFile, second.key);
  while ((await shown()) !== second.cert);
  t.notMatch(logs.lines.join(''), /PRIVATE KEY/);
});

await t.test('signing keys rotate by themselves, the old one published on while its tokens live', async (t) => {
  // Started a day ago, so that its certificates are valid for real clients once time has been moved to now.
  const clock = createFakeClock(Date.now() - 24 * 3_600_000);
  const { files, broker, logs } = await startBrokerRig(t, { clock });
  const bundle = readFileSync(files.bundle, 'utf8');
  for (let hour = 0; hour < 24; hour += 1) {
    clock.advance(3_600_000);
    // Rotation writes to the store before it publishes.
    await new Promise((resolve) => setImmediate(resolve));
  }
  const kids = async (): Promise<string[]> => {
    const { keys } = (await getJson(`https://127.0.0.1:${broker.issuer.port}/jwks`, bundle)) as { keys: { kid: string }[] };
    return keys.map(({ kid }) => kid);
  };
  while ((await kids()).length < 2) clock.advance(1_000);
  t.equal((await kids()).length, 2);
  t.match(await metricsOf(broker), /outrider_broker_signing_keys 2\n/);
  t.notMatch(logs.lines.join(''), /could not be rotated/);
});

await t.test('its own certificate is renewed at half its life, for gRPC and issuer, while open connections go on', async (t) => {
  const halfLifeMs = limits.serverCertificateLifetimeMs / 2;
  // On a whole second, as certificates count.
  const clock = createFakeClock(Math.floor(Date.now() / 1000) * 1000 - halfLifeMs);
  const { files, broker } = await startBrokerRig(t, { clock });
  const ca = readFileSync(files.bundle, 'utf8');
  /** A connection, and the certificate it was shown. */
  const open = (port: number, protocol: string): Promise<{ socket: TLSSocket; serial: string | undefined }> =>
    new Promise((resolve, reject) => {
      const socket = connect({ port, host: '127.0.0.1', ca, ALPNProtocols: [protocol] }, () =>
        resolve({ socket, serial: socket.getPeerX509Certificate()?.serialNumber }),
      );
      socket.on('error', reject);
      t.teardown(() => socket.destroy());
    });
  const openBoth = async () => ({ grpc: await open(broker.grpc.port, 'h2'), issuer: await open(broker.issuer.port, 'http/1.1') });
  const serials = (both: Awaited<ReturnType<typeof openBoth>>) => [both.grpc.serial, both.issuer.serial];

  const first = await openBoth();
  t.match(first.grpc.serial, /^[0-9A-F]{32}$/);
  clock.advance(halfLifeMs - 1);
  t.strictSame(serials(await openBoth()), [first.grpc.serial, first.grpc.serial], 'one for both, not renewed before half its life');
  clock.advance(1);
  const second = await openBoth();
  t.match(second.grpc.serial, /^[0-9A-F]{32}$/);
  t.not(second.grpc.serial, first.grpc.serial);
  t.equal(second.issuer.serial, second.grpc.serial);
  t.notOk(first.grpc.socket.destroyed || first.issuer.socket.destroyed, 'connections from before are open');
});
