import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t from 'tap';
import type { JsonObject } from '../../src/core/json.ts';
import { showCensus, takeCensus } from '../../src/injector/census.ts';
import { createRemarks, type Remark } from '../../src/injector/remarks.ts';
import { limits } from '../../src/core/limits.ts';
import { ApiError } from '../../src/net/api-server.ts';
import { createLog } from '../../src/ops/log.ts';
import { createMetrics } from '../../src/ops/metrics.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { createClusterObjects } from '../fakes/cluster-objects.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const enabled = { 'outrider.dev/inject': 'enabled' };
const disabled = { 'outrider.dev/inject': 'disabled' };
const sidecar = { initContainers: [{ name: 'outrider-proxy', restartPolicy: 'Always' }] };

t.test('pods are counted where they should have a proxy, by whether they have one', async (t) => {
  const cluster = createClusterObjects();
  const namespace = (name: string, labels = {}): void => cluster.put(`/api/v1/namespaces/${name}`, { metadata: { name, labels } });
  const pod = (namespace: string, name: string, spec = {}, labels = {}, phase = 'Running'): void =>
    cluster.put(`/api/v1/namespaces/${namespace}/pods/${name}`, { metadata: { name, namespace, labels }, spec, status: { phase } });
  namespace('orders', enabled);
  namespace('quiet', enabled);
  namespace('other');
  pod('orders', 'with', sidecar);
  pod('orders', 'with-and-label', sidecar, enabled);
  pod('orders', 'before-the-label');
  pod('orders', 'left-out', {}, disabled);
  pod('orders', 'ended', {}, {}, 'Succeeded');
  pod('orders', 'failed', {}, {}, 'Failed');
  pod('orders', 'pending', {}, {}, 'Pending');
  pod('orders', 'looks-alike', {
    initContainers: [{ name: 'outrider-proxy' }],
    containers: [{ name: 'outrider-proxy', restartPolicy: 'Always' }],
  });
  pod('other', 'nobody-asked');
  pod('other', 'asked', sidecar, enabled);
  pod('other', 'asked-in-vain', {}, enabled);
  t.same(Object.fromEntries(await takeCensus(cluster)), {
    orders: { injected: 2, uninjected: 3, opted_out: 1 },
    quiet: { injected: 0, uninjected: 0, opted_out: 0 },
    other: { injected: 1, uninjected: 1, opted_out: 0 },
  });
});

t.test('of very many pods a page is held at a time, and those that have ended are not asked for', async (t) => {
  const cluster = createClusterObjects();
  cluster.put('/api/v1/namespaces/orders', { metadata: { name: 'orders', labels: enabled } });
  const made: WeakRef<object>[] = [];
  const asked: unknown[] = [];
  const pod = (): object => ({ metadata: { namespace: 'orders' }, spec: { padding: 'x'.repeat(10_000) }, status: { phase: 'Running' } });
  const census = await takeCensus({
    pages: async function* (path, options) {
      if (!path.endsWith('/orders/pods')) return yield* cluster.pages(path, options);
      asked.push(options);
      for (let i = 0; i < 500; i += 1) {
        const page = Array.from({ length: 10 }, pod) as JsonObject[];
        made.push(new WeakRef(page));
        yield page;
      }
    },
  });
  t.same(census.get('orders'), { injected: 0, uninjected: 5_000, opted_out: 0 });
  t.strictSame(asked, [{ fieldSelector: 'status.phase!=Succeeded,status.phase!=Failed' }]);
  // A reference that was just made holds until the turn ends.
  await new Promise((resolve) => setImmediate(resolve));
  collectGarbage();
  t.ok(made.filter((page) => page.deref() !== undefined).length <= 1, 'no page is held');
});

t.test('of very many namespaces each has its own row, and those past the bound add up', async (t) => {
  const metrics = createMetrics('injector');
  const few = 900;
  const many = limits.namespaceLabelValuesMax + 3;
  const shown = async (round: string, count: number): Promise<string[]> => {
    const counts = { injected: 1, uninjected: 2, opted_out: 0 };
    showCensus(new Map(Array.from({ length: count }, (_, i) => [`${round}-${i}`, counts])), metrics);
    return (await metrics.expose()).split('\n').filter((line) => /^outrider_injector_pods\{.*"uninjected"/.test(line));
  };
  for (const round of ['a', 'b']) {
    const rows = await shown(round, few);
    t.equal(rows.length, few);
    t.ok(rows.includes(`outrider_injector_pods{namespace="${round}-${few - 1}",state="uninjected"} 2`), 'each by its name');
  }
  const rows = await shown('c', many);
  t.equal(rows.length, limits.namespaceLabelValuesMax + 1);
  t.ok(rows.includes('outrider_injector_pods{namespace="other",state="uninjected"} 6'), 'three namespaces of two');
});

const remark = (message: string): Remark => ({
  namespace: 'orders',
  about: { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'api-7d4', uid: 'u-1' },
  type: 'Normal',
  reason: 'ProxySettingsReplaced',
  message,
});

t.test('remarks become Events about what they are about, one after the other', async (t) => {
  const cluster = createClusterObjects();
  const log = createLog({ role: 'injector', level: 'silent' });
  const clock = createFakeClock(Date.UTC(2030, 0, 2, 3, 4, 5));
  const remarks = createRemarks({ api: cluster, clock, log, onFailure: () => t.fail('nothing fails') });
  remarks.send(remark('one'));
  remarks.send(remark('x'.repeat(2_000)));
  await remarks.close();
  // What waited when it was closed is dropped.
  t.equal(cluster.objects.size, 1);
  remarks.send(remark('two'));
  await new Promise((resolve) => setImmediate(resolve));
  const [first, second] = [...cluster.objects.values()];
  t.match(first, {
    kind: 'Event',
    involvedObject: { kind: 'ReplicaSet', name: 'api-7d4', namespace: 'orders' },
    message: 'one',
    source: { component: 'outrider-injector' },
    firstTimestamp: '2030-01-02T03:04:05Z',
  });
  t.match(second, { message: 'two' });
  t.equal(
    [...cluster.objects.keys()].every((path) => path.startsWith('/api/v1/namespaces/orders/events/api-7d4.')),
    true,
  );
});

t.test('remarks that cannot be sent, or are too many, are counted and hold nothing up', async (t) => {
  const cluster = createClusterObjects();
  let failures = 0;
  const log = createLog({ role: 'injector', level: 'silent' });
  const remarks = createRemarks({ api: cluster, clock: createFakeClock(), log, onFailure: () => void (failures += 1) });
  cluster.before = (method, path) => {
    throw new ApiError(method, path, { status: 403, reason: 'Forbidden' });
  };
  // The first is being sent while the others wait.
  for (let i = 0; i < limits.remarksMax + 3; i += 1) remarks.send(remark(String(i)));
  t.equal(failures, 2, 'those that found no place');
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(failures, limits.remarksMax + 3);
});
