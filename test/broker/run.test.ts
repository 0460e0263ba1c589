/** A whole broker over its real sockets. */
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { createLocalJWKSet, jwtVerify } from 'jose';
import t, { type Test } from 'tap';
import { startBroker } from '../../src/broker/run.ts';
import type { Fault } from '../../src/core/fault.ts';
import type { TargetSnapshot } from '../../src/core/target.ts';
import { createLog } from '../../src/ops/log.ts';
import { metricTable } from '../../src/ops/metric-table.ts';
import type { BrokerChannel } from '../../src/rpc/client.ts';
import { attestAt, type BrokerRig, channelTo, demoPolicies, getJson, metricsOf, startBrokerRig } from '../support/broker.ts';

const demoId = 'spiffe://outrider.test/ns/demo/sa/demo-app';

const bundleOf = ({ files }: BrokerRig): string => readFileSync(files.bundle, 'utf8');

const connect = async (t: Test, rig: BrokerRig, broker = rig.broker): Promise<BrokerChannel> =>
  channelTo(t, broker, await attestAt(broker, bundleOf(rig), rig.cluster.token()));

/** Snapshots as they arrive. */
const watchOn = (channel: BrokerChannel) => {
  const arrived: TargetSnapshot[] = [];
  const waiting: ((snapshot: TargetSnapshot) => void)[] = [];
  channel.watch({
    snapshot: (snapshot) => {
      const waiter = waiting.shift();
      if (waiter) waiter(snapshot);
      else arrived.push(snapshot);
    },
    revocation: () => undefined,
    ended: () => undefined,
  });
  return {
    next: (): Promise<TargetSnapshot> => {
      const snapshot = arrived.shift();
      return snapshot ? Promise.resolve(snapshot) : new Promise((resolve) => waiting.push(resolve));
    },
  };
};

const names = ({ targets }: TargetSnapshot): string[] => targets.map(({ name }) => name);

await t.test('a workload attests, is granted a token, and the token verifies by the keys the broker publishes', async (t) => {
  const rig = await startBrokerRig(t);
  const svid = await attestAt(rig.broker, bundleOf(rig), rig.cluster.token());
  t.equal(svid.spiffeId, demoId);
  t.equal(svid.trustBundlePem, bundleOf(rig));
  const grant = await channelTo(t, rig.broker, svid).getGrant('echo', '');
  const [credential] = grant.credentials;

  const issuer = `https://127.0.0.1:${rig.broker.issuer.port}`;
  const discovery = (await getJson(`${issuer}/.well-known/openid-configuration`, bundleOf(rig))) as { issuer: string; jwks_uri: string };
  const jwks = (await getJson(discovery.jwks_uri, bundleOf(rig))) as { keys: [] };
  const { payload } = await jwtVerify(credential?.value.reveal() ?? '', createLocalJWKSet(jwks), {
    issuer: discovery.issuer,
    audience: 'https://echo.outrider.test',
    subject: demoId,
  });
  t.ok((payload.exp as number) - (payload.iat as number) <= 600, 'ten minutes at most');
  t.ok(grant.expiresAtMs <= (payload.exp as number) * 1000, 'and the grant no longer than its token');
  t.match(credential, { providerKind: 'jwt', provider: 'own', placement: { kind: 'bearer' } });
});

await t.test('denied, unnamed and unknown targets are refused over the wire, each with its code and reason', async (t) => {
  const rig = await startBrokerRig(t);
  const channel = await connect(t, rig);
  await t.rejects(channel.getGrant('forbidden', ''), {
    code: 'policy_denied',
    decision: { verdict: 'deny', policy: 'demo', rule: 'never' },
  });
  await t.rejects(channel.getGrant('legacy', ''), { code: 'policy_denied', decision: { policy: '', rule: '' } });
  await t.rejects(channel.getGrant('made-up', ''), { code: 'target_unknown' });
});

await t.test('a token that is expired, of another audience or of an unknown workload gets no SVID', async (t) => {
  const rig = await startBrokerRig(t);
  const { cluster, broker } = rig;
  const attest = (claims: Record<string, unknown>) => attestAt(broker, bundleOf(rig), cluster.token({ claims }));
  await t.rejects(attest({ exp: Math.floor(Date.now() / 1000) - 3600 }), { code: 'evidence_expired' });
  await t.rejects(attest({ aud: ['elsewhere'] }), { code: 'evidence_audience' });
  const kubernetes = cluster.claims()['kubernetes.io'] as Record<string, unknown>;
  const other = { 'kubernetes.io': { ...kubernetes, namespace: 'other' }, sub: 'system:serviceaccount:other:demo-app' };
  await t.rejects(attest(other), { code: 'workload_unknown', detail: 'Nothing matches namespace other, service account demo-app.' });
  const metrics = await metricsOf(broker);
  t.match(metrics, /outrider_broker_attestations_total\{attestor="cluster",result="evidence_expired"\} 1/);
  t.match(metrics, /outrider_broker_attestations_total\{attestor="cluster",result="workload_unknown"\} 1/);
  t.match(metrics, /outrider_broker_rpc_requests_total\{method="Attest",code="evidence_audience"\} 1/);
});

