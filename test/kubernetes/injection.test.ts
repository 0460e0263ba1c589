import t, { type Test } from 'tap';
import type { Kube } from './api.ts';
import { type Cluster, clustersArePossible, startCluster } from './cluster.ts';
import { within } from './control-plane.ts';
import { createNamespace, install, metric, metricsPort, namespace, podsOf, readyPod, release, shell } from './installation.ts';

t.setTimeout(400_000);

const inject = 'outrider.dev/inject';
const security = {
  runAsNonRoot: true,
  runAsUser: 1000,
  seccompProfile: { type: 'RuntimeDefault' },
};
const container = (name: string, more: object = {}): object =>
  shell(name, 'exec sleep 1000', { securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } }, ...more });
const spec = (more: object = {}): object => ({
  terminationGracePeriodSeconds: 0,
  securityContext: security,
  containers: [container('main')],
  ...more,
});

interface Container {
  readonly name: string;
  readonly restartPolicy?: string;
  readonly env?: readonly { readonly name: string; readonly value?: string }[];
}
const initContainers = (pod: Kube): readonly Container[] => (pod['spec'].initContainers ?? []) as Container[];
const variables = (pod: Kube, index = 0): Record<string, string | undefined> =>
  Object.fromEntries(((pod['spec'].containers[index] as Container).env ?? []).map(({ name, value }) => [name, value]));

const isInjected = (pod: Kube): boolean => {
  const [first] = initContainers(pod);
  return first?.name === 'outrider-proxy' && first.restartPolicy === 'Always' && pod.metadata.labels?.['outrider.dev/injected'] === 'true';
};

