import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseAllDocuments } from 'yaml';
import { createTestAuthority } from '../support/certificates.ts';
import type { Kube } from './api.ts';
import { type Cluster, clustersArePossible, startCluster } from './cluster.ts';
import { within } from './control-plane.ts';
import { createNamespace, install, namespace, readyRoles, release, shell } from './installation.ts';
import { releasedObjects } from './inventory.ts';
import { definitions, missingDefinitions, type Operator } from './prepare.ts';

t.setTimeout(200_000);

const definitionsPath = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';

/** What the operator itself would install; the kinds named are served when it resolves. */
const define = async ({ api }: Cluster, operator: Operator, ...names: readonly string[]): Promise<void> => {
  const folder = definitions(operator);
  const documents = readdirSync(folder)
    .filter((file) => file.endsWith('.yaml'))
    .flatMap((file) => parseAllDocuments(readFileSync(join(folder, file), 'utf8')).map((document) => document.toJS() as Kube | null))
    .filter((document) => document !== null && names.includes(document.metadata.name));
  for (const document of documents) await api.create(definitionsPath, document as Kube);
  for (const name of names) {
    await within(`${name} to be served`, 20_000, async () => {
      const status = (await api.get(`${definitionsPath}/${name}`))?.['status'] as Kube | undefined;
      return (status?.['conditions'] as { type: string; status: string }[] | undefined)?.some(
        (condition) => condition.type === 'Established' && condition.status === 'True',
      );
    });
  }
};

/** Paths of what is written and not there: an API server drops fields that a definition does not have without a word. */
const dropped = (written: unknown, there: unknown, path = ''): string[] => {
  if (typeof written !== 'object' || written === null) return written === there ? [] : [path];
  const found = (typeof there === 'object' && there !== null ? there : {}) as Record<string, unknown>;
  return Object.entries(written).flatMap(([name, value]) => dropped(value, found[name], `${path}.${name}`));
};

const theTests = (t: Test, cluster: Cluster): void => {
  const { api } = cluster;
  const host = `${release}-injector.${namespace}.svc`;

  t.test('what is for the operators is as their definitions want it, field by field', async (t) => {
    const objects = (await releasedObjects(cluster)).filter(({ path }) => /cert-manager\.io|monitoring\.coreos\.com/.test(path));
    const kinds = new Set(objects.map(({ manifest }) => String(manifest.kind)));
    t.strictSame([...kinds].toSorted(), ['Certificate', 'Issuer', 'PodMonitor', 'PrometheusRule', 'ServiceMonitor']);
    for (const { path, manifest } of objects) t.strictSame(dropped(manifest['spec'], (await api.get(path))?.['spec']), [], path);
  });

  t.test('with the certificate that cert-manager would have made, the injector serves, and is left to it', async (t) => {
    // cert-manager's part: the Secret of the Certificate, and caBundle in what names it by annotation.
    const authority = createTestAuthority('cert-manager stand-in');
    const configuration = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${release}-injector`;
    const written = await api.get(configuration);
    t.equal(written?.metadata.annotations?.['cert-manager.io/inject-ca-from'], `${namespace}/${release}-injector`);
    const certificate = (await api.list(`/apis/cert-manager.io/v1/namespaces/${namespace}/certificates`)).at(0);
    t.strictSame(certificate?.['spec'].dnsNames, [host]);
    const { cert, key } = authority.serverFor(host);
    const encoded = (text: string): string => Buffer.from(text).toString('base64');
    await api.create(`/api/v1/namespaces/${namespace}/secrets`, {
      metadata: { name: certificate?.['spec'].secretName as string },
      type: 'kubernetes.io/tls',
      data: { 'tls.crt': encoded(cert), 'tls.key': encoded(key), 'ca.crt': encoded(authority.pem) },
    });
    const operations = ((written?.['webhooks'] ?? []) as object[]).map((_, i) => ({
      op: 'add',
      path: `/webhooks/${i}/clientConfig/caBundle`,
      value: encoded(authority.pem),
    }));
    await api.call('PATCH', configuration, operations, 'application/json-patch+json');
    await readyRoles(cluster, ['injector']);

    await createNamespace(cluster, 'shop', { 'outrider.dev/inject': 'enabled' });
    const made = await within('a pod to be admitted', 20_000, () =>
      api.create('/api/v1/namespaces/shop/pods', {
        metadata: { name: 'app' },
        spec: { containers: [shell('app', 'exec sleep 1000', { securityContext: { runAsUser: 1000 } })] },
      }),
    );
    t.equal(made['spec'].initContainers[0].name, 'outrider-proxy');
    const now = await api.get(configuration);
    for (const { clientConfig } of (now?.['webhooks'] ?? []) as { clientConfig: { caBundle: string } }[])
      t.equal(clientConfig.caBundle, encoded(authority.pem), 'the injector leaves caBundle to cert-manager');
  });
};

t.test('with the Prometheus operator and cert-manager', async (t) => {
  if (!clustersArePossible(t)) return;
  if (missingDefinitions().length > 0) {
    t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], `the definitions of ${missingDefinitions().join(', ')} are not there`);
    return;
  }
  const cluster = await startCluster(t);
  await createNamespace(cluster, namespace);
  await define(cluster, 'cert-manager', 'certificates.cert-manager.io', 'issuers.cert-manager.io');
  await define(
    cluster,
    'prometheus-operator',
    ...['podmonitors', 'servicemonitors', 'prometheusrules'].map((name) => `${name}.monitoring.coreos.com`),
  );
  await install(
    cluster,
    { monitoring: { enabled: true }, injector: { certificate: { certManager: { enabled: true } } } },
    // The injector waits for its certificate.
    ['broker', 'collector'],
  );
  theTests(t, cluster);
});