await t.test('settings applied while it runs are pushed to those who watch, and decide the next grant', async (t) => {
  const rig = await startBrokerRig(t);
  const channel = await connect(t, rig);
  const watch = watchOn(channel);
  const first = await watch.next();
  t.strictSame(names(first), ['echo', 'forbidden']);
  t.equal((await channel.getGrant('echo', first.configurationVersion)).configurationVersion, first.configurationVersion);

  const more = '\n  - { name: new, hosts: [new.outrider.test], credentials: [{ provider: own, placement: { kind: bearer } }] }';
  const allowing = demoPolicies.replace('targets: [echo] }', 'targets: [echo, new] }');
  rig.broker.apply(rig.files.settings(allowing, more));
  t.strictSame(names(await watch.next()), ['echo', 'forbidden', 'new']);
  await t.resolves(channel.getGrant('new', ''));

  rig.broker.apply(rig.files.settings('policies: []'));
  t.strictSame(names(await watch.next()), []);
  await t.rejects(channel.getGrant('echo', ''), { code: 'policy_denied' });
  t.match(await metricsOf(rig.broker), /outrider_broker_configuration_reloads_total\{result="ok"\} 2/);
});

await t.test('settings that need a restart are refused with every reason, and nothing of them is in force', async (t) => {
  const rig = await startBrokerRig(t);
  const channel = await connect(t, rig);
  const settings = rig.files.settings('policies: []');
  const different = {
    ...settings,
    trustDomain: 'other.test',
    stateDir: '/elsewhere',
    sharedKeys: {
      apiServer: 'https://localhost',
      caFile: undefined,
      tokenFile: '/nowhere/token',
      namespace: 'o',
      secret: 'k',
      configMap: 't',
    },
    listen: { host: '127.0.0.1', port: 1 },
    admin: { host: '127.0.0.1', port: 1 },
    issuer: { ...settings.issuer, url: 'https://elsewhere.outrider.test' },
  };
  const problems = ['trustDomain', 'stateDir', 'sharedKeys', 'listen', 'admin', 'issuer'].map(
    (name) => new RegExp(`^${name}: cannot change`),
  );
  t.throws(() => rig.broker.apply(different), { name: 'ConfigurationError', problems });
  await t.resolves(channel.getGrant('echo', ''), 'the policy that was dropped with them still holds');
  t.match(await metricsOf(rig.broker), /outrider_broker_configuration_reloads_total\{result="rejected"\} 1/);
});

await t.test(
  'a restart on the same state keeps authority and signing keys, and SVIDs from before serve on without a new attestation',
  async (t) => {
    const rig = await startBrokerRig(t);
    const jwksUrl = `https://127.0.0.1:${rig.broker.issuer.port}/jwks`;
    const bundle = bundleOf(rig);
    const svid = await attestAt(rig.broker, bundle, rig.cluster.token());
    const jwks = await getJson(jwksUrl, bundle);
    await rig.broker.close();
    const again = await rig.restart();
    t.equal(bundleOf(rig), bundle);
    t.strictSame(await getJson(jwksUrl, bundle), jwks);
    const before = (await metricsOf(again)).match(/outrider_broker_attestations_total\{[^}]*\} \d+/g);
    const channel = channelTo(t, again, svid);
    t.equal((await channel.getGrant('echo', '')).target, 'echo');
    t.strictSame(names(await watchOn(channel).next()), ['echo', 'forbidden']);
    t.strictSame((await metricsOf(again)).match(/outrider_broker_attestations_total\{[^}]*\} \d+/g), before);
  },
);

await t.test('a broker with another authority refuses SVIDs of the one before, and neither is believed by the other side', async (t) => {
  const rig = await startBrokerRig(t);
  const svid = await attestAt(rig.broker, bundleOf(rig), rig.cluster.token());
  await rig.broker.close();
  rmSync(join(rig.files.directory, 'state'), { recursive: true });
  const again = await rig.restart();
  await t.rejects(channelTo(t, again, svid).getGrant('echo', ''), { code: 'broker_untrusted' }, 'by what the proxy knew');
  const trusting = { ...svid, trustBundlePem: bundleOf(rig) };
  await t.rejects(channelTo(t, again, trusting).getGrant('echo', ''), { code: 'identity_refused' }, 'by what the broker knows');
  await t.resolves((await connect(t, rig, again)).getGrant('echo', ''));
});

await t.test('the bundle is public and whole, the state private', async (t) => {
  const { files } = await startBrokerRig(t);
  t.equal(statSync(files.bundle).mode & 0o777, 0o644);
  t.equal(statSync(join(files.directory, 'state')).mode & 0o777, 0o700);
  t.match(readFileSync(files.bundle, 'utf8'), /^-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n$/);
});

