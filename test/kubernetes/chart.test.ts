import t, { type Test } from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { Secret } from '../../src/core/secret.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { attest, openBroker } from '../../src/rpc/client.ts';
import type { Kube } from './api.ts';
import { type Cluster, clustersArePossible, startCluster } from './cluster.ts';
import { within } from './control-plane.ts';
import {
  addressOf,
  brokerId,
  createNamespace,
  install,
  namespace,
  podsOf,
  readyPod,
  readyRoles,
  release,
  shell,
  trustBundle,
  upgrade,
  valuesFile,
  type Values,
} from './installation.ts';
import { inventory, type Released, releasedObjects } from './inventory.ts';
import { kubernetesVersion } from './prepare.ts';

t.setTimeout(300_000);

const configuration = {
  workloads: [{ name: 'shop', match: { 'kubernetes.namespace': 'shop', 'kubernetes.service_account': 'default' }, owner: 'tests' }],
  providers: [{ kind: 'jwt', name: 'ledger-token', audience: 'https://ledger.outrider.test', lifetime: '5m' }],
  targets: [
    { name: 'ledger', hosts: ['ledger.outrider.test'], credentials: [{ provider: 'ledger-token', placement: { kind: 'bearer' } }] },
  ],
};
const policy = (effect: 'allow' | 'deny'): object[] => [
  { name: 'shop', rules: [{ name: 'use-ledger', effect, workloads: ['shop'], targets: ['ledger'] }] },
];
const before: Values = {
  broker: { replicas: 1, configuration: { ...configuration, policies: policy('deny') } },
  collector: { storage: { whenDeleted: 'Delete' } },
};
const after: Values = {
  broker: { replicas: 2, configuration: { ...configuration, policies: policy('allow') } },
  collector: { storage: { whenDeleted: 'Delete' } },
};

const liveOf = async ({ api }: Cluster, objects: readonly Released[]): Promise<ReadonlyMap<string, Kube>> =>
  new Map(
    await Promise.all(
      objects.map(async ({ path }) => {
        const live = await api.get(path);
        if (!live) throw new Error(`${path} is not there`);
        return [path, live] as const;
      }),
    ),
  );

/** A broker's word on a grant for the pod's workload, or the code of its refusal. */
const grantFor = async ({ api }: Cluster, pod: Kube, trust: string, broker: Kube): Promise<string> => {
  const token = await api.create('/api/v1/namespaces/shop/serviceaccounts/default/token', {
    spec: {
      audiences: ['outrider'],
      expirationSeconds: 600,
      boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid },
    },
  });
  const peer = { address: `${addressOf(broker)}:15002`, spiffeId: brokerId };
  const evidence = { kind: 'projected_token', token: new Secret(token['status'].token as string) } as const;
  const svid = await attest({ broker: peer, brokerCaPem: trust, evidence, key: createKeyPair(), timeoutMs: 10_000, clock: systemClock });
  const channel = openBroker({ broker: peer, svid });
  try {
    const { target } = await channel.getGrant('ledger', '');
    return `granted for ${target}`;
  } catch (error) {
    return error instanceof Fault ? error.code : String(error);
  } finally {
    channel.close();
  }
};