const theTests = (t: Test, cluster: Cluster): void => {
  const { api } = cluster;
  const pods = (where: string): string => `/api/v1/namespaces/${where}/pods`;
  const create = (where: string, name: string, more: { spec?: object; labels?: object; annotations?: object } = {}): Promise<Kube> =>
    api.create(pods(where), {
      metadata: { name, labels: more.labels, annotations: more.annotations },
      spec: spec(more.spec),
    });
  const podOf = (where: string, selector: string): Promise<Kube> =>
    within(
      `a pod with ${selector}`,
      75_000,
      async () => (await api.list(`${pods(where)}?labelSelector=${encodeURIComponent(selector)}`))[0],
    );
  const template = (app: string): object => ({ metadata: { labels: { app } }, spec: spec() });
  const jobTemplate = (app: string): object => ({
    metadata: { labels: { app } },
    spec: spec({ restartPolicy: 'Never', containers: [{ ...container('main'), command: ['true'] }] }),
  });

  t.test('what makes pods: Pod, Deployment, Job and CronJob, in a namespace with restricted pod security', async (t) => {
    await api.create('/apis/batch/v1/namespaces/shop/cronjobs', {
      metadata: { name: 'nightly' },
      spec: { schedule: '* * * * *', jobTemplate: { spec: { template: jobTemplate('nightly') } } },
    });
    await api.create('/apis/apps/v1/namespaces/shop/deployments', {
      metadata: { name: 'web' },
      spec: { selector: { matchLabels: { app: 'web' } }, template: template('web') },
    });
    await api.create('/apis/batch/v1/namespaces/shop/jobs', { metadata: { name: 'once' }, spec: { template: jobTemplate('once') } });
    const pod = await create('shop', 'alone');
    t.ok(isInjected(pod), 'a pod comes back with its proxy');
    t.match(variables(pod)['HTTPS_PROXY'], /^http:\/\/127\.0\.0\.1:15001\/?$/);
    t.notOk(initContainers(pod).some(({ name }) => name === 'outrider-steer'));
    for (const app of ['web', 'once', 'nightly']) t.ok(isInjected(await podOf('shop', `app=${app}`)), app);
    await readyPod(cluster, 'shop', 'alone');
    await within(
      'the Job to be complete',
      60_000,
      async () => (await api.get('/apis/batch/v1/namespaces/shop/jobs/once'))?.['status'].succeeded === 1,
    );
    await api.remove('/apis/batch/v1/namespaces/shop/cronjobs/nightly');
  });

  t.test('what is not labelled is not touched, and what opts out is not; a labelled pod anywhere is', async (t) => {
    const plain = await create('elsewhere', 'plain');
    const before = { containers: plain['spec'].containers.length as number, init: initContainers(plain).length };
    t.strictSame(before, { containers: 1, init: 0 });
    t.strictSame(variables(plain), {});
    t.notOk(isInjected(await create('shop', 'opted-out', { labels: { [inject]: 'disabled' } })));
    t.ok(isInjected(await create('elsewhere', 'opted-in', { labels: { [inject]: 'enabled' } })));
  });

  t.test('it does the same to a dry run, without a trace', async (t) => {
    const answer = await api.create(`${pods('elsewhere-too')}?dryRun=All`, {
      metadata: { name: 'dry', labels: { [inject]: 'enabled' } },
      spec: spec(),
    });
    t.ok(isInjected(answer));
    t.equal(await api.get('/api/v1/namespaces/elsewhere-too/configmaps/outrider-trust'), undefined);
  });

  t.test('what it cannot do is refused with the reason, where the person sees it', async (t) => {
    await t.rejects(create('open', 'host', { spec: { hostNetwork: true } }), /hostNetwork|host network/i);
    await t.rejects(
      create('shop', 'windows', { spec: { os: { name: 'windows' }, securityContext: {}, containers: [shell('main', 'x')] } }),
      /windows/i,
    );
    await t.rejects(create('shop', 'unknown', { annotations: { 'outrider.dev/mod': 'explicit' } }), /outrider\.dev\/mod/);
    await t.rejects(create('shop', 'weak', { annotations: { 'outrider.dev/audit': 'best_effort' } }), /outrider\.dev\/audit/);
    await t.rejects(create('shop', 'mode', { annotations: { 'outrider.dev/mode': 'sideways' } }), /outrider\.dev\/mode/);
  });

  t.test('transparent mode has its init container where pod security lets it; "restricted" refuses it, and says what', async (t) => {
    const annotations = { 'outrider.dev/mode': 'transparent' };
    const pod = await create('open', 'steered', { annotations });
    t.strictSame(
      initContainers(pod).map(({ name }) => name),
      ['outrider-proxy', 'outrider-steer'],
    );
    t.equal(variables(pod)['HTTPS_PROXY'], undefined);
    await readyPod(cluster, 'open', 'steered');
    await t.rejects(create('shop', 'steered', { annotations }), /violates PodSecurity "restricted[^]*NET_ADMIN/);
  });

  t.test('where a program would go around the proxy its variable is replaced, and an annotation and an Event say so', async (t) => {
    const env = [
      { name: 'HTTPS_PROXY', value: 'http://proxy.outrider.test:3128' },
      { name: 'NO_PROXY', value: 'db.outrider.test' },
    ];
    const pod = await create('shop', 'own-proxy', { spec: { containers: [container('main', { env }), container('other')] } });
    for (const index of [0, 1]) t.equal(variables(pod, index)['HTTPS_PROXY'], 'http://127.0.0.1:15001');
    t.match(variables(pod)['NO_PROXY'], /\bdb\.outrider\.test\b/, 'merged');
    t.match(pod.metadata.annotations?.['outrider.dev/notes'], /HTTPS_PROXY replaced/);
    await within('the Event', 20_000, async () => {
      const events = await api.list('/api/v1/namespaces/shop/events');
      return events.some((event) => event['source']?.component === 'outrider-injector' && /HTTPS_PROXY/.test(event['message'] as string));
    });
  });

  t.test('the API server trusts the webhook by the certificate that the injectors made themselves', async (t) => {
    const configuration = await api.get(`/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${release}-injector`);
    const webhooks = configuration?.['webhooks'] as { name: string; failurePolicy: string; clientConfig: { caBundle: string } }[];
    t.strictSame(
      webhooks.map(({ name, failurePolicy }) => [name, failurePolicy]),
      [
        ['namespaces.inject.outrider.dev', 'Fail'],
        ['pods.inject.outrider.dev', 'Ignore'],
      ],
    );
    for (const { clientConfig } of webhooks)
      t.match(Buffer.from(clientConfig.caBundle, 'base64').toString(), /^-----BEGIN CERTIFICATE-----/);
    for (const pod of await podsOf(cluster, 'injector')) {
      t.equal(await metric(pod, metricsPort.injector, 'outrider_injector_webhook_ca_current'), 1, pod.metadata.name);
    }
  });

  t.test('pods that were there before the label are counted', async () => {
    await createNamespace(cluster, 'late');
    await create('late', 'old');
    await readyPod(cluster, 'late', 'old');
    await api.merge('/api/v1/namespaces/late', { metadata: { labels: { [inject]: 'enabled' } } });
    const [injector] = (await podsOf(cluster, 'injector')) as [Kube];
    const count = (state: string): Promise<number> =>
      metric(injector, metricsPort.injector, 'outrider_injector_pods', `namespace="late",state="${state}"`);
    await within('the pod to be counted', 90_000, async () => (await count('uninjected')) === 1);
    await create('late', 'new');
    await within('the new one to be counted', 90_000, async () => (await count('injected')) === 1);
  });

  t.test('while no injector runs: no pod starts without its proxy in labelled namespaces, and nobody else is held up', async (t) => {
    await api.merge(`/apis/apps/v1/namespaces/${namespace}/deployments/${release}-injector/scale`, { spec: { replicas: 0 } });
    await within(
      'the injectors to be gone',
      60_000,
      async () => (await api.list(`${pods(namespace)}?labelSelector=app.kubernetes.io%2Fcomponent%3Dinjector`)).length === 0,
    );
    await t.rejects(create('shop', 'in-vain'), /failed calling webhook "namespaces\.inject\.outrider\.dev"/);
    t.notOk(isInjected(await create('elsewhere', 'unaffected')));
    t.notOk(isInjected(await create('elsewhere', 'best-effort', { labels: { [inject]: 'enabled' } })), 'Ignore: made without a proxy');
    await readyPod(cluster, 'elsewhere', 'unaffected');
    await api.merge(`/apis/apps/v1/namespaces/${namespace}/deployments/${release}-injector/scale`, { spec: { replicas: 2 } });
    await within('pods to be injected again', 60_000, () => create('shop', 'at-last').then(isInjected));
  });
};

t.test('injection through the API server', async (t) => {
  if (!clustersArePossible(t)) return;
  const cluster = await startCluster(t);
  await createNamespace(cluster, namespace, { 'pod-security.kubernetes.io/enforce': 'restricted' });
  const workloads = [{ name: 'everybody', match: { 'kubernetes.service_account': 'default' }, owner: 'tests' }];
  await install(cluster, {
    broker: { replicas: 1, configuration: { workloads } },
    injector: { sidecar: { modes: ['explicit', 'transparent'] } },
  });
  await createNamespace(cluster, 'shop', { [inject]: 'enabled', 'pod-security.kubernetes.io/enforce': 'restricted' });
  await createNamespace(cluster, 'open', { [inject]: 'enabled' });
  for (const name of ['elsewhere', 'elsewhere-too']) await createNamespace(cluster, name);
  theTests(t, cluster);
});
