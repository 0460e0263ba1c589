import { connect, createSecureContext, createServer } from 'node:tls';
import { once } from 'node:events';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { caBundlePatch, type CertificateOptions, keepCertificate, type ServingPair } from '../../src/injector/certificate.ts';
import { certificateFrom } from '../../src/injector/certificate-store.ts';
import { ApiError } from '../../src/net/api-server.ts';
import { createLog } from '../../src/ops/log.ts';
import { createFakeClock, type FakeClock } from '../fakes/clock.ts';
import { type ClusterObjects, createClusterObjects } from '../fakes/cluster-objects.ts';
import { createTestAuthority, type ServerFiles } from '../support/certificates.ts';

const secretPath = '/api/v1/namespaces/outrider/secrets/outrider-injector-tls';
const configurationPath = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrider-injector';
const dnsNames = ['outrider-injector.outrider.svc', 'outrider-injector.outrider.svc.cluster.local'];
const dayMs = 24 * 3_600_000;

const webhooks = (...bundles: readonly (string | undefined)[]) =>
  bundles.map((caBundle, i) => ({ name: `w${i}`, clientConfig: { service: {}, ...(caBundle === undefined ? {} : { caBundle }) } }));

const freshCluster = (): ClusterObjects => {
  const cluster = createClusterObjects();
  cluster.put(secretPath, { kind: 'Secret', metadata: { name: 'outrider-injector-tls' } });
  cluster.put(configurationPath, { webhooks: webhooks(undefined, undefined) });
  return cluster;
};

const bundlesIn = (cluster: ClusterObjects): string[] =>
  ((cluster.objects.get(configurationPath)?.['webhooks'] ?? []) as { clientConfig: { caBundle?: string } }[]).map(({ clientConfig }) =>
    Buffer.from(clientConfig.caBundle ?? '', 'base64').toString(),
  );

const dataIn = (cluster: ClusterObjects): Record<string, string> =>
  (cluster.objects.get(secretPath)?.['data'] ?? {}) as Record<string, string>;

const start = (
  t: Test,
  cluster: ClusterObjects,
  clock: FakeClock,
  settings?: CertificateOptions['settings'],
  onCertificate: CertificateOptions['onCertificate'] = () => undefined,
) => {
  const seen: ServingPair[] = [];
  const trusted: boolean[] = [];
  const failed: string[] = [];
  const keeper = keepCertificate({
    api: cluster,
    settings: settings ?? { kind: 'selfSigned', secret: 'outrider-injector-tls', dnsNames, webhookConfiguration: 'outrider-injector' },
    namespace: 'outrider',
    webhookConfiguration: 'outrider-injector',
    clock,
    log: createLog({ role: 'injector', level: 'silent' }),
    onCertificate: (pair) => {
      onCertificate(pair);
      seen.push(pair);
    },
    onTrusted: (isCurrent) => void trusted.push(isCurrent),
    onFailure: (operation) => void failed.push(operation),
  });
  t.teardown(() => keeper.close());
  return { keeper, seen, trusted, failed };
};

/** A look is over when its next one waits for the clock. */
const looked = async (clock: FakeClock, count = 1): Promise<void> => {
  while (clock.waiting() < count) await new Promise((resolve) => setImmediate(resolve));
};

const nextLook = async (clock: FakeClock, afterMs: number = limits.webhookPollMs, count = 1): Promise<void> => {
  clock.advance(afterMs);
  await looked(clock, count);
};

