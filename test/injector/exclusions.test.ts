/** What a pod may take from the steering by annotation, and what bounds it. */
import t from 'tap';
import { decide, type Decision } from '../../src/injector/decide.ts';
import { type Pod, readPod } from '../../src/injector/pod.ts';
import { parseSettings } from '../../src/settings/document.ts';
import type { InjectorSettings, SidecarSettings } from '../../src/settings/injector.ts';

/** As an operator writes them: `more` goes into the sidecar's section. */
const settingsWith = (more: object): SidecarSettings => {
  const peerOf = (name: string, port: number): object => ({
    address: `${name}.outrider.svc:${port}`,
    spiffeId: `spiffe://outrider.test/outrider/${name}`,
  });
  const written = {
    kind: 'injector',
    listen: '0.0.0.0:15009',
    admin: '0.0.0.0:15011',
    cluster: { apiServer: 'https://kubernetes.default.svc', tokenFile: '/run/token' },
    namespace: 'outrider',
    serving: { files: { certFile: '/run/tls.crt', keyFile: '/run/tls.key' } },
    trust: { configMap: 'outrider-trust' },
    webhookConfiguration: 'outrider-injector',
    sidecar: {
      image: 'outrider:1',
      steerImage: 'outrider-steer:1',
      broker: peerOf('broker', 15_002),
      collector: peerOf('collector', 15_005),
      modes: ['explicit', 'transparent', 'routes'],
      ...more,
    },
    log: { level: 'info' },
  };
  return (parseSettings(JSON.stringify(written), 'injector.yaml') as InjectorSettings).sidecar;
};

const decideOn = (annotations: Readonly<Record<string, string>>, more: object = {}): Decision => {
  const named = Object.fromEntries(Object.entries(annotations).map(([name, value]) => [`outrider.dev/${name}`, value]));
  return decide(
    readPod({ metadata: { name: 'p', annotations: named }, spec: { containers: [{ name: 'app' }] } }) as Pod,
    settingsWith(more),
  );
};

const reasonsOf = (decision: Decision): readonly string[] => (decision.kind === 'denied' ? decision.reasons : [decision.kind]);

const some = { mode: 'transparent', 'exclude-outbound-ports': '25', 'exclude-outbound-ranges': '10.0.0.0/8' };
const refused = [
  'outrider.dev/exclude-outbound-ports is not for pods to write here: the operator has every connection steered (sidecar.exclusions: refused), remove it',
  'outrider.dev/exclude-outbound-ranges is not for pods to write here: the operator has every connection steered (sidecar.exclusions: refused), remove it',
];

t.test('where what is no target is refused, no annotation takes anything from the steering', async (t) => {
  for (const operators of [{ onUnmatched: 'refuse' }, { unmatchedPrivateAddresses: 'refused' }, { exclusions: 'refused' }])
    t.strictSame(reasonsOf(decideOn(some, operators)), refused, JSON.stringify(operators));
});

t.test('the operator may allow it there, and it is allowed where everything passes anyway', async (t) => {
  for (const operators of [{}, { onUnmatched: 'refuse', exclusions: 'allowed' }]) {
    const decision = decideOn(some, operators);
    if (decision.kind !== 'injected') return t.fail(JSON.stringify(decision));
    const steer = decision.pod.spec.initContainers?.find(({ name }) => name === 'outrider-steer');
    t.strictSame((steer?.['args'] as string[] | undefined)?.slice(-4), ['--except-port', '25', '--except-range', '10.0.0.0/8']);
  }
});

t.test('programs of mode explicit go around the proxy if they want to: NO_PROXY is theirs', async (t) => {
  t.equal(decideOn({ mode: 'explicit', 'exclude-outbound-ranges': '10.0.0.0/8' }, { onUnmatched: 'refuse' }).kind, 'injected');
});

t.test('what would leave nothing to steer is refused, in one piece or in several', async (t) => {
  const all: readonly (readonly [string, string])[] = [
    ['exclude-outbound-ports', '1-65535'],
    ['exclude-outbound-ports', '32768-65535, 25, 1-20000, 10000-32767'],
    ['exclude-outbound-ranges', '0.0.0.0/0'],
    ['exclude-outbound-ranges', '10.1.2.3/0'],
    ['exclude-outbound-ranges', '128.0.0.0/1 0.0.0.0/2 64.0.0.0/2'],
    ['exclude-outbound-ranges', '::/0'],
    ['exclude-outbound-ranges', '8000::/1, ::/1'],
    ['exclude-outbound-ranges', '10.0.0.0/8, ::/1, 8000::/2, c000::/3, e000::/3'],
  ];
  for (const [name, value] of all) {
    const reasons = reasonsOf(decideOn({ mode: 'transparent', [name]: value }, { exclusions: 'allowed' }));
    t.strictSame(reasons, [`outrider.dev/${name} leaves nothing to the proxy: write only what must go around it`], value);
  }
  t.equal(decideOn({ mode: 'explicit', 'exclude-outbound-ranges': '0.0.0.0/0' }).kind, 'denied');
});

t.test('what leaves something is taken', async (t) => {
  const parts: readonly (readonly [string, string])[] = [
    ['exclude-outbound-ports', '1-442, 444-65535'],
    ['exclude-outbound-ports', '2-65535'],
    ['exclude-outbound-ports', '1-65534'],
    ['exclude-outbound-ranges', '0.0.0.0/1, 128.0.0.0/2'],
    ['exclude-outbound-ranges', '128.0.0.0/1, fd00::/8, ::ffff:10.0.0.0/104, 10.0.0.1'],
    ['exclude-outbound-ranges', '::/1, 8000::/2'],
  ];
  for (const [name, value] of parts) t.equal(decideOn({ mode: 'transparent', [name]: value }).kind, 'injected', value);
});
