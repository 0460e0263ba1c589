import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { Agent, request } from 'node:https';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { type RunningInjector, startInjector } from '../../src/injector/run.ts';
import { ApiError } from '../../src/net/api-server.ts';
import { createLog } from '../../src/ops/log.ts';
import { type ClusterObjects, createClusterObjects } from '../fakes/cluster-objects.ts';
import { startKubernetes } from '../fakes/kubernetes.ts';
import type { InjectorSettings } from '../../src/settings/injector.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { exampleInjector } from '../support/injector-pods.ts';

const host = 'outrider-injector.outrider.svc';
const configurationPath = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrider-injector';
const enabled = { 'outrider.dev/inject': 'enabled' };
const trustPath = (namespace: string): string => `/api/v1/namespaces/${namespace}/configmaps/outrider-trust`;

/** As the chart leaves it, and with what the brokers write. */
const installed = (): ClusterObjects => {
  const cluster = createClusterObjects();
  cluster.put('/api/v1/namespaces/outrider/secrets/outrider-injector-tls', { kind: 'Secret', metadata: { name: 'outrider-injector-tls' } });
  cluster.put(configurationPath, {
    webhooks: [
      { name: 'a', clientConfig: {} },
      { name: 'b', clientConfig: {} },
    ],
  });
  cluster.put(trustPath('outrider'), { kind: 'ConfigMap', metadata: { name: 'outrider-trust' }, data: { 'ca.pem': 'PEM' } });
  cluster.put('/api/v1/namespaces/orders', { metadata: { name: 'orders', labels: enabled } });
  cluster.put('/api/v1/namespaces/orders/pods/old', { metadata: { name: 'old', namespace: 'orders' }, spec: {}, status: {} });
  return cluster;
};

const started = async (t: Test, cluster: ClusterObjects, more: Partial<InjectorSettings> = {}): Promise<RunningInjector> => {
  const kubernetes = await startKubernetes(t, cluster);
  const directory = directoryOf(t);
  const [caFile, tokenFile] = [join(directory, 'ca.pem'), join(directory, 'token')];
  writeFileSync(caFile, kubernetes.caPem);
  writeFileSync(tokenFile, kubernetes.bearer);
  const anywhere = { host: '127.0.0.1', port: 0 };
  const running = await startInjector(
    { ...exampleInjector, listen: anywhere, admin: anywhere, cluster: { apiServer: kubernetes.url, caFile, tokenFile }, ...more },
    { log: createLog({ role: 'injector', level: 'silent' }) },
  );
  t.teardown(() => running.close());
  return running;
};

/** Until the cluster has been written to, by what nobody waits for. */
const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise((resolve) => setImmediate(resolve));
};

/** Labelled when the first count is over, so that what is brought there is brought for a review. */
const labelled = async (cluster: ClusterObjects, name: string): Promise<void> => {
  await until(() => cluster.objects.has(trustPath('orders')));
  cluster.put(`/api/v1/namespaces/${name}`, { metadata: { name, labels: enabled } });
};

const caIn = (cluster: ClusterObjects): string[] =>
  ((cluster.objects.get(configurationPath)?.['webhooks'] ?? []) as { clientConfig: { caBundle?: string } }[]).map(({ clientConfig }) =>
    Buffer.from(clientConfig.caBundle ?? '', 'base64').toString(),
  );

interface Sent {
  readonly method?: string;
  readonly path?: string;
  readonly type?: string;
  readonly agent?: Agent;
}

/** As the API server calls: by the Service's name, trusting the caBundle alone. */
const post = async (running: RunningInjector, ca: string, body: string, sent: Sent = {}) => {
  const { method = 'POST', path = '/mutate', type = 'application/json', agent } = sent;
  const { address, port } = running.webhook;
  const asked = request({ host: address, port, servername: host, ca, method, path, headers: { 'content-type': type }, agent });
  asked.on('error', () => undefined);
  asked.end(body);
  const [response] = (await once(asked, 'response')) as [import('node:http').IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  return { status: response.statusCode, text, connection: response.headers.connection };
};

const reviewOf = (object: object, more: object = {}): string =>
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u1',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      operation: 'CREATE',
      namespace: 'shop',
      object,
      ...more,
    },
  });

