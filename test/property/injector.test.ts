import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { isJsonObject } from '../../src/core/json.ts';
import { trustVariables } from '../../src/core/program-environment.ts';
import { decide } from '../../src/injector/decide.ts';
import type { Container, Pod } from '../../src/injector/pod.ts';
import { readPod } from '../../src/injector/pod.ts';
import { injectionModes } from '../../src/settings/injector.ts';
import { applied, exampleSidecar } from '../support/injector-pods.ts';
import { holds } from './seed.ts';

/** Laws of injection (THREATS D-2, P-3), over pods that people could write and over copies of the results. */

/** Mostly what is injected, so that there is something to look at. */
const seldom = <T>(usual: fc.Arbitrary<T>, odd: fc.Arbitrary<T>) =>
  fc.oneof({ arbitrary: usual, weight: 12 }, { arbitrary: odd, weight: 1 });

const name = seldom(fc.constantFrom('app', 'web', 'migrate'), fc.constantFrom('outrider-proxy', 'outrider-steer'));
const variable = fc.constantFrom(
  'HTTP_PROXY',
  'https_proxy',
  'NO_PROXY',
  'no_proxy',
  'SSL_CERT_FILE',
  'JAVA_TOOL_OPTIONS',
  'JDK_JAVA_OPTIONS',
  'NODE_USE_ENV_PROXY',
  'OUTRIDER_ORIGINAL_NO_PROXY',
  'OTHER',
);
const value = fc.constantFrom(
  '',
  '*',
  'a.example, 10.0.0.0/8',
  '$(OTHER)',
  'http://127.0.0.1:15001',
  '/run/outrider/public/ca-bundle.pem',
  '-Xmx1m -Djavax.net.ssl.trustStore=/x.p12',
  '-Djavax.net.ssl.trustStore=/run/outrider/public/trust-store.p12',
);
const entry = fc.oneof(
  fc.record({ name: variable, value }),
  fc.record({
    name: variable,
    valueFrom: fc.constantFrom({ configMapKeyRef: { name: 'c', key: 'k' } }, { secretKeyRef: { name: 's', key: 'k', optional: true } }),
  }),
);
const ownVolumes = ['outrider-public', 'outrider-private', 'outrider-token', 'outrider-log', 'outrider-x'];
const volumeName = fc.constantFrom('mine', ...ownVolumes);
const mountedName = seldom(fc.constant('mine'), fc.constantFrom(...ownVolumes));
const container = fc.record(
  {
    name,
    image: fc.constantFrom('a', 'registry.example/outrider:1.0'),
    restartPolicy: fc.constant('Always'),
    env: fc.array(entry, { maxLength: 6 }),
    envFrom: fc.constant([{ configMapRef: { name: 'c' } }]),
    ports: fc.array(fc.record({ containerPort: seldom(fc.constantFrom(80, 8_081), fc.constant(15_007)) }), { maxLength: 2 }),
    volumeMounts: fc.array(
      fc.record({ name: mountedName, mountPath: seldom(fc.constant('/m'), fc.constant('/run/outrider/public')), readOnly: fc.boolean() }),
      { maxLength: 3 },
    ),
    securityContext: fc.record(
      {
        runAsUser: seldom(fc.constantFrom(0, 1_000), fc.constant(65_532)),
        privileged: fc.boolean(),
        capabilities: fc.constant({ add: ['NET_ADMIN'] }),
      },
      { requiredKeys: [] },
    ),
  },
  { requiredKeys: ['name'] },
);
const annotations = fc.dictionary(
  fc.constantFrom('outrider.dev/mode', 'outrider.dev/log-level', 'outrider.dev/memory-limit', 'outrider.dev/notes', 'a', 'b', 'c'),
  fc.constantFrom(...injectionModes, '8081=https://a.example', 'debug', '512Mi', 'x'),
  { maxKeys: 2 },
);
const pod = fc
  .record({
    metadata: fc.record(
      { name: fc.constant('p'), annotations, labels: fc.dictionary(fc.constantFrom('outrider.dev/injected', 'app'), fc.constant('true')) },
      { requiredKeys: [] },
    ),
    spec: fc.record(
      {
        containers: fc.array(container, { minLength: 1, maxLength: 3 }),
        initContainers: fc.array(container, { maxLength: 3 }),
        volumes: fc.array(fc.record({ name: volumeName, hostPath: fc.constant({ path: '/' }) }), { maxLength: 3 }),
        shareProcessNamespace: seldom(fc.constant(false), fc.constant(true)),
      },
      { requiredKeys: ['containers'] },
    ),
  })
  .map((written) => readPod(written) as Pod);

const settings = exampleSidecar;
const secretVolumes = new Set(['outrider-token', 'outrider-private', 'outrider-log', 'outrider-broker-ca']);

t.test('of what is injected, once or again, the laws hold', async (t) => {
  let injections = 0;
  const law = fc.property(pod, (before) => {
    const decision = decide(before, settings);
    if (decision.kind !== 'injected') return;
    injections += 1;
    const after = decision.pod;
    const same = (a: unknown, b: unknown, what: string): void => {
      if (!isDeepStrictEqual(a, b)) throw new Error(what);
    };
    same(applied(before, after), after, 'the patch does not make the result');
    const again = decide(after, settings);
    same(again.kind === 'injected' ? again.pod : again, after, 'the second time changes something');
    const [first, ...others] = after.spec.initContainers as readonly Container[];
    same([first?.name, first?.['image'], first?.['restartPolicy']], ['outrider-proxy', settings.image, 'Always'], 'the proxy is not first');
    same(
      first?.env?.map((one) => one.name),
      ['OUTRIDER_CONFIG'],
      'the proxy is told more than its configuration',
    );
    const programs = [...others, ...after.spec.containers].filter((one) => one.name !== 'outrider-steer');
    for (const program of programs) {
      const set = new Set(program.env?.map((one) => one.name));
      for (const variable of trustVariables) if (!set.has(variable.name)) throw new Error(`${program.name} has no ${variable.name}`);
      const mounted = program.volumeMounts ?? [];
      if (mounted.some((one) => secretVolumes.has(one.name))) throw new Error(`${program.name} mounts what is the proxy's`);
      if (mounted.some((one) => one.name === 'outrider-public' && one.readOnly !== true)) throw new Error('certificates may be changed');
      if ((program.securityContext?.['runAsUser'] ?? -1) === settings.uid) throw new Error('a program runs as the proxy');
    }
    const hostPaths = after.spec.volumes?.filter((one) => one['hostPath'] !== undefined && secretVolumes.has(one.name)) ?? [];
    if (hostPaths.length > 0) throw new Error("a volume of the proxy's is somewhere else");
    if (after.spec['shareProcessNamespace'] === true) throw new Error('processes are shared');
  });
  await holds(t, 'laws of injection', law, 3_000);
  t.ok(injections > 100, `${injections} were injected`);
});

t.test('whatever is no pod is none, and no JSON makes deciding fail', async (t) => {
  const law = fc.property(fc.jsonValue(), (written) => {
    const read = readPod({ metadata: written, spec: { containers: [], ...(isJsonObject(written) ? written : {}) } });
    if (read) decide(read, settings);
  });
  await holds(t, 'shapes', law, 1_000);
});
