import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { createMutation } from '../../src/injector/mutate.ts';
import { createPlaces } from '../../src/injector/places.ts';
import type { Remark } from '../../src/injector/remarks.ts';
import { ApiError } from '../../src/net/api-server.ts';
import { createLog } from '../../src/ops/log.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { createClusterObjects } from '../fakes/cluster-objects.ts';
import { exampleSidecar } from '../support/injector-pods.ts';

const labels = { 'outrider.dev/inject': 'enabled' };

const start = (t: Test) => {
  const cluster = createClusterObjects();
  cluster.put('/api/v1/namespaces/orders', { metadata: { name: 'orders', labels } });
  cluster.put('/api/v1/namespaces/kube-system', { metadata: { name: 'kube-system' } });
  const clock = createFakeClock();
  const log = createLog({ role: 'injector', level: 'silent' });
  let failures = 0;
  const places = createPlaces({ api: cluster, clock, log, onFailure: () => void (failures += 1) });
  t.teardown(places.close);
  const pod = (namespace: string, name = 'p'): void =>
    cluster.put(`/api/v1/namespaces/${namespace}/pods/${name}`, { metadata: { name, namespace, labels } });
  return { cluster, clock, log, places, pod, failures: () => failures };
};

t.test(
  'pods are injected where the namespace has the label, or a pod of it; asked for once, and not again where a count has found it',
  async (t) => {
    const { cluster, places, pod } = start(t);
    t.equal(await places.isOne('orders'), true);
    t.equal(await places.isOne('kube-system'), false);
    t.equal(await places.isOne('not-there'), false);
    pod('elsewhere');
    t.equal(await places.isOne('elsewhere'), true);
    cluster.calls.length = 0;
    t.equal(await places.isOne('elsewhere'), true);
    places.know(['counted']);
    t.equal(await places.isOne('counted'), true);
    t.same(cluster.calls, []);
    cluster.put('/api/v1/namespaces/orders', { metadata: { name: 'orders' } });
    t.equal(await places.isOne('orders'), false, 'what the count no longer has is asked for anew');
  },
);

t.test('many reviews of one namespace ask once, and those of many namespaces no more than a few at a time', async (t) => {
  const { cluster, places } = start(t);
  t.same(new Set(await Promise.all(Array.from({ length: 50 }, () => places.isOne('orders')))), new Set([true]));
  t.equal(cluster.calls.length, 1);
  await Promise.all(Array.from({ length: 50 }, (_, i) => places.isOne(`forged-${i}`)));
  t.equal(cluster.calls.length, 1 + 2 * limits.placesAskedMax);
  const waits = Array.from({ length: limits.placesWaitingMax + 5 }, (_, i) => places.becomesOne(`forged-${i}`));
  await places.close();
  t.same(new Set(await Promise.all(waits)), new Set([false]));
});

t.test('an API server that does not say is a no, and a failure', async (t) => {
  const { cluster, places, failures } = start(t);
  cluster.before = (method, path) => {
    throw new ApiError(method, path, { status: 403, reason: 'Forbidden' });
  };
  t.equal(await places.isOne('orders'), false);
  t.equal(failures(), 1);
  cluster.before = undefined;
  t.equal(await places.isOne('orders'), true);
});

const review = (namespace: string, metadata: object = {}): string =>
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u',
      resource: { group: '', version: 'v1', resource: 'pods' },
      operation: 'CREATE',
      namespace,
      object: {
        metadata: { name: 'p', labels, ...metadata },
        spec: { containers: [{ name: 'app', env: [{ name: 'HTTPS_PROXY', value: 'http://x:1' }] }] },
      },
    },
  });

const mutating = (t: Test) => {
  const parts = start(t);
  const brought: string[] = [];
  const remarks: Remark[] = [];
  const mutate = createMutation({
    ...parts,
    settings: exampleSidecar,
    trust: { ensure: async (namespace) => brought.push(namespace) > 0 },
    remarks: { send: (remark) => void remarks.push(remark) },
    metrics: { add: () => undefined, observe: () => undefined },
  });
  return { ...parts, mutate, brought, remarks };
};

t.test(
  'the first labelled pod of a namespace without the label is answered at once, and has its trust and remark when it is there',
  async (t) => {
    const { mutate, brought, remarks, clock, pod, places } = mutating(t);
    for (const namespace of ['elsewhere', 'kube-system']) t.match(await mutate(review(namespace)), { status: 200 });
    t.same([brought, remarks], [[], []]);
    pod('elsewhere');
    const looked = ['elsewhere', 'kube-system'].map((namespace) => places.becomesOne(namespace));
    clock.advance(limits.placesWaitMs);
    t.same(await Promise.all(looked), [true, false]);
    t.same(brought, ['elsewhere']);
    t.match(remarks, [{ namespace: 'elsewhere', message: /HTTPS_PROXY replaced/ }]);
  },
);

t.test('what comes in a pod as an earlier note is no remark', async (t) => {
  const { mutate, remarks } = mutating(t);
  await mutate(review('orders', { labels: { 'outrider.dev/injected': 'true' }, annotations: { 'outrider.dev/notes': 'call 555' } }));
  t.equal(remarks.length, 1);
  t.notMatch(remarks[0]?.message, '555');
  t.match(remarks[0]?.message, /HTTPS_PROXY replaced/);
});
