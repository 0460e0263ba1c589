import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseAllDocuments } from 'yaml';
import { credentialsOf } from '../clients/cells/credential.ts';
import { type Origin, startOrigin } from '../clients/origin.ts';
import { createRepository } from '../clients/origin/git.ts';
import { linesOf } from '../clients/place.ts';
import { programs } from '../clients/prepare.ts';
import { createTestAuthority } from '../support/certificates.ts';
import type { Kube } from './api.ts';
import { type Cluster, clustersArePossible, startCluster } from './cluster.ts';
import { within } from './control-plane.ts';
import { createNamespace, endedPod, install, namespace, shell, trustDomain } from './installation.ts';

t.setTimeout(400_000);

/** Unmodified programs in pods that the injector changed, run as they came back from the API server. */
const host = 'api.outrider.test';
const url = `https://${host}/hello?a=1`;

const clients: Readonly<Record<string, { readonly image: string; readonly command: readonly string[]; readonly answers: number }>> = {
  curl: {
    image: 'app',
    command: ['curl', '--silent', '--show-error', '--max-time', '20', '-H', 'Authorization: Bearer mine', url],
    answers: 1,
  },
  python: { image: 'app', command: ['/usr/bin/python3', '/programs/clients.py', 'urllib', url], answers: 2 },
  java: { image: 'app', command: ['java', '/programs/Client.java', 'HttpClient', url], answers: 2 },
  node: { image: 'node', command: ['node', '/programs/http.mjs', 'fetch', url], answers: 2 },
};

const modes = { explicit: 'shop', transparent: 'steered' } as const;
type Mode = keyof typeof modes;

const configuration = {
  workloads: Object.values(modes).map((name) => ({
    name,
    match: { 'kubernetes.namespace': name, 'kubernetes.service_account': 'default' },
    owner: 'tests',
  })),
  providers: [{ kind: 'jwt', name: 'own', audience: `https://${host}`, lifetime: '5m' }],
  targets: [
    {
      name: 'api',
      hosts: [host],
      caFile: '/run/secrets/outrider/origin/ca.pem',
      credentials: [{ provider: 'own', placement: { kind: 'bearer' } }],
    },
  ],
  policies: [
    { name: 'apps', rules: [{ name: 'use-api', effect: 'allow', workloads: Object.values(modes), targets: ['api'], paths: ['/hello'] }] },
  ],
};

/** What an app container may be at most: an ordinary user, without rights, on a root that it cannot write. */
const restricted = { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ['ALL'] } };
const podSecurity = { runAsNonRoot: true, runAsUser: 1000, seccompProfile: { type: 'RuntimeDefault' } };

const podTemplate = (mode: Mode, containers: readonly object[]): object => ({
  metadata: { annotations: { 'outrider.dev/mode': mode } },
  spec: {
    restartPolicy: 'Never',
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 10,
    securityContext: podSecurity,
    containers: containers.map((container) => ({
      ...container,
      securityContext: restricted,
      volumeMounts: [
        { name: 'programs', mountPath: '/programs', readOnly: true },
        { name: 'tmp', mountPath: '/tmp' },
      ],
    })),
    volumes: [
      { name: 'programs', configMap: { name: 'programs' } },
      { name: 'tmp', emptyDir: {} },
    ],
  },
});

const prepareNamespace = async (cluster: Cluster, mode: Mode): Promise<void> => {
  // The init container of transparent mode needs a right that "restricted" refuses.
  const security = mode === 'explicit' ? { 'pod-security.kubernetes.io/enforce': 'restricted' } : {};
  await createNamespace(cluster, modes[mode], { 'outrider.dev/inject': 'enabled', ...security });
  const data = Object.fromEntries(
    ['clients.py', 'Client.java', 'http.mjs'].map((name) => [name, readFileSync(join(programs, name), 'utf8')]),
  );
  await cluster.api.create(`/api/v1/namespaces/${modes[mode]}/configmaps`, { metadata: { name: 'programs' }, data });
};

/** Recorded events of a namespace's workload, as `outrider events` prints them on the collector's volume. */
const eventsOf = ({ node }: Cluster, where: string): Record<string, unknown>[] => {
  const file = join(node.claim(namespace, 'events-outrider-collector-0'), 'events.jsonl');
  const main = join(import.meta.dirname, '../../dist/main.js');
  const workload = `spiffe://${trustDomain}/ns/${where}/sa/default`;
  return linesOf(
    execFileSync(process.execPath, [main, 'events', '--file', file, '--workload', workload, '--limit', '1000'], { encoding: 'utf8' }),
  );
};

