import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parse, parseAllDocuments } from 'yaml';
import { commandHelp } from '../../src/cli/help.ts';
import { decide } from '../../src/injector/decide.ts';
import { type Container, type Pod, readPod } from '../../src/injector/pod.ts';
import type { BrokerSettings } from '../../src/settings/broker.ts';
import { parseSettings } from '../../src/settings/document.ts';
import type { InjectorSettings } from '../../src/settings/injector.ts';
import type { ProxySettings } from '../../src/settings/proxy.ts';
import { chart, hasHelm, type Manifest, manifestsIn, named, render, runHelm, template } from '../support/helm.ts';
import { root } from '../support/source-tree.ts';

const sample = join(chart, 'samples/values.yaml');

/** Many ways to install it: name → what is added to the command line. */
const table: Readonly<Record<string, readonly string[]>> = {
  defaults: [],
  sample: ['-f', sample],
  everything: [
    '-f',
    sample,
    '--set',
    [
      'trustDomain=corp.example,imagePullSecrets={registry},commonLabels.team=platform,commonAnnotations.note=x',
      'monitoring.enabled=true,monitoring.labels.release=prometheus',
      'broker.secrets={crm,legacy},broker.priorityClassName=system-cluster-critical,broker.podLabels.tier=one,broker.podAnnotations.seen=yes',
      'broker.issuer.url=https://issuer.corp.example/outrider,broker.issuer.tls.secretName=issuer-tls',
      'cluster.noProxy={10.0.0.0/8,.internal},collector.storage.storageClassName=fast',
      'injector.certificate.certManager.enabled=true,injector.sidecar.onUnmatched=refuse,injector.sidecar.modes={explicit,transparent,routes}',
    ].join(','),
    '--set-json',
    'broker.extraEnv=[{"name":"KEY","valueFrom":{"secretKeyRef":{"name":"crm","key":"key"}}}]',
    '--set-json',
    'broker.tolerations=[{"key":"infra","operator":"Exists"}]',
  ],
  jwks: ['--set', 'cluster.attestation=jwks'],
  'managed cluster': ['--set', 'cluster.attestation=jwks,cluster.issuer=https://oidc.cloud.example/id/1'],
  IPv6: ['--set', 'cluster.ipFamily=IPv6'],
  'mode routes alone': ['--set', 'injector.sidecar.modes={routes}'],
  'mode transparent alone': ['--set', 'injector.sidecar.modes={transparent}'],
  'everything steered': ['--set', 'injector.sidecar.modes={transparent},injector.sidecar.onUnmatched=refuse'],
  'steered, but for exclusions': [
    '--set',
    'injector.sidecar.modes={transparent},injector.sidecar.onUnmatched=refuse,injector.sidecar.exclusions=allowed',
  ],
  'modes transparent and routes': ['--set', 'injector.sidecar.modes={transparent,routes},injector.sidecar.onUnmatched=refuse'],
  'an issuer in capitals': ['--set', 'broker.issuer.url=https://Issuer.Corp.Example:8443/Outrider,injector.sidecar.modes={routes}'],
  'the least and the most': [
    '--set-json',
    'uid=2147483647,injector.sidecar={"uid":2147483646,"resources":{"requests":{"cpu":"0.001","memory":"128Mi"},"limits":{"cpu":0.001,"memory":134217728}},"resourcesMax":{"cpu":"1m","memory":"0.125Gi"}}',
  ],
  OpenShift: ['--set-json', 'uid=null', '--set', 'injector.sidecar.uid=platform'],
  'sections left empty': [
    '--set-json',
    'broker.configuration={"attestors":null,"workloads":null,"providers":null,"targets":null,"policies":null}',
  ],
  'labels that meet': [
    '--set-json',
    'commonLabels={"team":"a","app.kubernetes.io/name":"other","outrider.dev/inject":"enabled"},broker.podLabels={"team":"b"},monitoring={"enabled":true,"labels":{"team":"c"}}',
  ],
  'no configuration': ['--set-json', 'broker.configuration=null'],
  bare: ['--set', 'selfTest.enabled=false,networkPolicy.enabled=false,broker.replicas=1,injector.replicas=1,fullnameOverride=gate'],
};

