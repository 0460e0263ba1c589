import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parse } from 'yaml';
import { chartFiles } from '../../scripts/chart.ts';
import { chartSchema, patterns } from '../../scripts/chart-schema.ts';
import { jsonSchemaOf } from '../../src/settings/document.ts';
import { chart, hasHelm, template } from '../support/helm.ts';
import { filesIn, textOf } from '../support/source-tree.ts';

t.test('what the chart has from the code is current ("npm run chart" writes it)', async (t) => {
  for (const [name, text] of Object.entries(chartFiles())) t.equal(readFileSync(join(chart, name), 'utf8'), text, name);
});

t.test('the chart and the package have one version', async (t) => {
  const { version } = JSON.parse(textOf('package.json')) as { version: string };
  t.has(parse(textOf('charts/outrider/Chart.yaml')), { version, appVersion: version });
});

interface Node {
  readonly properties?: Readonly<Record<string, Node>>;
  readonly items?: Node;
  readonly description?: string;
  readonly additionalProperties?: unknown;
  readonly type?: unknown;
}

t.test('every value is in values.yaml and in the schema, and a typing error anywhere is refused', async (t) => {
  const compare = (schema: Node, values: unknown, path: string): void => {
    if (!schema.properties) return;
    t.equal(schema.additionalProperties, false, `${path} is closed`);
    if (typeof values !== 'object' || values === null) return;
    for (const key of Object.keys(values)) {
      if (schema.properties[key] === undefined) t.fail(`${path}.${key} is not in the schema`);
      else compare(schema.properties[key], (values as Record<string, unknown>)[key], `${path}.${key}`);
    }
    // Those are shown by comments, or mean nothing where they are empty.
    const unwritten = new Set(['global', 'svidLifetime', 'name', 'kind', 'group', 'cpu', 'ephemeral-storage']);
    for (const key of Object.keys(schema.properties))
      if (!(key in values) && !unwritten.has(key)) t.fail(`${path}.${key} is not in values.yaml`);
  };
  compare(chartSchema(), parse(textOf('charts/outrider/values.yaml')), 'values');
});

t.test('each sentence that a pattern stands for is one of the settings', async (t) => {
  const sentences = new Set<string>();
  const collect = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    const { description } = node as Node;
    if (typeof description === 'string') sentences.add(description);
    for (const value of Object.values(node)) collect(value);
  };
  for (const kind of ['broker', 'injector'] as const) collect(jsonSchemaOf(kind));
  for (const [sentence] of patterns) if (![...sentences].some((text) => sentence.test(text))) t.fail(`nothing says ${sentence}`);
});

/** What the broker takes, the chart takes. */
const configurationOf = (path: string): unknown => {
  const { workloads, providers, targets, policies, svidLifetime, ...rest } = parse(textOf(path)) as Record<string, unknown>;
  // The attestor `cluster` is the chart's.
  const attestors = (rest['attestors'] as { readonly name: string }[]).filter(({ name }) => name !== 'cluster');
  return JSON.parse(JSON.stringify({ attestors, workloads, providers, targets, policies, svidLifetime }));
};

t.test('configurations that the broker takes are taken', async (t) => {
  if (!hasHelm(t)) return;
  for (const path of filesIn('config/examples').filter((path) => path.includes('/broker'))) {
    const { status, stderr } = template(['--set-json', `broker.configuration=${JSON.stringify(configurationOf(path))}`]);
    t.equal(status, 0, `${path}: ${stderr}`);
  }
});

/** Resources of the sidecar that differ from the defaults. */
const amounts = (more: Readonly<Record<string, unknown>>): string =>
  Object.entries(more)
    .map(([path, value]) => `injector.sidecar.${path}=${JSON.stringify(value)}`)
    .join(',');

const target = (more: string): string =>
  `broker.configuration={"providers":[{"kind":"jwt","name":"p","audience":"a"}],"targets":[{"name":"t","hosts":["t.example.com"],${more}}]}`;
const credential = '"credentials":[{"provider":"p","placement":{"kind":"bearer"}}]';

