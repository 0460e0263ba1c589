import t from 'tap';
import { createTrust } from '../../src/injector/trust.ts';
import { ApiError } from '../../src/net/api-server.ts';
import { createLog } from '../../src/ops/log.ts';
import { createClusterObjects } from '../fakes/cluster-objects.ts';

const sourcePath = '/api/v1/namespaces/outrider/configmaps/outrider-trust';
const ownerPath = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrider-injector';
const copyPath = (namespace: string): string => `/api/v1/namespaces/${namespace}/configmaps/outrider-trust`;

const start = ({ pem = 'first bundle', configMap = 'outrider-trust' } = {}) => {
  const cluster = createClusterObjects();
  if (pem !== '') cluster.put(`/api/v1/namespaces/outrider/configmaps/${configMap}`, { metadata: {}, data: { 'ca.pem': pem } });
  cluster.put(ownerPath, { metadata: { uid: 'owner-uid' } });
  let failures = 0;
  const log = createLog({ role: 'injector', level: 'silent' });
  const onFailure = (): void => void (failures += 1);
  const trust = createTrust({ api: cluster, namespace: 'outrider', configMap, webhookConfiguration: 'outrider-injector', log, onFailure });
  return { cluster, trust, failures: () => failures };
};

t.test('a namespace gets a copy that belongs to the webhook configuration', async (t) => {
  const { cluster, trust } = start();
  t.equal(await trust.ensure('orders'), true);
  t.match(cluster.objects.get(copyPath('orders')), {
    kind: 'ConfigMap',
    metadata: {
      labels: { 'app.kubernetes.io/managed-by': 'outrider' },
      ownerReferences: [
        {
          apiVersion: 'admissionregistration.k8s.io/v1',
          kind: 'MutatingWebhookConfiguration',
          name: 'outrider-injector',
          uid: 'owner-uid',
        },
      ],
    },
    data: { 'ca.pem': 'first bundle' },
  });
});

t.test('where the copy was seen to be current nobody is asked again, until the next round', async (t) => {
  const { cluster, trust } = start();
  await trust.ensure('orders');
  cluster.calls.length = 0;
  t.equal(await trust.ensure('orders'), true);
  t.same(cluster.calls, []);
  cluster.objects.delete(copyPath('orders'));
  t.equal(await trust.reconcile(['orders']), 1);
  t.ok(cluster.objects.has(copyPath('orders')), 'one that was deleted is there again');
});

t.test('copies follow the source', async (t) => {
  const { cluster, trust } = start();
  await trust.reconcile(['orders', 'batch']);
  cluster.put(sourcePath, { metadata: {}, data: { 'ca.pem': 'second bundle' } });
  t.equal(await trust.reconcile(['orders', 'batch']), 2);
  for (const namespace of ['orders', 'batch']) t.match(cluster.objects.get(copyPath(namespace)), { data: { 'ca.pem': 'second bundle' } });
});

t.test('a ConfigMap of the same name that is not ours is left alone', async (t) => {
  const { cluster, trust, failures } = start();
  cluster.put(copyPath('orders'), { metadata: { labels: { app: 'theirs' } }, data: { 'ca.pem': 'theirs' } });
  t.equal(await trust.ensure('orders'), false);
  t.match(cluster.objects.get(copyPath('orders')), { data: { 'ca.pem': 'theirs' } });
  t.equal(failures(), 1);
});

t.test('in our own namespace the source is what pods mount, unless it has another name', async (t) => {
  const same = start();
  t.equal(await same.trust.ensure('outrider'), true);
  t.same(
    same.cluster.calls.filter((call) => !call.startsWith('GET')),
    [],
  );
  const other = start({ configMap: 'edge-trust' });
  t.equal(await other.trust.ensure('outrider'), true);
  t.match(other.cluster.objects.get(sourcePath), { data: { 'ca.pem': 'first bundle' } });
});

t.test('before a broker has run there is nothing to copy, and that is no failure', async (t) => {
  const { trust, failures } = start({ pem: '' });
  t.equal(await trust.ensure('orders'), false);
  t.equal(await trust.reconcile(['orders']), 0);
  t.equal(failures(), 0);
});

t.test('an API server that refuses or is away is counted, and the next round tries again', async (t) => {
  const { cluster, trust, failures } = start();
  cluster.before = (method, path) => {
    if (method === 'POST') throw new ApiError(method, path, { status: 403, reason: 'Forbidden' });
  };
  t.equal(await trust.reconcile(['orders', 'batch']), 0);
  t.equal(failures(), 2);
  cluster.before = undefined;
  t.equal(await trust.reconcile(['orders', 'batch']), 2);
});