const jobs = (mode: Mode): string => `/apis/batch/v1/namespaces/${modes[mode]}/jobs`;

const podOfJob = async ({ api }: Cluster, mode: Mode, name: string): Promise<Kube> => {
  const [pod] = await api.list(`/api/v1/namespaces/${modes[mode]}/pods?labelSelector=job-name%3D${name}`);
  if (!pod) throw new Error(`job ${name} has no pod`);
  return pod;
};

const theTests = (t: Test, cluster: Cluster, origin: Origin): void => {
  const { api, node } = cluster;
  for (const mode of Object.keys(modes) as Mode[]) {
    const where = modes[mode];
    for (const [name, { image, command, answers }] of Object.entries(clients)) {
      t.test(`${mode}: ${name} in a Job gets its credential from the proxy beside it, and the Job ends`, async (t) => {
        await api.create(jobs(mode), {
          metadata: { name },
          spec: { backoffLimit: 0, template: podTemplate(mode, [{ name: 'main', image, command }]) },
        });
        await within(`job ${name} to end`, 60_000, async () => {
          const status = (await api.get(`${jobs(mode)}/${name}`))?.['status'] as { succeeded?: number; failed?: number } | undefined;
          return status?.succeeded === 1 || (status?.failed ?? 0) > 0;
        });
        const pod = await podOfJob(cluster, mode, name);
        const said = node.log(where, pod.metadata.name, 'main');
        t.equal(pod['status'].phase, 'Succeeded', said.slice(-500));
        const printed = linesOf(said.replace(/^Picked up JAVA_TOOL_OPTIONS.*\n/m, ''));
        t.equal(printed.length, answers);
        t.notMatch(said, /eyJ[\w-]+\.[\w-]+\./, 'what the target repeats of the credential is not for the program');
        const arrivals = credentialsOf(t, origin);
        t.equal(arrivals.length, answers);
        const events = await within('the events to be recorded', 20_000, () => {
          const found = eventsOf(cluster, where).filter(
            ({ instance }) => instance === undefined || JSON.stringify(instance).includes(pod.metadata.name),
          );
          return found.filter(({ kind }) => kind === 'outcome').length >= answers && found;
        });
        for (const kind of ['intent', 'outcome'])
          t.ok(events.filter((event) => event['kind'] === kind).length >= answers, `${answers} events: ${kind}`);
        t.notMatch(JSON.stringify(events), /eyJ[\w-]+\.[\w-]+\./);
      });
    }

    t.test(`${mode}: no credential, token or key of the proxy is anywhere that a program can read`, async (t) => {
      const look = [
        'id -u',
        "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status | tr -d '\\t'",
        'env | grep -c "eyJ" ',
        'ls -d /var/run/secrets/outrider /run/outrider/private /var/lib/outrider /etc/outrider/trust 2>/dev/null | wc -l',
        'grep -rlsE "eyJ[A-Za-z0-9_-]{10,}[.]eyJ|PRIVATE KEY" /run /var/run /var/lib/outrider /etc/outrider /tmp /proc/[0-9]*/environ | wc -l',
        'ls /run/outrider/public',
        'touch /run/outrider/public/x 2>/dev/null || echo not to be written',
      ];
      await api.create(`/api/v1/namespaces/${where}/pods`, {
        ...(podTemplate(mode, [shell('main', look.join('\n'))]) as Kube),
        metadata: { name: 'looker', annotations: { 'outrider.dev/mode': mode } },
      });
      const pod = await endedPod(cluster, where, 'looker');
      t.strictSame(node.log(where, 'looker', 'main').trim().split('\n').filter(Boolean), [
        '1000',
        'CapEff:0000000000000000',
        'CapBnd:0000000000000000',
        'NoNewPrivs:1',
        '0',
        '0',
        '0',
        'ca-bundle.pem',
        'trust-store.p12',
        'not to be written',
      ]);
      const containers = [...pod['spec'].initContainers, ...pod['spec'].containers] as {
        name: string;
        securityContext: { capabilities: { add?: string[] } };
      }[];
      const rights = containers.map(({ name, securityContext }) => [name, securityContext.capabilities.add ?? []]);
      t.strictSame(
        rights.filter(([name]) => name !== 'outrider-steer').flatMap(([, added]) => added),
        [],
        'app and proxy add no capability',
      );
    });

    t.test(`${mode}: what policy does not allow is refused with a reason`, async (t) => {
      const command = ['curl', '--silent', '--write-out', '%{http_code}', `https://${host}/admin`];
      await api.create(`/api/v1/namespaces/${where}/pods`, {
        ...(podTemplate(mode, [{ name: 'main', image: 'app', command }]) as Kube),
        metadata: { name: 'refused', annotations: { 'outrider.dev/mode': mode } },
      });
      await endedPod(cluster, where, 'refused');
      t.match(node.log(where, 'refused', 'main'), /"code":"policy_denied"[^]*403$/);
      t.strictSame(origin.taken(), []);
    });
  }

  t.test('routes: a program that is told of no proxy, and is given another URL, gets its credential', async (t) => {
    const where = modes.explicit;
    const outcomes = () => eventsOf(cluster, where).filter(({ kind }) => kind === 'outcome').length;
    const before = outcomes();
    const asked = 'curl --silent --show-error --max-time 20 -H "Authorization: Bearer mine" "http://127.0.0.1:8081/hello?a=1"';
    await api.create(`/api/v1/namespaces/${where}/pods`, {
      ...(podTemplate('explicit', [shell('main', `${asked}; echo; env | grep -ic "_proxy="`)]) as Kube),
      metadata: { name: 'routed', annotations: { 'outrider.dev/mode': 'routes', 'outrider.dev/routes': `8081=https://${host}` } },
    });
    await endedPod(cluster, where, 'routed');
    const said = node.log(where, 'routed', 'main');
    t.match(said, /"\/hello\?a=1"[^]*\n0\n$/);
    t.notMatch(said, /eyJ[\w-]+\.[\w-]+\./);
    t.match(credentialsOf(t, origin), [{ method: 'GET', path: '/hello?a=1' }]);
    await within('its outcome to be recorded', 20_000, () => outcomes() === before + 1);
  });

  t.test('the sample of the quick start does what it says', async () => {
    const file = readFileSync(join(cluster.chart, 'samples/sample.yaml'), 'utf8');
    for (const manifest of parseAllDocuments(file).map((document) => document.toJS() as Kube)) {
      const { kind, apiVersion = '', metadata } = manifest;
      const base = apiVersion.includes('/') ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
      const resource = `${(kind as string).toLowerCase()}s`;
      await api.create(kind === 'Namespace' ? `${base}/${resource}` : `${base}/namespaces/${metadata.namespace}/${resource}`, manifest);
    }
    const sample = 'outrider-sample';
    const file2 = join(node.claim(namespace, 'events-outrider-collector-0'), 'events.jsonl');
    await within('an event of the sample', 90_000, () => readFileSync(file2, 'utf8').includes(`/ns/${sample}/sa/client`));
    const [client] = await api.list(`/api/v1/namespaces/${sample}/pods?labelSelector=app%3Dclient`);
    await within('the answer', 20_000, () => node.log(sample, client?.metadata.name as string, 'client').includes('/hello'));
  });
};