/** `--set-json` → what is said, which names the value. */
const wrong: readonly (readonly [json: string, message: RegExp])[] = [
  ['trustDomain="Example.COM"', /'\/trustDomain': 'Example\.COM' does not match/],
  ['trustdomain="x"', /additional properties 'trustdomain' not allowed/],
  ['broker.replica=3', /'\/broker': additional properties 'replica' not allowed/],
  ['broker.replicas="3"', /'\/broker\/replicas': got string, want integer/],
  ['broker.replicas=0', /'\/broker\/replicas': minimum: got 0, want 1/],
  ['broker.logLevel="verbose"', /'\/broker\/logLevel': value must be one of 'debug', 'info', 'warn', 'error', 'silent'/],
  ['broker.resources.limits={"memmory":"1Gi"}', /'\/broker\/resources\/limits': additional properties 'memmory' not allowed/],
  ['broker.resources.requests={"memory":"lots"}', /'\/broker\/resources\/requests\/memory': 'lots' does not match/],
  ['broker.issuer.url="http://issuer.example.com"', /'\/broker\/issuer\/url': 'http:\/\/issuer\.example\.com' does not match/],
  ['broker.issuer.algorithm="HS256"', /'\/broker\/issuer\/algorithm': value must be one of 'ES256', 'RS256'/],
  ['broker.configuration.targets={}', /'\/broker\/configuration\/targets': got object, want array/],
  ['broker.configuration.workloads=[{"name":"w"}]', /'\/broker\/configuration\/workloads\/0': missing property 'match'/],
  ['broker.configuration.workloads=[{"name":"W","match":{}}]', /'\/broker\/configuration\/workloads\/0\/name': 'W' does not match/],
  [
    'broker.configuration.workloads=[{"name":"w","match":{"kubernetes.namspace":"x"}}]',
    /workloads\/0\/match': additional properties 'kubernetes\.namspace' not allowed/,
  ],
  [
    'broker.configuration.providers=[{"kind":"static","name":"s","file":"/x"}]',
    /providers\/0\/kind': value must be one of 'jwt', 'oauth2_client_credentials', 'static_file', 'x509'/,
  ],
  [
    'broker.configuration.providers=[{"kind":"jwt","name":"s","audience":"x","lifetime":"5 minutes"}]',
    /providers\/0\/lifetime': '5 minutes' does not match/,
  ],
  ['broker.configuration.providers=[{"kind":"static_file","name":"s","file":"hunter2"}]', /providers\/0\/file': 'hunter2' does not match/],
  [target(`"ports":[0],${credential}`), /targets\/0\/ports\/0': minimum: got 0, want 1/],
  [target('"credentials":[{"provider":"p","placement":{"kind":"bearrer"}}]'), /placement\/kind': value must be one of 'bearer'/],
  [target('"credentials":[{"provider":"p","placement":{"kind":"header"}}]'), /placement': missing property 'name'/],
  [
    target('"credentials":[{"provider":"q","placement":{"kind":"bearer"}}]'),
    /targets: "t" names provider "q", which is not among providers/,
  ],
  [
    'broker.configuration.policies=[{"name":"p","rules":[{"name":"r","effect":"allow","targets":["nowhere"]}]}]',
    /policies: rule "r" of "p" names "nowhere", which is not among targets/,
  ],
  [
    'broker.configuration.workloads=[{"name":"w","attestor":"east","match":{"kubernetes.namespace":"x"}}]',
    /workloads: "w" names attestor "east", which is not among attestors/,
  ],
  [
    'broker.configuration.providers=[{"kind":"jwt","name":"outrider-self-test","audience":"x"}]',
    /providers: "outrider-self-test" is there twice/,
  ],
  ['cluster.attestation="oidc"', /'\/cluster\/attestation': value must be one of 'token_review', 'jwks'/],
  ['injector.sidecar.tokenLifetime="5m"', /'\/injector\/sidecar\/tokenLifetime': '5m' does not match/],
  [
    'injector.sidecar.modes=["explicit","magic"]',
    /'\/injector\/sidecar\/modes\/1': value must be one of 'explicit', 'transparent', 'routes'/,
  ],
  ['injector.sidecar.onUnmatched="allow"', /'\/injector\/sidecar\/onUnmatched': value must be one of 'tunnel', 'refuse'/],
  ['injector.sidecar.exclusions="some"', /'\/injector\/sidecar\/exclusions': value must be one of '', 'allowed', 'refused'/],
  ['cluster.noProxy=["*.corp.example"]', /'\/cluster\/noProxy\/0': '\*\.corp\.example' does not match/],
  ['cluster.domain="cluster..local"', /'\/cluster\/domain': 'cluster\.\.local' does not match/],
  ['broker.issuer.url="https://me@issuer.example.com"', /'\/broker\/issuer\/url': 'https:\/\/me@issuer\.example\.com' does not match/],
  ['broker.issuer.url="https://issuer.example.com."', /'\/broker\/issuer\/url': 'https:\/\/issuer\.example\.com\.' does not match/],
  ['broker.issuer.url="https://issuer.example.com:65536"', /broker\.issuer\.url: 65536 is no port, write one from 1 to 65535/],
  ['image.repository="out+rider"', /'\/image\/repository': 'out\+rider' does not match/],
  [
    'injector.sidecar={"modes":["transparent"],"uid":"platform"}',
    /injector\.sidecar\.modes: transparent needs a user of the proxy's own, which is not steered: write a number as injector\.sidecar\.uid, or remove transparent/,
  ],
  [
    amounts({ 'resources.limits.memory': '64Mi', 'resources.requests.memory': '64Mi' }),
    /injector\.sidecar\.resources\.limits\.memory: 64Mi is too little for the proxy, write at least 128Mi/,
  ],
  [
    amounts({ 'resources.limits.memory': 134217727, 'resources.requests.memory': '64Mi' }),
    /injector\.sidecar\.resources\.limits\.memory: 134217727 is too little for the proxy/,
  ],
  [
    amounts({ 'resources.limits.memory': '2Gi' }),
    /injector\.sidecar\.resourcesMax\.memory: 1Gi is less than what pods get unasked \(2Gi\), write at least that/,
  ],
  [amounts({ 'resources.requests.cpu': '2500m' }), /injector\.sidecar\.resourcesMax\.cpu: 2 is less than what pods get unasked \(2500m\)/],
  [
    amounts({ 'resources.requests.memory': '512Mi' }),
    /injector\.sidecar\.resources\.requests\.memory: 512Mi is more than the limit \(384Mi\), write at most that/,
  ],
  [
    amounts({ 'resources.requests.cpu': 1.5, 'resources.limits.cpu': '1' }),
    /injector\.sidecar\.resources\.requests\.cpu: 1\.5 is more than the limit \(1\)/,
  ],
  [amounts({ 'resourcesMax.cpu': 0 }), /injector\.sidecar\.resourcesMax\.cpu: 0 is not an amount of cpu, write for example 500m or 2/],
  [amounts({ 'resourcesMax.cpu': '0.0' }), /injector\.sidecar\.resourcesMax\.cpu: 0\.0 is not an amount of cpu/],
  [amounts({ 'resources.requests.cpu': '0.0001' }), /injector\.sidecar\.resources\.requests\.cpu: 0\.0001 is not an amount of cpu/],
  [
    amounts({ 'resources.limits.memory': '200.5' }),
    /resources\.limits\.memory: 200\.5 is not an amount of memory, write for example 384Mi/,
  ],
  [amounts({ 'resourcesMax.memory': '99999999Ti' }), /resourcesMax\.memory: 99999999Ti is not an amount of memory/],
  [amounts({ 'resources.limits.cpu': '1Gi' }), /'\/injector\/sidecar\/resources\/limits\/cpu': '1Gi' does not match/],
  [amounts({ 'resources.limits.memory': '1.2.3Mi' }), /'\/injector\/sidecar\/resources\/limits\/memory': '1\.2\.3Mi' does not match/],
  // The self-test's program runs as the next one.
  ['injector.sidecar.uid=2147483647', /'\/injector\/sidecar\/uid': maximum: got 2[.,]?147,?483,?647\S*, want 2[.,]?147,?483,?646/],
  ['uid=2147483648', /'\/uid': maximum: got 2[.,]?147,?483,?648\S*, want 2[.,]?147,?483,?647/],
  ['injector.sidecar.uid=0', /'\/injector\/sidecar\/uid': minimum: got 0, want 1/],
  ['injector.sidecar.resources.limits={"memory":"lots"}', /'\/injector\/sidecar\/resources\/limits\/memory': 'lots' does not match/],
  ['collector.storage.size="big"', /'\/collector\/storage\/size': 'big' does not match/],
  ['image.tag="a b"', /'\/image\/tag': 'a b' does not match/],
  ['image.digest="sha256:abc"', /'\/image\/digest': 'sha256:abc' does not match/],
  ['uid=0', /'\/uid': minimum: got 0, want 1/],
  ['monitoring.rules="yes"', /'\/monitoring\/rules': got string, want (?:boolean or null|null or boolean)/],
];

t.test('a wrong value fails before anything is installed, by a message that names it', async (t) => {
  if (!hasHelm(t)) return;
  for (const [json, message] of wrong) {
    const { status, stderr } = template(['--set-json', json]);
    t.not(status, 0, json);
    t.match(stderr, message, json);
  }
});