const theTests = (t: Test, cluster: Cluster, empty: ReadonlySet<string>): void => {
  const { api, controlPlane } = cluster;

  t.test('"helm lint --strict" has nothing to say, and a wrong value is refused before anything is installed', async (t) => {
    t.match(await cluster.helm('lint', '--strict', cluster.chart, ...valuesFile(cluster, before)), /0 chart\(s\) failed/);
    const refused = cluster.helm('install', 'mistaken', cluster.chart, '--namespace', namespace, '--set', 'broker.replicas=none');
    await t.rejects(refused, /broker\/replicas/);
    t.strictSame(
      [...(await inventory(api))].filter((object) => !empty.has(object)),
      [],
    );
  });

  t.test('it is installed into a namespace with restricted pod security, and everything becomes ready', async (t) => {
    await install(cluster, before);
    for (const { path, manifest } of await releasedObjects(cluster))
      t.ok(await api.get(path), `${manifest.kind} ${manifest.metadata.name}`);
    t.equal((await podsOf(cluster, 'broker')).length, 1);
    t.equal((await podsOf(cluster, 'injector')).length, 2);
  });

  t.test('"helm test" sends a request through an injected pod and finds its event', async (t) => {
    t.match(await cluster.helm('test', release, '--namespace', namespace, '--timeout', '90s'), /Phase:\s+Succeeded/);
  });

  t.test('an upgrade to other values: more replicas, and another policy that is in force without a restart', async (t) => {
    await api.create('/api/v1/namespaces/shop/pods', {
      metadata: { name: 'app' },
      spec: { terminationGracePeriodSeconds: 1, containers: [shell('main', 'exec sleep 1000')] },
    });
    const pod = await readyPod(cluster, 'shop', 'app', 60_000);
    const trust = await trustBundle(cluster);
    const [first] = (await podsOf(cluster, 'broker')) as [Kube];
    t.equal(await grantFor(cluster, pod, trust, first), 'policy_denied');
    await upgrade(cluster, after);
    await within(
      'the new policy to be in force',
      60_000,
      async () => (await grantFor(cluster, pod, trust, first)) === 'granted for ledger',
    );
    await readyRoles(cluster, ['broker', 'collector', 'injector']);
    const brokers = await podsOf(cluster, 'broker');
    t.equal(brokers.length, 2);
    t.ok(
      brokers.some(({ metadata }) => metadata.uid === first.metadata.uid),
      'the first one was not replaced',
    );
    for (const broker of brokers) t.equal(await grantFor(cluster, pod, trust, broker), 'granted for ledger', broker.metadata.name);
    t.equal(await trustBundle(cluster), trust, 'the authority is the one before');
  });

  t.test('for GitOps: an upgrade with the same values changes no object, and to apply the manifests again would change none', async (t) => {
    const objects = await releasedObjects(cluster);
    const found = await liveOf(cluster, objects);
    await upgrade(cluster, after);
    for (const [path, live] of await liveOf(cluster, objects))
      t.equal(live.metadata.resourceVersion, found.get(path)?.metadata.resourceVersion, path);
    const bare = (object: Kube): object => ({ ...object, metadata: { ...object.metadata, managedFields: undefined } });
    for (const { path, manifest } of objects) {
      const query = 'dryRun=All&force=true&fieldManager=gitops';
      const { status, body } = await api.call('PATCH', `${path}?${query}`, manifest, 'application/apply-patch+yaml');
      t.equal(status, 200, path);
      t.strictSame(bare(body), bare((await api.get(path)) as Kube), path);
    }
  });

  t.test('the roles may do what they do, and nothing was refused to them by the API server; they may not do more', async (t) => {
    const own = controlPlane
      .audit()
      .filter((entry) => (entry['user'] as { username: string }).username.startsWith(`system:serviceaccount:${namespace}:${release}-`));
    t.ok(own.length > 10, `${own.length} requests`);
    const refused = own.filter((entry) => (entry['responseStatus'] as { code: number } | undefined)?.code === 403);
    t.strictSame([...new Set(refused.map((entry) => `${String(entry['verb'])} ${String(entry['requestURI'])}`))], []);
    const may = async (role: string, verb: string, resource: string, where: string, name = ''): Promise<boolean> => {
      const user = `system:serviceaccount:${namespace}:${release}-${role}`;
      const spec = {
        user,
        groups: ['system:serviceaccounts', 'system:authenticated'],
        resourceAttributes: { verb, resource, namespace: where, name },
      };
      return (await api.create('/apis/authorization.k8s.io/v1/subjectaccessreviews', { spec }))['status'].allowed as boolean;
    };
    t.ok(await may('broker', 'update', 'secrets', namespace, 'outrider-keys'));
    for (const role of ['broker', 'collector', 'injector', 'self-test']) {
      t.notOk(await may(role, 'list', 'secrets', namespace), `${role} lists no secrets`);
      t.notOk(await may(role, 'get', 'secrets', 'shop', 'any'), `${role} reads no secrets elsewhere`);
      t.notOk(await may(role, 'create', 'pods', 'shop'), `${role} makes no pods`);
    }
    t.notOk(await may('injector', 'get', 'secrets', namespace, 'outrider-keys'), 'the injector has not the keys');
    t.notOk(await may('collector', 'get', 'configmaps', namespace, 'outrider-trust'), 'the collector has no rights at all');
  });

  t.test('uninstalled, it leaves nothing behind, in app namespaces either', async (t) => {
    t.ok(await api.get('/api/v1/namespaces/shop/configmaps/outrider-trust'), 'there was something to leave');
    await api.remove('/api/v1/namespaces/shop/pods/app');
    await cluster.helm('uninstall', release, '--namespace', namespace, '--wait', '--timeout', '90s');
    let now: ReadonlySet<string> = new Set();
    const isLeft = (object: string): boolean => !empty.has(object);
    await within('everything to be gone', 60_000, async () => {
      now = await inventory(api);
      return ![...now].some(isLeft);
    }).catch(() => undefined);
    t.strictSame([...now].filter(isLeft), []);
    t.strictSame(
      [...empty].filter((object) => !now.has(object)),
      [],
      'and took nothing along',
    );
  });

  t.test('unless told otherwise, what remains of an uninstalled release is its evidence', async (t) => {
    await install(cluster, { broker: { configuration: {} } });
    await cluster.helm('uninstall', release, '--namespace', namespace, '--wait', '--timeout', '90s');
    const claim = `/api/v1/persistentvolumeclaims ${namespace}/events-outrider-collector-0`;
    await within('everything else to be gone', 60_000, async () => {
      const left = [...(await inventory(api))].filter((object) => !empty.has(object) && !object.startsWith('/api/v1/persistentvolumes '));
      return left.length === 1 && left[0] === claim;
    });
    t.pass('the claim alone');
  });
};

t.test(`the chart, applied to Kubernetes ${kubernetesVersion}`, async (t) => {
  if (!clustersArePossible(t)) return;
  const cluster = await startCluster(t);
  await createNamespace(cluster, namespace, { 'pod-security.kubernetes.io/enforce': 'restricted' });
  await createNamespace(cluster, 'shop', { 'outrider.dev/inject': 'enabled' });
  theTests(t, cluster, await within('a quiet cluster', 20_000, () => inventory(cluster.api)));
});