/** The second: what it asks broker and collector would be steered. */
const withoutSelfTest: ReadonlySet<string> = new Set(['bare', 'everything steered']);

const podSpecs = (manifests: readonly Manifest[]): [where: string, metadata: Metadata, spec: PodSpec][] =>
  manifests.flatMap((manifest): [string, Metadata, PodSpec][] => {
    const where = `${manifest.kind} ${manifest.metadata.name}`;
    if (manifest.kind === 'Pod') return [[where, manifest.metadata as Metadata, manifest['spec'] as PodSpec]];
    const template = (manifest['spec'] as { template?: { metadata: Metadata; spec: PodSpec } } | undefined)?.template;
    return template === undefined ? [] : [[where, template.metadata, template.spec]];
  });

interface Metadata {
  readonly labels: Readonly<Record<string, string>>;
}

interface PodSpec {
  readonly containers: readonly Record<string, unknown>[];
  readonly volumes: readonly Record<string, unknown>[];
  readonly securityContext: Record<string, unknown>;
  readonly serviceAccountName: string;
  readonly [key: string]: unknown;
}

const configurations = (manifests: readonly Manifest[]): [string, string][] =>
  manifests
    .filter(({ kind }) => kind === 'ConfigMap')
    .flatMap(({ data }) => Object.entries((data ?? {}) as Record<string, string>).filter(([file]) => file.endsWith('.yaml')));

t.test('the chart passes helm lint', async (t) => {
  if (!hasHelm(t)) return;
  const { status, stdout } = runHelm('lint', '--strict', chart);
  t.equal(status, 0, stdout);
});

t.test('rendered twice it is the same, and has neither random values nor look-ups', async (t) => {
  if (!hasHelm(t)) return;
  for (const [name, args] of Object.entries(table)) {
    const { status, stdout, stderr } = template(args);
    t.equal(status, 0, `${name}: ${stderr}`);
    t.equal(template(args).stdout, stdout, name);
  }
});

t.test('what roles are configured with is what their settings readers take', async (t) => {
  if (!hasHelm(t)) return;
  for (const [name, args] of Object.entries(table)) {
    const files = configurations(render(t, args));
    t.same(files.map(([file]) => file).toSorted(), ['broker.yaml', 'collector.yaml', 'injector.yaml']);
    for (const [file, text] of files) t.doesNotThrow(() => parseSettings(text, file), `${name}: ${file}`);
  }
});

t.test('on a cluster of IPv6 every role, and every sidecar, listens where IPv6 comes in', (t) => {
  if (!hasHelm(t)) return;
  const texts = configurations(render(t, ['--set', 'cluster.ipFamily=IPv6'])).map(([, text]) => text);
  t.strictSame(texts.flatMap((text) => text.match(/0\.0\.0\.0|\[::\]:\d+|ipFamily: \w+/g) ?? []).toSorted(), [
    '[::]:15002',
    '[::]:15003',
    '[::]:15004',
    '[::]:15005',
    '[::]:15006',
    '[::]:15009',
    '[::]:15011',
    'ipFamily: IPv6',
  ]);
  t.end();
});

t.test(
  "every pod is as restricted pod security wants it, and has the API server's token only where it calls that (THREATS D-2)",
  async (t) => {
    if (!hasHelm(t)) return;
    for (const [name, args] of Object.entries(table)) {
      const pods = podSpecs(render(t, args));
      t.equal(pods.length, withoutSelfTest.has(name) ? 3 : 4);
      for (const [where, { labels }, spec] of pods) restricted(t, `${name}: ${where}`, labels, spec);
    }
  },
);