await t.test('it is ready when it can answer, and not once it is closing', async (t) => {
  const rig = await startBrokerRig(t);
  const ready = () => fetch(`http://127.0.0.1:${rig.broker.admin.port}/readyz`);
  t.equal((await ready()).status, 200);
  const channel = await connect(t, rig);
  // A grant whose provider is slow holds the drain open.
  let release = (): void => undefined;
  const endpoint = createServer((_, response) => {
    release = () => {
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ access_token: 'late', token_type: 'Bearer', expires_in: 60 }));
    };
    asked();
  });
  let asked = (): void => undefined;
  const isAsked = new Promise<void>((resolve) => {
    asked = resolve;
  });
  await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve));
  t.teardown(() => endpoint.close());
  const tokenUrl = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/token`;
  const settings = rig.files.settings();
  const secretFile = join(rig.files.directory, 'static');
  const slow = {
    kind: 'oauth2_client_credentials',
    name: 'own',
    tokenUrl,
    clientId: 'outrider',
    clientAuthentication: { method: 'client_secret_post', secret: { file: secretFile } },
    scopes: [],
    parameters: {},
    caFile: undefined,
  } as const;
  rig.broker.apply({ ...settings, providers: settings.providers.map((provider) => (provider.name === 'own' ? slow : provider)) });
  const grant = channel.getGrant('echo', '');
  await isAsked;
  const closed = rig.broker.close();
  const draining = await ready();
  t.equal(draining.status, 503);
  t.match(await draining.text(), 'waiting for the gRPC server');
  release();
  t.equal((await grant).credentials[0]?.value.reveal(), 'late', 'a call in flight is answered');
  await closed;
  await t.rejects(ready(), 'and then nothing listens');
});

await t.test('what cannot start says why, and leaves nothing open', async (t) => {
  const rig = await startBrokerRig(t);
  await rig.broker.close();
  const quiet = createLog({ role: 'broker', level: 'silent' });
  const settings = rig.files.settings();
  const [target] = settings.targets;
  const start = (more: object) => startBroker({ ...settings, ...more }, { log: quiet });
  const missing = {
    targets: [
      { ...target, caFile: '/nowhere/a.pem' },
      { ...target, name: 'second', caFile: rig.files.configuration },
    ],
  };
  await t.rejects(start(missing), {
    name: 'ConfigurationError',
    problems: [/target echo: caFile \/nowhere\/a.pem cannot be used \(ENOENT\)/, /target second: .*it has no PEM certificate/],
  });
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  t.teardown(() => taken.close());
  await t.rejects(start({ listen: { host: '127.0.0.1', port: (taken.address() as AddressInfo).port } }), {
    name: 'ListenError',
    message: /is in use: stop the program/,
  });
  await t.rejects(start({ trustDomain: 'other.test' }), /authority of another trust domain/);
  await t.resolves(rig.restart(), 'store and ports are free again');
});

await t.test('every metric of the broker is driven, and neither metrics nor logs hold a secret', async (t) => {
  const rig = await startBrokerRig(t);
  const token = rig.cluster.token();
  const svid = await attestAt(rig.broker, bundleOf(rig), token);
  const channel = channelTo(t, rig.broker, svid);
  rig.broker.apply(rig.files.settings(demoPolicies.replace('targets: [echo] }', 'targets: [echo, legacy] }')));
  await watchOn(channel).next();
  const secrets = [token, token.split('.')[2] as string];
  for (const target of ['echo', 'legacy']) {
    const grant = await channel.getGrant(target, '');
    secrets.push(...grant.credentials.map(({ value }) => value.reveal()));
  }
  t.ok(secrets.includes('canary-static-value'));
  writeFileSync(join(rig.files.directory, 'static'), 'canary-not-writable\u0000');
  const fault = await channel.getGrant('legacy', '').then(
    () => undefined,
    (thrown: unknown) => thrown as Fault,
  );
  t.match(fault, { code: 'credential_invalid', detail: /provider old has a character/ });

  const metrics = await metricsOf(rig.broker);
  for (const name of Object.keys(metricTable).filter((metric) => metric.startsWith('outrider_broker_'))) {
    const samples = metrics.split('\n').filter((line) => line.startsWith(name) && !line.startsWith('#'));
    t.ok(
      samples.some((line) => Number(line.split(' ').at(-1)) > 0),
      `${name} is driven`,
    );
  }
  t.match(metrics, /outrider_broker_static_credentials\{provider="old"\} 1/);
  t.match(metrics, /outrider_broker_leases 2\n/);
  t.match(metrics, /outrider_broker_watchers 1\n/);
  t.match(metrics, /outrider_broker_provider_requests_total\{provider="old",result="credential_invalid"\} 1/);
  const said = metrics + rig.logs.lines.join('') + JSON.stringify(fault);
  for (const secret of [...secrets, 'canary', 'PRIVATE KEY']) t.notOk(said.includes(secret), 'is not said');
  const state = join(rig.files.directory, 'state');
  const stored = readdirSync(state).map((file) => readFileSync(join(state, file), 'latin1'));
  const keys = stored.flatMap((content) =>
    [...content.matchAll(/-----BEGIN [A-Z]+ KEY-----\n([^\n]+)/g)].map(([, base64]) => base64 as string),
  );
  t.ok(keys.length >= 2, 'the store has keys to look for');
  for (const key of keys) t.notOk(said.includes(key), 'nor a private key');
});
