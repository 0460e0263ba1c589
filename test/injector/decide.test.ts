import t from 'tap';
import { decide, type Decision } from '../../src/injector/decide.ts';
import { patchOf } from '../../src/injector/patch.ts';
import { type Container, type EnvironmentEntry, type Pod, readPod } from '../../src/injector/pod.ts';
import { parseSettings } from '../../src/settings/document.ts';
import { injectionModes } from '../../src/settings/injector.ts';
import { exampleSidecar } from '../support/injector-pods.ts';

const podOf = (spec: object = {}, annotations: Record<string, string> = {}): Pod =>
  readPod({ metadata: { name: 'p', annotations }, spec: { containers: [{ name: 'app' }], ...spec } }) as Pod;

const injected = (decision: Decision): Pod => {
  if (decision.kind !== 'injected') throw new Error(JSON.stringify(decision));
  return decision.pod;
};

const modes: Readonly<Record<(typeof injectionModes)[number], Record<string, string>>> = {
  explicit: { 'outrider.dev/exclude-outbound-ranges': '10.0.0.0/8' },
  transparent: { 'outrider.dev/exclude-outbound-ports': '25' },
  routes: { 'outrider.dev/routes': '8081=https://a.example.com 8082=http://[2001:db8::1]:8080' },
};

for (const mode of injectionModes) {
  t.test(
    `mode ${mode}: the proxy's configuration is one that the proxy takes, and holds nothing that Kubernetes would put something in for`,
    async (t) => {
      const settings = { ...exampleSidecar, exclusions: 'allowed' } as const;
      const [proxy] = injected(decide(podOf({}, { 'outrider.dev/mode': mode, ...modes[mode] }), settings)).spec.initContainers ?? [];
      const text = proxy?.env?.[0]?.value ?? '';
      t.match(parseSettings(text, 'OUTRIDER_CONFIG'), {
        kind: 'proxy',
        audit: 'required',
        onUnmatched: 'refuse',
        identity: { broker: exampleSidecar.broker },
      });
      t.notMatch(text, '$(');
    },
  );
}

/** What comes back from the API server: in-tree plugins have added what they add to every container. */
const roundTripped = (pod: Pod): Pod => {
  const access = { name: 'kube-api-access-abcde', mountPath: '/var/run/secrets/kubernetes.io/serviceaccount', readOnly: true };
  const added = (container: Container): Container => ({
    ...container,
    volumeMounts: [...(container.volumeMounts ?? []), access],
    resources: { ...container.resources, limits: { cpu: '1', ...(container.resources?.['limits'] as object) } },
  });
  const { initContainers = [], containers } = pod.spec;
  return { ...pod, spec: { ...pod.spec, initContainers: initContainers.map(added), containers: containers.map(added) } };
};

t.test('what admission plugins added in between stays, and nothing is patched', async (t) => {
  for (const mode of ['explicit', 'transparent']) {
    const settings = {
      ...exampleSidecar,
      resources: { requests: { cpu: '0.5', memory: '256Mi' }, limits: { cpu: undefined, memory: '1024Mi' } },
    };
    const first = roundTripped(injected(decide(podOf({}, { 'outrider.dev/mode': mode }), settings)));
    const canonical = JSON.parse(JSON.stringify(first).replaceAll('"0.5"', '"500m"').replaceAll('"1024Mi"', '"1Gi"')) as Pod;
    t.strictSame(patchOf(canonical, injected(decide(canonical, settings))), [], mode);
  }
});

t.test('a look-alike that is weaker in anything is replaced by ours', async (t) => {
  const pod = injected(decide(podOf(), exampleSidecar));
  const [proxy] = pod.spec.initContainers as [Container];
  const security = proxy.securityContext ?? {};
  const weaker: readonly Readonly<Record<string, unknown>>[] = [
    { image: 'registry.example/other:1' },
    { command: ['/bin/sh'] },
    { args: ['proxy', '--config', '/mine'] },
    { env: [...(proxy.env ?? []), { name: 'NODE_OPTIONS', value: '--inspect' }] },
    { env: [{ name: 'OUTRIDER_CONFIG', value: '{}' }] },
    { envFrom: [{ configMapRef: { name: 'mine' } }] },
    { securityContext: { ...security, privileged: true } },
    { securityContext: { ...security, procMount: 'Unmasked' } },
    { securityContext: {} },
    { restartPolicy: undefined },
    { volumeMounts: [...(proxy.volumeMounts ?? []), { name: 'mine', mountPath: '/run/outrider/private' }] },
    { volumeMounts: [...(proxy.volumeMounts ?? []), { name: 'kube-api-access-x', mountPath: '/etc/outrider/trust' }] },
    { resources: { limits: { memory: '1Mi' } } },
    { resources: undefined },
    { lifecycle: { postStart: { exec: { command: ['/bin/sh'] } } } },
    { startupProbe: undefined },
    { tty: true, stdin: true },
  ];
  for (const change of weaker) {
    const forged: Pod = { ...pod, spec: { ...pod.spec, initContainers: [{ ...proxy, ...change }] } };
    t.strictSame(injected(decide(forged, exampleSidecar)).spec.initContainers, [proxy], Object.keys(change).join());
  }
});