const restricted = (t: Test, where: string, labels: Metadata['labels'], spec: PodSpec): void => {
  const component = labels['app.kubernetes.io/component'];
  t.has(spec.securityContext, { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } }, where);
  t.not(spec.securityContext['runAsUser'], 0, where);
  t.equal(spec['automountServiceAccountToken'], component === 'broker' || component === 'injector', `${where}: token`);
  t.match(spec.serviceAccountName, new RegExp(`-${component}$`), where);
  for (const key of ['hostNetwork', 'hostPID', 'hostIPC', 'initContainers', 'ephemeralContainers'])
    t.equal(spec[key], undefined, `${where}: ${key}`);
  t.not(spec['shareProcessNamespace'], true, where);
  t.equal(spec['enableServiceLinks'], false, where);
  t.equal(labels['outrider.dev/inject'], component === 'self-test' ? 'enabled' : 'disabled', where);
  const kinds = spec.volumes.flatMap((volume) => Object.keys(volume).filter((key) => key !== 'name'));
  for (const kind of kinds) t.ok(['configMap', 'emptyDir', 'projected', 'secret'].includes(kind), `${where}: volume ${kind}`);
  for (const container of spec.containers) {
    t.strictSame(
      container['securityContext'],
      {
        allowPrivilegeEscalation: false,
        privileged: false,
        readOnlyRootFilesystem: true,
        runAsNonRoot: true,
        capabilities: { drop: ['ALL'] },
        seccompProfile: { type: 'RuntimeDefault' },
      },
      where,
    );
    t.match(container['resources'], { requests: { cpu: String, memory: String }, limits: { memory: String } }, where);
    for (const port of (container['ports'] ?? []) as { hostPort?: number }[]) t.equal(port.hostPort, undefined, where);
    if (component === 'self-test') continue;
    for (const probe of ['startupProbe', 'livenessProbe', 'readinessProbe']) t.hasProp(container, probe, `${where}: ${probe}`);
  }
};

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly resourceNames?: readonly string[];
  readonly verbs: readonly string[];
}

t.test('roles may do what they do, by name where an object has one', async (t) => {
  if (!hasHelm(t)) return;
  const manifests = render(t);
  const allowed = (kind: string, name: string): string[] =>
    (named(manifests, kind, name)['rules'] as Rule[]).map(
      ({ resources, resourceNames, verbs }) =>
        `${verbs.join(' ')} ${resources.join(' ')}${resourceNames ? ` ${resourceNames.join(' ')}` : ''}`,
    );
  t.strictSame(allowed('Role', 'outrider-broker'), ['get update secrets outrider-keys', 'get update configmaps outrider-trust']);
  t.strictSame(allowed('ClusterRole', 'outrider-broker'), ['create tokenreviews']);
  t.strictSame(allowed('Role', 'outrider-injector'), ['get update secrets outrider-injector-tls', 'get configmaps outrider-trust']);
  for (const rule of manifests.filter(({ kind }) => kind.endsWith('Role')).flatMap(({ rules }) => rules as Rule[])) {
    for (const word of [...rule.verbs, ...rule.resources, ...rule.apiGroups]) t.not(word, '*');
    if (rule.resources.includes('secrets')) t.equal(rule.resourceNames?.length, 1, 'no Secret but its own');
  }
  const bound = manifests.filter(({ kind }) => kind.endsWith('Binding')).map(({ metadata }) => metadata.name);
  t.strictSame([...new Set(bound)].toSorted(), ['outrider-broker', 'outrider-injector']);
  const jwks = render(t, table['jwks']);
  t.notOk(
    jwks.some(({ kind, metadata }) => kind === 'ClusterRole' && metadata.name === 'outrider-broker'),
    'nothing to ask',
  );
});