const owned = {
  metadata: {
    generateName: 'web-',
    ownerReferences: [{ apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web', uid: 'r1', controller: true }],
  },
  spec: { containers: [{ name: 'app', env: [{ name: 'HTTPS_PROXY', value: 'http://canary.example:1' }] }] },
};

const admin = async (running: RunningInjector, path: string): Promise<string> => {
  const asked = httpRequest({ host: running.admin.address, port: running.admin.port, path });
  asked.end();
  const [response] = (await once(asked, 'response')) as [import('node:http').IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  return text;
};

t.test('the API server that trusts its caBundle gets a patch, the namespace its trust, the owner an Event', async (t) => {
  const cluster = installed();
  const running = await started(t, cluster);
  await running.ready();
  await labelled(cluster, 'shop');
  const [ca = '', other] = caIn(cluster);
  t.equal(other, ca);
  t.equal(await admin(running, '/readyz'), 'ready\n');

  const { status, text } = await post(running, ca, reviewOf(owned));
  t.equal(status, 200);
  t.match(JSON.parse(text), {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: { uid: 'u1', allowed: true, patchType: 'JSONPatch' },
  });
  const { response } = JSON.parse(text) as { response: { patch: string; warnings: string[] } };
  const patch = JSON.parse(Buffer.from(response.patch, 'base64').toString()) as { path: string }[];
  t.strictSame(
    patch.map(({ path }) => path),
    ['/metadata/labels', '/metadata/annotations', '/spec/initContainers', '/spec/containers', '/spec/volumes'],
  );
  t.match(response.warnings, [/^outrider: container app: HTTPS_PROXY replaced/]);
  t.match(cluster.objects.get(trustPath('shop')), {
    data: { 'ca.pem': 'PEM' },
    metadata: { ownerReferences: [{ name: 'outrider-injector' }] },
  });
  const events = (): unknown[] => [...cluster.objects].filter(([path]) => path.includes('/events')).map(([, object]) => object);
  await until(() => events().length > 0);
  t.match(events(), [
    { involvedObject: { kind: 'ReplicaSet', name: 'web', uid: 'r1', namespace: 'shop' }, message: /HTTPS_PROXY replaced/ },
  ]);
  t.notMatch(JSON.stringify([events(), text]), 'canary');
  await until(() => cluster.objects.has(trustPath('orders')));

  const metrics = await admin(running, '/metrics');
  t.match(metrics, /outrider_injector_reviews_total\{result="injected"\} 1/);
  t.match(metrics, /outrider_injector_pods\{namespace="orders",state="uninjected"\} 1/);
  t.match(metrics, 'outrider_injector_webhook_ca_current 1');
  t.match(metrics, /outrider_injector_serving_certificate_expiry_timestamp_seconds [1-9]/);
  t.match(metrics, 'process_resident_memory_bytes');
});

t.test('a dry run changes nothing beside the pod, and a pod that cannot be injected hears why', async (t) => {
  const cluster = installed();
  const running = await started(t, cluster);
  await running.ready();
  const [ca = ''] = caIn(cluster);
  await labelled(cluster, 'shop');
  const dry = await post(running, ca, reviewOf(owned, { dryRun: true }));
  t.match(JSON.parse(dry.text), { response: { allowed: true, patch: String } });
  t.notOk(cluster.objects.has(trustPath('shop')));
  const refused = await post(running, ca, reviewOf({ metadata: { name: 'p' }, spec: { hostNetwork: true, containers: [] } }));
  t.match(JSON.parse(refused.text), { response: { uid: 'u1', allowed: false, status: { code: 403, message: /hostNetwork: the pod/ } } });
  const left = await post(running, ca, reviewOf({ metadata: { labels: { 'outrider.dev/inject': 'disabled' } }, spec: { containers: [] } }));
  t.strictSame(JSON.parse(left.text).response, { uid: 'u1', allowed: true });
  t.notOk([...cluster.objects.keys()].some((path) => path.includes('/events')));
});

t.test('a review is believed about its pod, and about nothing beside it: nothing is brought where the cluster has no label', async (t) => {
  const cluster = installed();
  cluster.put('/api/v1/namespaces/kube-system', { metadata: { name: 'kube-system' } });
  const running = await started(t, cluster);
  await running.ready();
  await until(() => cluster.objects.has(trustPath('orders')));
  const [ca = ''] = caIn(cluster);
  for (const namespace of ['kube-system', 'not-there']) {
    const labels = { 'outrider.dev/inject': 'enabled' };
    const { text } = await post(running, ca, reviewOf({ ...owned, metadata: { ...owned.metadata, labels } }, { namespace }));
    t.match(JSON.parse(text), { response: { allowed: true, patch: String } });
    const asked = cluster.calls.filter((call) => call.includes(`/${namespace}/`));
    t.strictSame(asked, [`GET /api/v1/namespaces/${namespace}/pods`], 'whether there are labelled pods');
  }
});

t.test('what is no review of a pod is refused with a sentence', async (t) => {
  const cluster = installed();
  const running = await started(t, cluster);
  await running.ready();
  const [ca = ''] = caIn(cluster);
  const cases: readonly [string, Sent, number, string][] = [
    ['{', {}, 400, 'the body is not JSON'],
    [
      '{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1"}',
      {},
      400,
      'the body is not an AdmissionReview of admission.k8s.io/v1',
    ],
    ['{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}', {}, 400, 'the review has no request'],
    [reviewOf(owned, { uid: '' }), {}, 400, 'the request has no uid'],
    [reviewOf(owned, { operation: 'UPDATE' }), {}, 400, 'the request does not create a pod'],
    [reviewOf(owned, { resource: { group: 'apps', version: 'v1', resource: 'deployments' } }), {}, 400, 'the request is not about a pod'],
    [reviewOf(owned, { subResource: 'ephemeralcontainers' }), {}, 400, 'the request is not about a pod'],
    [reviewOf(owned, { namespace: undefined }), {}, 400, 'the request has no namespace'],
    [reviewOf(owned, { namespace: '../../..' }), {}, 400, 'the namespace of the request is no DNS label'],
    [reviewOf({ spec: { containers: 'x' } }), {}, 400, 'the object is not a pod'],
    ['', { path: '/' }, 404, 'there is /mutate'],
    ['', { method: 'PUT' }, 405, 'only POST'],
    ['', { type: 'text/plain' }, 415, 'only application/json'],
    ['x'.repeat(limits.webhookBodyBytesMax + 1), {}, 413, `at most ${limits.webhookBodyBytesMax} bytes`],
  ];
  for (const [body, sent, status, sentence] of cases) {
    const answer = await post(running, ca, body, sent);
    t.strictSame([answer.status, answer.text], [status, `${sentence}\n`], sentence);
  }
  t.match(await admin(running, '/metrics'), /outrider_injector_reviews_total\{result="failed"\} 10/);
});

t.test('a review under way is answered when the injector is told to stop, and its connection is not used again', async (t) => {
  const cluster = installed();
  const running = await started(t, cluster);
  await running.ready();
  const [ca = ''] = caIn(cluster);
  await labelled(cluster, 'late');
  const agent = new Agent({ keepAlive: true });
  t.teardown(() => agent.destroy());
  t.equal((await post(running, ca, reviewOf(owned), { agent })).connection, 'keep-alive');
  let closed: Promise<void> | undefined;
  const before = Promise.withResolvers<void>();
  cluster.before = (_, path) => {
    if (path !== trustPath('late')) return;
    closed ??= running.close();
    before.resolve();
  };
  const answer = post(running, ca, reviewOf(owned, { namespace: 'late' }), { agent });
  await before.promise;
  t.match(await answer, { status: 200, connection: 'close' });
  await closed;
});

t.test('without an API server it waits, and says for what', async (t) => {
  const cluster = installed();
  cluster.before = () => {
    throw new Error('away');
  };
  const running = await started(t, cluster);
  t.match(await admin(running, '/readyz'), /waiting for a serving certificate\nwaiting for the API server's trust in it/);
});

t.test("with a certificate in files it says what it sees of the API server's trust, and nothing while it cannot look", async (t) => {
  const directory = directoryOf(t);
  const [certFile, keyFile] = [join(directory, 'tls.crt'), join(directory, 'tls.key')];
  const authority = createTestAuthority();
  const { cert, key } = authority.serverFor(host);
  writeFileSync(certFile, cert);
  writeFileSync(keyFile, key);
  const shown = (cluster: ClusterObjects, pattern: RegExp) =>
    t.test(String(pattern), async (t) => {
      const running = await started(t, cluster, { serving: { kind: 'files', certFile, keyFile } });
      await running.ready();
      while (!pattern.test(await admin(running, '/metrics')));
    });
  const cluster = installed();
  await shown(cluster, /^outrider_injector_webhook_ca_current 0$/m);
  const caBundle = Buffer.from(authority.pem).toString('base64');
  cluster.put(configurationPath, { webhooks: [{ name: 'a', clientConfig: { caBundle } }] });
  await shown(cluster, /^outrider_injector_webhook_ca_current 1$/m);
  cluster.before = (method, path) => {
    if (path === configurationPath) throw new ApiError(method, path, { status: 403, reason: 'Forbidden' });
  };
  await shown(cluster, /^outrider_injector_webhook_ca_current NaN\n[^]*operation="webhook_configuration"\} 1$/im);
});