t.test('an empty Secret is filled, the certificate serves the webhook, and every webhook gets its authority', async (t) => {
  const cluster = freshCluster();
  const clock = createFakeClock();
  const { keeper, seen, trusted } = start(t, cluster, clock);
  await looked(clock);
  t.equal(seen.length, 1);
  t.same(trusted, [true]);
  const [first = '', second] = bundlesIn(cluster);
  t.equal(first, second);
  t.equal(first, Buffer.from(dataIn(cluster)['ca.crt'] as string, 'base64').toString());

  const { certificatePem, privateKeyPem } = keeper.current() as ServingPair;
  const server = createServer({ cert: certificatePem, key: privateKeyPem.reveal() }, (socket) => socket.end('served'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  for (const servername of dnsNames) {
    const socket = connect({ host: '127.0.0.1', port, servername, ca: first });
    t.equal(String((await once(socket, 'data'))[0]), 'served', servername);
    socket.destroy();
  }
  const stranger = connect({ host: '127.0.0.1', port, servername: 'api.example.com', ca: first });
  t.match((await once(stranger, 'error'))[0], { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
});

t.test('what is right already is not written again', async (t) => {
  const cluster = freshCluster();
  const clock = createFakeClock();
  const { seen } = start(t, cluster, clock);
  await looked(clock);
  cluster.calls.length = 0;
  for (let i = 0; i < 3; i += 1) await nextLook(clock);
  t.same([...new Set(cluster.calls)], [`GET ${configurationPath}`, `GET ${secretPath}`]);
  t.equal(seen.length, 1);
});

t.test('two replicas that start on an empty Secret serve one certificate', async (t) => {
  const cluster = freshCluster();
  const clock = createFakeClock();
  const [one, other] = [start(t, cluster, clock), start(t, cluster, clock)];
  await looked(clock, 2);
  await nextLook(clock, limits.webhookPollMs, 2);
  t.ok(one.keeper.current());
  t.equal(one.keeper.current()?.certificatePem, other.keeper.current()?.certificatePem);
  t.same([...one.failed, ...other.failed], [], 'losing the race is no failure');
});

t.test('a caBundle that somebody removed or changed is put back, and one of many webhooks too', async (t) => {
  const cluster = freshCluster();
  const clock = createFakeClock();
  start(t, cluster, clock);
  await looked(clock);
  const [bundle] = bundlesIn(cluster);
  cluster.put(configurationPath, { webhooks: webhooks(Buffer.from(bundle as string).toString('base64'), 'b3RoZXI=', undefined) });
  await nextLook(clock);
  t.same(bundlesIn(cluster), [bundle, bundle, bundle]);
});

t.test(
  'a configuration that changed since it was read is not patched by what was true before; it is read again at once, and once',
  async (t) => {
    for (const times of [1, 2]) {
      const cluster = freshCluster();
      const clock = createFakeClock();
      let left = times;
      cluster.before = (method) => {
        if (method !== 'PATCH' || left === 0) return;
        left -= 1;
        cluster.put(configurationPath, { webhooks: webhooks(undefined, undefined).toReversed() });
      };
      const { trusted } = start(t, cluster, clock);
      await looked(clock);
      t.same(trusted, times === 1 ? [false, true] : [false, false]);
      const [first, second] = bundlesIn(cluster);
      t.equal(first === '', times === 2);
      t.equal(first, second);
      await nextLook(clock);
      t.same(trusted, times === 1 ? [false, true, true] : [false, false, true]);
    }
  },
);

t.test('through two years of looks every handshake is by a certificate and an authority that were known before', async (t) => {
  let data: Record<string, string> = {};
  const startMs = Date.now();
  let before = '';
  const serials = new Set<string>();
  const authorities = new Set<string>();
  for (let day = 0; day < 730; day += 0.5) {
    const nowMs = startMs + day * dayMs;
    const { certificate, write } = certificateFrom(data, dnsNames, nowMs);
    if (write) data = write as Record<string, string>;
    const leaf = new X509Certificate(certificate.certificatePem);
    const bundle = (before === '' ? certificate.caPem : before).match(/-----BEGIN[^]*?END CERTIFICATE-----/g) ?? [];
    const signer = bundle.map((pem) => new X509Certificate(pem)).find((authority) => leaf.verify(authority.publicKey));
    if (!signer) t.fail(`day ${day}: signed by an authority that was not in the bundle half a day ago`);
    if (leaf.validToDate.getTime() - nowMs < 9 * dayMs) t.fail(`day ${day}: the certificate is nearly over`);
    if (signer && signer.validToDate.getTime() < leaf.validToDate.getTime()) t.fail(`day ${day}: the authority ends first`);
    serials.add(leaf.serialNumber);
    if (signer) authorities.add(signer.serialNumber);
    before = certificate.caPem;
  }
  t.ok(serials.size >= 30 && serials.size <= 45, `${serials.size} certificates`);
  t.ok(authorities.size >= 4 && authorities.size <= 5, `${authorities.size} authorities`);
});

t.test('damaged entries, a stranger’s certificate and other names are replaced', async (t) => {
  const nowMs = Date.now();
  const good = certificateFrom({}, dnsNames, nowMs).write as Record<string, string>;
  t.equal(certificateFrom(good, dnsNames, nowMs).write, undefined);
  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const stranger = createTestAuthority().serverFor(dnsNames[0] as string);
  const cases: Record<string, [Record<string, string>, string[]]> = {
    'authorities that are no JSON': [{ ...good, 'authorities.json': base64('{') }, dnsNames],
    'an authority without a time': [{ ...good, 'authorities.json': base64('[{}]') }, dnsNames],
    'a stranger': [{ ...good, 'tls.crt': base64(stranger.cert), 'tls.key': base64(stranger.key) }, dnsNames],
    'a key of another': [{ ...good, 'tls.key': base64(stranger.key) }, dnsNames],
    'no certificate': [{ ...good, 'tls.crt': '' }, dnsNames],
    'other names': [good, ['other.outrider.svc']],
    'a bundle that somebody edited': [{ ...good, 'ca.crt': base64('') }, dnsNames],
  };
  for (const [what, [data, names]] of Object.entries(cases)) {
    const { write, certificate } = certificateFrom(data, names, nowMs);
    t.ok(write, what);
    t.equal(certificateFrom(write ?? {}, names, nowMs).certificate.certificatePem, certificate.certificatePem, `${what}: then it stays`);
  }
});

t.test('while the API server is away the certificate stays in use, and each failure is counted', async (t) => {
  const cluster = freshCluster();
  const clock = createFakeClock();
  const { keeper, failed, seen } = start(t, cluster, clock);
  await looked(clock);
  const before = keeper.current();
  cluster.before = (method, path) => {
    throw new ApiError(method, path, { status: 0, reason: '' });
  };
  await nextLook(clock);
  t.equal(keeper.current(), before);
  t.same(failed, ['webhook_configuration', 'secret']);
  cluster.before = undefined;
  await nextLook(clock);
  t.equal(seen.length, 1);
});

t.test('a Secret or configuration that does not exist is a failure that says so, not an end', async (t) => {
  const cluster = createClusterObjects();
  const clock = createFakeClock();
  const { keeper, failed } = start(t, cluster, clock);
  await looked(clock);
  t.equal(keeper.current(), undefined);
  t.same(failed, ['webhook_configuration', 'secret']);
});

t.test('a certificate in files is used, and used anew when they change; unreadable ones leave the one before', async (t) => {
  const directory = t.testdir();
  const [certFile, keyFile] = [join(directory, 'tls.crt'), join(directory, 'tls.key')];
  const authority = createTestAuthority();
  const write = () => {
    const { cert, key } = authority.serverFor('localhost');
    writeFileSync(certFile, cert);
    writeFileSync(keyFile, key);
    return cert;
  };
  const clock = createFakeClock();
  const { keeper, seen, trusted } = start(t, createClusterObjects(), clock, { kind: 'files', certFile, keyFile });
  await looked(clock);
  t.equal(keeper.current(), undefined);
  const first = write();
  await nextLook(clock);
  t.equal(keeper.current()?.certificatePem, first);
  writeFileSync(certFile, 'half written');
  await nextLook(clock);
  t.equal(keeper.current()?.certificatePem, first);
  const second = write();
  await nextLook(clock);
  t.equal(keeper.current()?.certificatePem, second);
  t.equal(seen.length, 2);
  t.same(trusted, [], 'a configuration that cannot be read says nothing');
});

t.test('whether the API server trusts a certificate in files is what every caBundle says', async (t) => {
  const directory = t.testdir();
  const [certFile, keyFile] = [join(directory, 'tls.crt'), join(directory, 'tls.key')];
  const [authority, stranger] = [createTestAuthority(), createTestAuthority()];
  const { cert, key } = authority.serverFor('localhost');
  const base64 = (...pems: readonly string[]): string => Buffer.from(pems.join('')).toString('base64');
  const ours = base64(authority.pem);
  const cases: readonly [string, string, object, boolean][] = [
    ['all have its authority', cert, webhooks(ours, ours), true],
    ['among others', cert, webhooks(base64(stranger.pem, authority.pem)), true],
    ['the certificate itself', cert, webhooks(base64(cert)), true],
    ['by what is sent with it', cert + authority.pem, webhooks(ours), true],
    ['one has none', cert, webhooks(ours, undefined), false],
    ['a stranger of the same name', cert, webhooks(base64(stranger.pem)), false],
    ['an authority that is only sent', cert + authority.pem, webhooks(base64(stranger.pem)), false],
    ['no PEM', cert, webhooks('%%%'), false],
    ['no webhook', cert, [], false],
  ];
  const clock = createFakeClock();
  const cluster = createClusterObjects();
  writeFileSync(keyFile, key);
  writeFileSync(certFile, cert);
  cluster.put(configurationPath, { webhooks: webhooks(ours) });
  const { trusted, failed } = start(t, cluster, clock, { kind: 'files', certFile, keyFile });
  await looked(clock);
  for (const [what, pem, configured, expected] of cases) {
    writeFileSync(certFile, pem);
    cluster.put(configurationPath, { webhooks: configured });
    await nextLook(clock);
    t.equal(trusted.at(-1), expected, what);
  }
  t.equal(trusted.length, cases.length + 1);
  cluster.put(configurationPath, { webhooks: webhooks(ours) });
  await nextLook(clock, 7_200_000);
  t.equal(trusted.at(-1), false, 'an authority that has expired');
  t.same(failed, []);
  t.notOk(
    cluster.calls.some((call) => !call.startsWith('GET')),
    'nothing is written',
  );
});

t.test('a certificate that is read with the key of another, across a swap, is tried again when its own key is there', async (t) => {
  const directory = t.testdir();
  const [certFile, keyFile] = [join(directory, 'tls.crt'), join(directory, 'tls.key')];
  const authority = createTestAuthority();
  const [first, second, third] = [1, 2, 3].map(() => authority.serverFor('localhost')) as [ServerFiles, ServerFiles, ServerFiles];
  writeFileSync(certFile, first.cert);
  writeFileSync(keyFile, first.key);
  const clock = createFakeClock();
  // As the server does it: a key that does not belong to the certificate throws.
  const { keeper, seen } = start(t, createClusterObjects(), clock, { kind: 'files', certFile, keyFile }, (pair) => {
    createSecureContext({ cert: pair.certificatePem, key: pair.privateKeyPem.reveal() });
  });
  await looked(clock);
  writeFileSync(certFile, second.cert);
  await nextLook(clock);
  t.equal(keeper.current()?.certificatePem, first.cert, 'the one before stays');
  writeFileSync(keyFile, second.key);
  await nextLook(clock);
  t.equal(keeper.current()?.certificatePem, second.cert);
  t.equal(seen.length, 2);
  await nextLook(clock);
  t.equal(seen.length, 2, 'and is not set again');
  writeFileSync(keyFile, third.key);
  await nextLook(clock);
  t.equal(keeper.current()?.privateKeyPem.reveal(), second.key);
});

t.test('the patch names the version that was read, and only what differs', async (t) => {
  const bundle = Buffer.from('ours').toString('base64');
  t.same(caBundlePatch({ metadata: { resourceVersion: '7' }, webhooks: webhooks(bundle, undefined) }, 'ours'), [
    { op: 'test', path: '/metadata/resourceVersion', value: '7' },
    { op: 'add', path: '/webhooks/1/clientConfig/caBundle', value: bundle },
  ]);
  t.same(caBundlePatch({ metadata: { resourceVersion: '7' }, webhooks: webhooks(bundle) }, 'ours'), []);
  t.same(caBundlePatch({}, 'ours'), []);
});
