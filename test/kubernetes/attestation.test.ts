import t, { type Test } from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { Secret } from '../../src/core/secret.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { attest } from '../../src/rpc/client.ts';
import type { Svid } from '../../src/rpc/svid.ts';
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
  shell,
  trustBundle,
  trustDomain,
  upgrade,
} from './installation.ts';

t.setTimeout(300_000);

/** How long an API server goes on with an answer about a token that it has given before (its own cache). */
const apiServerCacheMs = 10_000;

const workloads = [
  { name: 'demo-app', match: { 'kubernetes.namespace': 'demo', 'kubernetes.service_account': 'demo-app' }, owner: 'tests' },
];

/** Real tokens of real service accounts, from TokenRequest, at brokers that run as the chart installed them. */
const theTests = (t: Test, cluster: Cluster, trust: string): void => {
  const { api } = cluster;
  const pods = '/api/v1/namespaces/demo/pods';
  let made = 0;

  const createPod = (serviceAccountName: string): Promise<Kube> => {
    made += 1;
    const name = `app-${made}`;
    const containers = [shell('main', 'exec sleep 1000')];
    return api
      .create(pods, { metadata: { name }, spec: { serviceAccountName, terminationGracePeriodSeconds: 0, containers } })
      .then(() => readyPod(cluster, 'demo', name));
  };
  const token = async (serviceAccount: string, pod?: Kube, audience = 'outrider'): Promise<string> => {
    const boundObjectRef = pod && { apiVersion: 'v1', kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid };
    const answer = await api.create(`/api/v1/namespaces/demo/serviceaccounts/${serviceAccount}/token`, {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { audiences: [audience], expirationSeconds: 600, boundObjectRef },
    });
    return answer['status'].token as string;
  };
  const attestWith = (evidence: string, broker: Kube): Promise<Svid> =>
    attest({
      broker: { address: `${addressOf(broker)}:15002`, spiffeId: brokerId },
      brokerCaPem: trust,
      evidence: { kind: 'projected_token', token: new Secret(evidence) },
      key: createKeyPair(),
      timeoutMs: 10_000,
      clock: systemClock,
    });
  const refusal = (evidence: string, broker: Kube): Promise<string> =>
    attestWith(evidence, broker).then(
      () => 'attested',
      (error: unknown) => (error instanceof Fault ? error.code : String(error)),
    );
  /** Requests of the brokers' service account to the API server, by verb and path, since a time. */
  const asked = (sinceMs: number): string[] =>
    cluster.controlPlane
      .audit()
      .filter((entry) => (entry['user'] as { username?: string }).username === `system:serviceaccount:${namespace}:outrider-broker`)
      .filter((entry) => Date.parse(entry['requestReceivedTimestamp'] as string) >= sinceMs)
      .map((entry) => `${String(entry['verb'])} ${String(entry['requestURI']).split('?', 1)[0]}`);

  const common = async (t: Test, brokers: readonly Kube[]): Promise<void> => {
    const pod = await createPod('demo-app');
    const good = await token('demo-app', pod);
    for (const broker of brokers) t.equal((await attestWith(good, broker)).spiffeId, `spiffe://${trustDomain}/ns/demo/sa/demo-app`);
    const [broker] = brokers as [Kube, ...Kube[]];
    t.equal(await refusal(await token('demo-app', pod, 'https://kubernetes.default.svc.cluster.local'), broker), 'evidence_audience');
    t.equal(await refusal(await token('demo-app'), broker), 'evidence_invalid', 'bound to no pod');
    t.equal(await refusal(`${good.slice(0, -8)}AAAAAAAA`, broker), 'evidence_invalid', 'not signed by the cluster');
  };

  t.test('TokenReview: a pod’s token attests at every replica; of another audience, of no pod or forged it is refused', async (t) => {
    const begun = Date.now();
    const brokers = await podsOf(cluster, 'broker');
    t.equal(brokers.length, 2);
    await common(t, brokers);
    t.ok(asked(begun).includes('create /apis/authentication.k8s.io/v1/tokenreviews'));
  });

  t.test('TokenReview: the token of a pod that is deleted is refused', async (t) => {
    const [broker] = (await podsOf(cluster, 'broker')) as [Kube];
    const pod = await createPod('demo-app');
    const unused = await token('demo-app', pod);
    const used = await token('demo-app', pod);
    t.ok(await attestWith(used, broker));
    await api.remove(`${pods}/${pod.metadata.name}`);
    await within('the pod to be gone', 20_000, async () => (await api.get(`${pods}/${pod.metadata.name}`)) === undefined);
    t.equal(await refusal(unused, broker), 'evidence_invalid', 'at once, where the API server has not been asked of it before');
    await within(
      'a token that it was asked of before',
      apiServerCacheMs + 5_000,
      async () => (await refusal(used, broker)) === 'evidence_invalid',
    );
  });

  t.test('JWKS: by the API server’s own discovery and keys, without one TokenReview, after an upgrade without a restart', async (t) => {
    const before = await podsOf(cluster, 'broker');
    await upgrade(cluster, { broker: { configuration: { workloads } }, cluster: { attestation: 'jwks' } });
    for (const pod of before) {
      await within('the configuration to be in force', 60_000, () =>
        /configuration in force/.test(cluster.node.log(namespace, pod.metadata.name, 'broker')),
      );
    }
    t.strictSame(
      (await podsOf(cluster, 'broker')).map(({ metadata }) => metadata.uid),
      before.map(({ metadata }) => metadata.uid),
    );
    const begun = Date.now();
    await common(t, before);
    const requests = asked(begun);
    t.ok(requests.includes('get /.well-known/openid-configuration'), 'discovery');
    t.ok(requests.includes('get /openid/v1/jwks'), 'keys');
    t.notOk(requests.some((request) => request.includes('tokenreviews')));
  });
};

t.test('attestation in a cluster', async (t) => {
  if (!clustersArePossible(t)) return;
  const cluster = await startCluster(t);
  await install(cluster, { broker: { configuration: { workloads } } }, ['broker']);
  await createNamespace(cluster, 'demo');
  await cluster.api.create('/api/v1/namespaces/demo/serviceaccounts', { metadata: { name: 'demo-app' } });
  theTests(t, cluster, await trustBundle(cluster));
});