t.test('unmodified programs in injected pods', async (t) => {
  if (!clustersArePossible(t)) return;
  const cluster = await startCluster(t);
  const { api, network, node } = cluster;
  const authority = createTestAuthority('Outrider test origin authority');
  const origin = await startOrigin({
    authority,
    listen: { host: network.elsewhere, httpPort: 80, httpsPort: 443 },
    git: createRepository(cluster.directory),
  });
  t.teardown(origin.close);
  node.nameHosts({ [host]: network.elsewhere });
  await createNamespace(cluster, namespace, { 'pod-security.kubernetes.io/enforce': 'restricted' });
  await api.create(`/api/v1/namespaces/${namespace}/secrets`, { metadata: { name: 'origin' }, stringData: { 'ca.pem': authority.pem } });
  const sample = parseAllDocuments(readFileSync(join(cluster.chart, 'samples/values.yaml'), 'utf8'))[0]?.toJS() as typeof configuration;
  const added = (sample as unknown as { broker: { configuration: typeof configuration } }).broker.configuration;
  const both = Object.fromEntries(
    (Object.keys(configuration) as (keyof typeof configuration)[]).map((key) => [key, [...configuration[key], ...added[key]]]),
  );
  await install(cluster, {
    broker: { replicas: 1, secrets: ['origin'], configuration: both },
    injector: { replicas: 1, sidecar: { modes: [...Object.keys(modes), 'routes'] } },
  });
  for (const mode of Object.keys(modes) as Mode[]) await prepareNamespace(cluster, mode);
  theTests(t, cluster, origin);
});
