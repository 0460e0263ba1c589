import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parse } from 'yaml';
import { type Cluster, clustersArePossible, startCluster } from './cluster.ts';
import { within } from './control-plane.ts';
import { createNamespace, install, namespace, readyPod, release, shell, upgrade } from './installation.ts';
import { type Alert, type Prometheus, prometheusIsHere, startPrometheus } from './prometheus.ts';

t.setTimeout(300_000);

const workloads = [{ name: 'everybody', match: { 'kubernetes.service_account': 'default' }, owner: 'tests' }];
const values = { broker: { replicas: 2, configuration: { workloads } } };

const theTests = (t: Test, cluster: Cluster, prometheus: Prometheus): void => {
  const { api } = cluster;
  const firing = (name: string, state: Alert['state']): Promise<readonly Alert[]> =>
    within(`${name} to be ${state}`, 60_000, async () => {
      const found = (await prometheus.alerts(name)).filter((alert) => alert.state === state);
      return found.length > 0 && found;
    });

  t.test('every role and every injected pod is scraped', async (t) => {
    const wanted = { broker: 2, collector: 1, injector: 2, proxies: 1 };
    for (const [job, count] of Object.entries(wanted)) {
      await within(
        `${count} of ${job} to be scraped`,
        30_000,
        async () => (await prometheus.query(`up{job="${job}"} == 1`)).length === count,
      );
      const [own] = await prometheus.query(`count by (job) ({__name__=~"outrider_.*",job="${job}"})`);
      t.ok(Number(own?.value[1]) > 5, `${job}: ${own?.value[1]} series of its own`);
    }
    const [proxy] = await prometheus.query('up{job="proxies"}');
    t.match(proxy?.metric, { namespace: 'shop', pod: 'app', container: 'outrider-proxy' });
  });

  t.test('the rules of the chart are loaded, and every one of them can be evaluated', async (t) => {
    const names = ['recording-rules.yaml', 'alerts.yaml'].flatMap((file) => {
      const { groups } = parse(readFileSync(join(cluster.chart, 'files', file), 'utf8')) as {
        groups: { rules: { alert?: string; record?: string }[] }[];
      };
      return groups.flatMap(({ rules }) => rules.map(({ alert, record }) => alert ?? (record as string)));
    });
    const rules = await within('all rules to be evaluated', 30_000, async () => {
      const found = await prometheus.rules();
      return found.every(({ health }) => health !== 'unknown') && found;
    });
    t.strictSame(rules.map(({ name }) => name).toSorted(), names.toSorted());
    t.strictSame(
      rules.filter(({ health }) => health !== 'ok').map(({ name, lastError }) => `${name}: ${lastError}`),
      [],
    );
  });

  t.test('of a healthy installation no alert is there', async (t) => {
    const names = (await prometheus.rules()).filter(({ type }) => type === 'alerting').map(({ name }) => name);
    let found: readonly string[] = [];
    // What is absent is pending until it is scraped for the first time.
    await within('no alert', 20_000, async () => {
      found = (await Promise.all(names.map((name) => prometheus.alerts(name))))
        .flat()
        .map(({ labels, state }) => `${labels['alertname']} ${state}`);
      return found.length === 0;
    }).catch(() => undefined);
    t.strictSame(found, []);
  });

  t.test('a pod that runs without its proxy is seen: OutriderPodsWithoutProxy is pending, for its fifteen minutes', async (t) => {
    await createNamespace(cluster, 'late');
    await api.create('/api/v1/namespaces/late/pods', {
      metadata: { name: 'old' },
      spec: { containers: [shell('main', 'exec sleep 1000')] },
    });
    await readyPod(cluster, 'late', 'old');
    await api.merge('/api/v1/namespaces/late', { metadata: { labels: { 'outrider.dev/inject': 'enabled' } } });
    const [alert] = await firing('OutriderPodsWithoutProxy', 'pending');
    t.equal(alert?.labels['namespace'], 'late');
  });

  t.test('a configuration that the brokers refuse: OutriderConfigurationRejected fires, and the one before stays in force', async (t) => {
    const path = `/api/v1/namespaces/${namespace}/configmaps/${release}-broker`;
    const before = await api.get(path);
    await api.merge(path, { data: { 'broker.yaml': `${before?.['data']['broker.yaml']}\nunheard: of\n` } });
    const alerts = await firing('OutriderConfigurationRejected', 'firing');
    t.match(alerts[0], { labels: { severity: 'warning', namespace }, annotations: { summary: /broker/ } });
    t.equal((await prometheus.query('up{job="broker"} == 1')).length, 2, 'both brokers go on');
    await upgrade(cluster, values, '--force-conflicts');
  });
};

t.test('Prometheus and an installation', async (t) => {
  if (!clustersArePossible(t) || !prometheusIsHere(t)) return;
  const cluster = await startCluster(t);
  await install(cluster, values);
  await createNamespace(cluster, 'shop', { 'outrider.dev/inject': 'enabled' });
  const pod = {
    metadata: { name: 'app' },
    spec: { containers: [shell('main', 'exec sleep 1000', { securityContext: { runAsUser: 1000 } })] },
  };
  await cluster.api.create('/api/v1/namespaces/shop/pods', pod);
  await readyPod(cluster, 'shop', 'app', 60_000);
  theTests(t, cluster, await startPrometheus(t, cluster));
});