t.test('what the product fills is empty here, and the webhook has no caBundle: a sync finds no difference', async (t) => {
  if (!hasHelm(t)) return;
  const manifests = render(t);
  const filled = [
    ['Secret', 'outrider-keys'],
    ['Secret', 'outrider-injector-tls'],
    ['ConfigMap', 'outrider-trust'],
  ] as const;
  for (const [kind, name] of filled) {
    const { data, stringData } = named(manifests, kind, name);
    t.strictSame([data, stringData], [undefined, undefined], name);
  }
  const { webhooks } = named(manifests, 'MutatingWebhookConfiguration', 'outrider-injector') as unknown as {
    webhooks: { name: string; failurePolicy: string; clientConfig: object; sideEffects: string }[];
  };
  t.strictSame(
    webhooks.map(({ name, failurePolicy }) => [name, failurePolicy]),
    [
      ['namespaces.inject.outrider.dev', 'Fail'],
      ['pods.inject.outrider.dev', 'Ignore'],
    ],
  );
  for (const { clientConfig, sideEffects } of webhooks) {
    t.notHas(clientConfig, { caBundle: String });
    t.equal(sideEffects, 'NoneOnDryRun');
  }
});

t.test('with cert-manager, what the API server trusts outlives the certificates that it signs', async (t) => {
  if (!hasHelm(t)) return;
  const enabled = ['--set', 'injector.certificate.certManager.enabled=true'];
  const specOf = (manifests: readonly Manifest[], kind: string, name: string): Record<string, unknown> =>
    named(manifests, kind, name)['spec'] as Record<string, unknown>;
  const manifests = render(t, enabled);
  const leaf = specOf(manifests, 'Certificate', 'outrider-injector');
  t.notOk(leaf['isCA']);
  const issuer = (leaf['issuerRef'] as { name: string; kind: string }).name;
  const { ca } = specOf(manifests, 'Issuer', issuer) as { ca: { secretName: string } };
  const authority = specOf(manifests, 'Certificate', 'outrider-injector-authority');
  const { isCA, secretName, privateKey, issuerRef, duration, renewBefore } = authority;
  t.equal(isCA, true);
  t.equal(secretName, ca.secretName);
  t.not(secretName, leaf['secretName']);
  t.strictSame(specOf(manifests, 'Issuer', (issuerRef as { name: string }).name), { selfSigned: {} });
  t.match(privateKey, { rotationPolicy: 'Never' }, 'its successor is as good for what it has signed');
  const hours = (text: unknown): number => Number(/^(\d+)h$/.exec(String(text))?.[1]);
  t.ok(hours(renewBefore) > hours(leaf['duration']), 'no certificate outlives its authority');
  t.ok(hours(duration) >= 10 * hours(leaf['duration']));
  const annotation = named(manifests, 'MutatingWebhookConfiguration', 'outrider-injector').metadata.annotations;
  t.has(annotation, { 'cert-manager.io/inject-ca-from': 'outrider/outrider-injector' });
  for (const [where, , spec] of podSpecs(manifests)) t.notMatch(JSON.stringify(spec), ca.secretName, `${where} has not its key`);

  const theirs = render(t, [...enabled, '--set', 'injector.certificate.certManager.issuerRef.name=corp']);
  t.strictSame(
    theirs.filter(({ kind }) => kind === 'Issuer' || kind === 'Certificate').map(({ metadata }) => metadata.name),
    ['outrider-injector'],
  );
  t.match(specOf(theirs, 'Certificate', 'outrider-injector')['issuerRef'], { name: 'corp' });
});

t.test("the broker's configuration changes without a new pod; what it reads at its start, and what others read, makes one", async (t) => {
  if (!hasHelm(t)) return;
  const templates = (args: readonly string[]): Readonly<Record<string, string>> =>
    Object.fromEntries(podSpecs(render(t, args)).map(([where, metadata, spec]) => [where, JSON.stringify([metadata, spec])]));
  const before = templates([]);
  const changed = (args: readonly string[]): string[] => {
    const after = templates(args);
    return Object.keys(before).filter((where) => after[where] !== before[where]);
  };
  t.strictSame(changed(['-f', sample]), []);
  t.strictSame(changed(['--set', 'broker.logLevel=debug']), ['Deployment outrider-broker']);
  t.strictSame(changed(['--set', 'injector.sidecar.onUnmatched=refuse']), ['Deployment outrider-injector']);
  t.strictSame(changed(['--set', 'collector.logLevel=debug']), ['StatefulSet outrider-collector']);
});