t.test('a program that may change steering rules, or is the proxy’s user, is refused', async (t) => {
  const transparent = { 'outrider.dev/mode': 'transparent' };
  const withSecurity = (securityContext: object, spec: object = {}) =>
    podOf({ containers: [{ name: 'app', securityContext }], ...spec }, transparent);
  const refused: readonly [string, Pod][] = [
    ['NET_ADMIN', withSecurity({ capabilities: { add: ['NET_ADMIN'] } })],
    ['cap_net_admin', withSecurity({ capabilities: { add: ['cap_net_admin'] } })],
    ['all', withSecurity({ capabilities: { add: ['ALL'] } })],
    ['SYS_ADMIN', withSecurity({ capabilities: { add: ['SYS_ADMIN'] } })],
    ['privileged', withSecurity({ privileged: true })],
    ['the user, of the container', withSecurity({ runAsUser: exampleSidecar.uid })],
    ['the user, of the pod', withSecurity({}, { securityContext: { runAsUser: exampleSidecar.uid } })],
    ['an init container', podOf({ initContainers: [{ name: 'init', securityContext: { privileged: true } }] }, transparent)],
  ];
  for (const [what, pod] of refused) t.equal(decide(pod, exampleSidecar).kind, 'denied', what);
  t.equal(decide(withSecurity({ capabilities: { add: ['NET_BIND_SERVICE'] } }), exampleSidecar).kind, 'injected');
  t.equal(decide(withSecurity({ runAsUser: 1 }, { securityContext: { runAsUser: exampleSidecar.uid } }), exampleSidecar).kind, 'injected');
  t.equal(
    decide(podOf({ containers: [{ name: 'app', securityContext: { privileged: true } }] }), exampleSidecar).kind,
    'injected',
    'not steered',
  );
});

t.test('no annotation reaches what is the operator’s', async (t) => {
  for (const name of ['audit', 'on-unmatched', 'broker', 'collector', 'image', 'uid', 'token-audience', 'config', 'status']) {
    t.match(decide(podOf({}, { [`outrider.dev/${name}`]: 'x' }), exampleSidecar), { kind: 'denied', reasons: [/is not known/] }, name);
  }
});

t.test("a token for the broker is the proxy's alone, but for the account of the self-test in its namespace", async (t) => {
  const settings = { ...exampleSidecar, selfTest: { namespace: 'outrider', serviceAccount: 'outrider-self-test' } };
  const volumes = [
    { name: 'mine', projected: { sources: [{ serviceAccountToken: { path: 'token', audience: exampleSidecar.tokenAudience } }] } },
  ];
  const kindOf = (namespace: string, serviceAccountName: string, by = settings): string => {
    const pod = readPod({
      metadata: { name: 'p', namespace },
      spec: { serviceAccountName, containers: [{ name: 'app' }], volumes },
    }) as Pod;
    return decide(pod, by).kind;
  };
  t.equal(kindOf('outrider', 'outrider-self-test'), 'injected');
  t.equal(kindOf('shop', 'outrider-self-test'), 'denied');
  t.equal(kindOf('outrider', 'default'), 'denied');
  t.equal(kindOf('outrider', 'outrider-self-test', { ...settings, selfTest: undefined as never }), 'denied');
});

/** Variables as the kubelet makes them (makeEnvironmentVariables): in order, and an optional reference to what is not there sets nothing. */
const made = (env: readonly EnvironmentEntry[], configMap: Readonly<Record<string, string>>): Record<string, string> => {
  const known: Record<string, string> = { KUBERNETES_SERVICE_HOST: '10.96.0.1' };
  for (const { name, value = '', valueFrom } of env) {
    const { key } = (valueFrom?.['configMapKeyRef'] ?? {}) as { key?: string };
    const found = key === undefined ? value.replace(/\$\((\w+)\)/g, (whole, other: string) => known[other] ?? whole) : configMap[key];
    if (found !== undefined) known[name] = found;
  }
  return known;
};

t.test('Java options from an optional place that has none start no program with what it does not understand', async (t) => {
  const from = (key: string, optional?: boolean) => ({
    name: 'JAVA_TOOL_OPTIONS',
    valueFrom: { configMapKeyRef: { name: 'c', key, ...(optional === undefined ? {} : { optional }) } },
  });
  const plain = { name: 'JAVA_TOOL_OPTIONS', value: '-Xmx1g' };
  const cases: readonly [string, readonly EnvironmentEntry[], string][] = [
    ['it is missing', [from('missing', true)], ''],
    ['it is there', [from('there', true)], '-Xmx2g'],
    ['a plain one before it counts', [plain, from('missing', true)], '-Xmx1g'],
    ['a plain one before it does not count', [plain, from('there', true)], '-Xmx2g'],
    ['one before it that is there counts', [from('there'), from('missing', true)], '-Xmx2g'],
    ['two are missing', [from('missing', true), from('missing', true)], ''],
  ];
  for (const [what, env, options] of cases) {
    const pod = readPod({ metadata: {}, spec: { containers: [{ name: 'app', env }] } }) as Pod;
    const decision = decide(pod, exampleSidecar);
    if (decision.kind !== 'injected') return t.fail(JSON.stringify(decision));
    const { JAVA_TOOL_OPTIONS = '' } = made(decision.pod.spec.containers[0]?.env ?? [], { there: '-Xmx2g' });
    t.match(JAVA_TOOL_OPTIONS, new RegExp(`^${options} ?-D`), what);
    t.notMatch(JAVA_TOOL_OPTIONS, '$(', what);
    t.strictSame(decide(decision.pod, exampleSidecar), decision, `${what}: and the same again`);
  }
});
