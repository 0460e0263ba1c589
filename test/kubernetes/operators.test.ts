import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseAllDocuments } from 'yaml';
import { createTestAuthority, type TestAuthority } from '../support/certificates.ts';
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

const encoded = (text: string): string => Buffer.from(text).toString('base64');

const certificates = `/apis/cert-manager.io/v1/namespaces/${namespace}/certificates`;
const configuration = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${release}-injector`;

/**
 * cert-manager's part: the Secret of a Certificate, signed as its Issuer says, and at once caBundle in what names the Certificate by annotation.
 * Secrets of authorities are nobody's but its own: they stay here.
 */
const createCertManager = ({ api }: Cluster) => {
  /** By the name of the Secret that each would be in. */
  const authorities = new Map<string, TestAuthority>();
  const signerOf = async ({ spec }: Kube): Promise<TestAuthority> => {
    const issuer = await api.get(`/apis/cert-manager.io/v1/namespaces/${namespace}/issuers/${spec.issuerRef.name}`);
    if (issuer?.['spec'].selfSigned) return createTestAuthority(`cert-manager stand-in ${Math.random()}`);
    const signer = authorities.get(issuer?.['spec'].ca.secretName as string);
    if (!signer) throw new Error(`nothing signs what ${spec.issuerRef.name} should`);
    return signer;
  };
  const write = async (secret: string, data: object): Promise<void> => {
    const path = `/api/v1/namespaces/${namespace}/secrets`;
    if ((await api.get(`${path}/${secret}`)) === undefined)
      await api.create(path, { metadata: { name: secret }, type: 'kubernetes.io/tls', data });
    else await api.merge(`${path}/${secret}`, { data });
  };
  const injectCa = async (name: string, pem: string): Promise<void> => {
    const written = await api.get(configuration);
    if (written?.metadata.annotations?.['cert-manager.io/inject-ca-from'] !== `${namespace}/${name}`) return;
    const operations = (written['webhooks'] as object[]).map((_, i) => ({
      op: 'add',
      path: `/webhooks/${i}/clientConfig/caBundle`,
      value: encoded(pem),
    }));
    await api.call('PATCH', configuration, operations, 'application/json-patch+json');
  };
  return {
    issue: async (certificate: Kube): Promise<void> => {
      const { secretName, isCA, dnsNames } = certificate['spec'] as { secretName: string; isCA?: boolean; dnsNames: string[] };
      const signer = await signerOf(certificate);
      if (isCA === true) authorities.set(secretName, signer);
      else {
        const { cert, key } = signer.serverFor(dnsNames[0] as string);
        await write(secretName, { 'tls.crt': encoded(cert), 'tls.key': encoded(key), 'ca.crt': encoded(signer.pem) });
      }
      await injectCa(certificate.metadata.name, signer.pem);
    },
  };
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

  const bundles = async (): Promise<readonly string[]> => {
    const { webhooks = [] } = ((await api.get(configuration)) ?? {}) as { webhooks?: { clientConfig: { caBundle: string } }[] };
    return webhooks.map(({ clientConfig }) => clientConfig.caBundle);
  };
  const makePod = (name: string): Promise<Kube> =>
    api.create('/api/v1/namespaces/shop/pods', {
      metadata: { name },
      spec: { containers: [shell('app', 'exec sleep 1000', { securityContext: { runAsUser: 1000 } })] },
    });

  t.test('with the certificate that cert-manager would have made, the injector serves, and is left to it through a renewal', async (t) => {
    const certManager = createCertManager(cluster);
    // Authorities first: cert-manager tries again until it can sign.
    const known = (await api.list(certificates)).toSorted((a, b) => Number(b['spec'].isCA ?? false) - Number(a['spec'].isCA ?? false));
    for (const certificate of known) await certManager.issue(certificate);
    const leaf = known.find(({ spec }) => spec.isCA !== true) as Kube;
    t.strictSame(leaf['spec'].dnsNames, [host]);
    await readyRoles(cluster, ['injector']);

    await createNamespace(cluster, 'shop', { 'outrider.dev/inject': 'enabled' });
    const made = await within('a pod to be admitted', 20_000, () => makePod('app'));
    t.equal(made['spec'].initContainers[0].name, 'outrider-proxy');
    const before = await bundles();
    t.equal(new Set(before).size, 1);
    t.ok(before[0], 'the injector leaves caBundle to cert-manager');

    // The injectors serve the certificate before until the kubelet has brought them the new one.
    await certManager.issue(leaf);
    t.strictSame(await bundles(), before, 'what is trusted outlives a certificate');
    t.equal((await makePod('another'))['spec'].initContainers[0].name, 'outrider-proxy', 'and no pod has to wait');
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