t.test('the self-test is started with arguments that it knows, as a program that may do nothing', async (t) => {
  if (!hasHelm(t)) return;
  const [, , spec] = podSpecs(render(t)).find(([where]) => where === 'Pod outrider-self-test') as [string, Metadata, PodSpec];
  const [command, ...args] = spec.containers.flatMap((container) => container['args'] as string[]);
  t.equal(command, 'self-test');
  const help = commandHelp('self-test');
  for (const flag of args.filter((arg) => arg.startsWith('--'))) t.ok(new RegExp(`${flag} [A-Z]`).test(help), flag);
  t.not(spec.securityContext['runAsUser'], 15_001, "not the proxy's user");
  t.equal(template(['--set', 'injector.sidecar.uid=1000']).stdout.includes('runAsUser: 1001'), true);
});

t.test('the self-test is a pod that the injector takes, and its request one that the proxy takes to the target', async (t) => {
  if (!hasHelm(t)) return;
  for (const [name, args] of Object.entries(table)) {
    const manifests = render(t, args);
    const written = manifests.find(({ kind }) => kind === 'Pod');
    if (withoutSelfTest.has(name)) {
      t.equal(written, undefined, name);
      continue;
    }
    const [, text] = configurations(manifests).find(([file]) => file === 'injector.yaml') as [string, string];
    const { sidecar } = parseSettings(text, 'injector.yaml') as InjectorSettings;
    const decision = decide(readPod(written) as Pod, sidecar);
    if (decision.kind !== 'injected') {
      t.fail(`${name}: ${JSON.stringify(decision)}`);
      continue;
    }
    const [proxy] = decision.pod.spec.initContainers as readonly Container[];
    const { routes } = parseSettings(proxy?.env?.[0]?.value ?? '', 'OUTRIDER_CONFIG') as ProxySettings;
    const program = decision.pod.spec.containers[0] as unknown as { args: string[] };
    const url = new URL(program.args[program.args.indexOf('--url') + 1] as string);
    const broker = parseSettings(
      (configurations(manifests).find(([file]) => file === 'broker.yaml') as [string, string])[1],
      'broker.yaml',
    );
    const target = (broker as BrokerSettings).targets.find(({ name: called }) => called === 'outrider-self-test');
    const asked = routes.find(({ listen }) => url.host === `127.0.0.1:${listen.port}`)?.to ?? {
      scheme: 'https',
      host: url.hostname,
      port: Number(url.port === '' ? 443 : url.port),
    };
    t.equal(routes.length, sidecar.modes.includes('routes') && !sidecar.modes.includes('explicit') ? 1 : 0, name);
    // Its own questions to broker and collector: the proxy refuses what is steered there.
    const steer = decision.pod.spec.initContainers?.find(({ name: called }) => called === 'outrider-steer');
    const exceptions = (steer as { args: string[] } | undefined)?.args.slice(-2);
    if (exceptions !== undefined) t.strictSame(exceptions, ['--except-port', '15002,15005'], name);
    t.strictSame([target?.hosts, target?.ports], [[asked.host], [asked.port]], name);
    t.equal(url.protocol, routes.length === 0 ? 'https:' : 'http:', name);
    t.equal(url.pathname, name === 'an issuer in capitals' ? '/Outrider/jwks' : name === 'everything' ? '/outrider/jwks' : '/jwks', name);
  }
});

t.test("labels of values are there once, the nearer before the common, and never in place of the chart's own", async (t) => {
  if (!hasHelm(t)) return;
  for (const [name, args] of Object.entries(table)) {
    const problems = parseAllDocuments(template(args).stdout).flatMap(({ errors }) => errors.map(({ message }) => message));
    t.strictSame(problems, [], name);
  }
  const manifests = render(t, table['labels that meet']);
  const [, broker] = podSpecs(manifests).find(([where]) => where === 'Deployment outrider-broker') as [string, Metadata, PodSpec];
  t.has(broker.labels, { team: 'b', 'app.kubernetes.io/name': 'outrider', 'outrider.dev/inject': 'disabled' });
  t.has(named(manifests, 'PrometheusRule', 'outrider-alerts').metadata, { labels: { team: 'c' } });
  t.has(named(manifests, 'Service', 'outrider-broker').metadata, { labels: { team: 'a', 'app.kubernetes.io/name': 'outrider' } });
});

t.test('pods that answer a moment longer where the cluster knows how; refused where it is too old', async (t) => {
  if (!hasHelm(t)) return;
  const sleeps = (version: string): boolean => JSON.stringify(render(t, [], version)).includes('preStop');
  t.notOk(sleeps('1.29.6'));
  t.ok(sleeps('1.30.0'));
  t.ok(sleeps('1.37.2'));
  t.match(template([], '1.28.0').stderr, /requires kubeVersion: >=1\.29\.0-0/);
});

t.test('the notes say what to do next, with these values', async (t) => {
  if (!hasHelm(t)) return;
  const notes = (args: readonly string[]): string =>
    runHelm('install', 'outrider', chart, '--namespace', 'outrider', '--dry-run=client', ...args).stdout;
  t.match(notes([]), /helm test outrider -n outrider/);
  t.match(notes([]), /broker\.configuration in your values/);
  t.match(notes(['-f', sample]), /knows 1 workload\(s\), 1 target\(s\) and 1 policy of yours/);
  t.notMatch(notes(table['bare'] as readonly string[]), /helm test/);
  t.match(notes(table['everything steered'] as readonly string[]), /no self-test: .*injector\.sidecar\.exclusions: allowed/s);
  t.notMatch(notes(table['everything steered'] as readonly string[]), /helm test/);
  t.match(notes(table['sections left empty'] as readonly string[]), /broker\.configuration in your values/);
  t.match(notes(table['no configuration'] as readonly string[]), /broker\.configuration in your values/);
  t.match(
    notes(['-f', sample, '--set-json', 'broker.configuration.workloads=null,broker.configuration.policies=null']),
    /knows 0 workload/,
  );
});

/** `UPDATE_GOLDEN=1` writes them. */
t.test('manifests are as in test/golden/chart', async (t) => {
  if (!hasHelm(t)) return;
  const directory = join(root, 'test/golden/chart');
  mkdirSync(directory, { recursive: true });
  for (const name of ['defaults', 'everything', 'OpenShift']) {
    const { stdout } = template(table[name]);
    const wanted = join(directory, `${name.toLowerCase()}.yaml`);
    const text = withoutDashboards(stdout);
    if (process.env['UPDATE_GOLDEN'] !== undefined) writeFileSync(wanted, text);
    t.same(inOrder(text), inOrder(readFileSync(wanted, 'utf8')), name);
  }
});

/** Versions of Helm differ in how they sort what they do not know. */
const inOrder = (text: string): Manifest[] =>
  manifestsIn(text).toSorted((a, b) => `${a.kind} ${a.metadata.name}`.localeCompare(`${b.kind} ${b.metadata.name}`));

/** Those are compared with their files elsewhere. One object after another, without what differs between versions of Helm. */
const withoutDashboards = (text: string): string =>
  text
    .split(/^---$/m)
    .filter((part) => parse(part) !== null && !/^ +(?:outrider-\w+\.json: \||groups:)/m.test(part))
    .map((part) => part.trim())
    .join('\n---\n')
    .concat('\n');
