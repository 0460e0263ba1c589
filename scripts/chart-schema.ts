/**
 * values.schema.json of the chart. What goes into the broker's configuration is said by the settings' own schemas, so that the chart
 * and the broker refuse the same; what only Kubernetes knows stands here. Draft 7, which every Helm reads.
 */
import { jsonSchemaOf } from '../src/settings/document.ts';

export type Schema = Readonly<Record<string, unknown>>;

interface Node {
  readonly properties?: Readonly<Record<string, Node>>;
  readonly items?: Node;
  readonly oneOf?: readonly Node[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly description?: string;
  readonly required?: readonly string[];
  readonly additionalProperties?: unknown;
}

/** A property of a schema that is known to be there. */
const within = (schema: Schema, ...path: readonly string[]): Schema => {
  const found = path.reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], schema);
  if (found === undefined) throw new Error(`the settings have no ${path.join('.')}`);
  return found as Schema;
};

/** Texts by the sentence that says what to write: JSON Schema does not know of checks that are code. Never narrower than those. */
export const patterns: readonly (readonly [sentence: RegExp, pattern: string])[] = [
  [/^one of at most 63 lower-case letters/, '^[a-z0-9][a-z0-9-]{0,62}$'],
  [/\(a whole number with its unit: ms, s, m or h\)$/, '^(0|[1-9][0-9]*)(ms|s|m|h)$'],
  [/^a lower-case name or an IP address/, '^[^*/@A-Z]+$'],
  [/^a path with a "\/"/, '^[^~].*/|^/'],
  [/^it in capitals, such as GET/, '^[^a-z]+$'],
  [/^a path in quotes/, '^/'],
  [/^cpu, such as/, '^[0-9]{1,9}(\\.[0-9]{1,9})?m?$'],
  [/^memory, such as/, '^[0-9]{1,15}(\\.[0-9]{1,9})?(k|M|G|T|Ki|Mi|Gi|Ti)?$'],
  [/^a name for all below it, an address or a range/, '^[a-zA-Z0-9.:_/\\[\\]-]{1,253}$'],
  [/^2027-01-31/, '^[0-9]{4}-[0-9]{2}-[0-9]{2}'],
];

/**
 * The same without `oneOf`, whose failure says only that none of them fitted: the kind is asked first, and then what belongs to that
 * kind. Adds patterns.
 */
export const clearer = (node: Node): Schema => {
  if (node.oneOf) return chosen(leavesOf(node));
  const { properties, items, ...plain } = node;
  const pattern = patterns.find(([sentence]) => sentence.test(node.description ?? ''))?.[1];
  return {
    ...plain,
    ...(pattern === undefined ? {} : { pattern }),
    ...(properties ? { properties: Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, clearer(value)])) } : {}),
    ...(items ? { items: clearer(items) } : {}),
    ...(isSchema(plain.additionalProperties) ? { additionalProperties: clearer(plain.additionalProperties) } : {}),
  };
};

const isSchema = (value: unknown): value is Node => typeof value === 'object' && value !== null;

const leavesOf = (node: Node): readonly Node[] => node.oneOf?.flatMap(leavesOf) ?? [node];

const wordsOf = (leaf: Node, key: string): readonly unknown[] => {
  const { const: only, enum: several } = leaf.properties?.[key] ?? {};
  return only === undefined ? (several ?? []) : [only];
};

const chosen = (leaves: readonly Node[]): Schema => {
  const [first] = leaves as readonly [Node];
  if (leaves.length === 1) return clearer(first);
  const keys = Object.keys(first.properties ?? {});
  const key = keys.find((name) => {
    const words = leaves.map((leaf) => JSON.stringify(wordsOf(leaf, name)));
    return !words.includes('[]') && new Set(words).size > 1;
  });
  // What looks alike, a file or a variable, say: one mapping with all keys.
  if (key === undefined) return { oneOf: leaves.map(clearer) };
  const groups = Map.groupBy(leaves, (leaf) => JSON.stringify(wordsOf(leaf, key)));
  return {
    type: 'object',
    required: [key],
    properties: { [key]: { enum: leaves.flatMap((leaf) => wordsOf(leaf, key)).filter((word, i, all) => all.indexOf(word) === i) } },
    allOf: [...groups.values()].map((group) => ({
      // oxlint-disable-next-line unicorn/no-thenable -- JSON Schema's word
      if: { required: [key], properties: { [key]: { enum: wordsOf(group[0] as Node, key) } } },
      // oxlint-disable-next-line unicorn/no-thenable -- JSON Schema's word
      then: chosen(group),
    })),
  };
};

const object = (properties: Readonly<Record<string, Schema>>, required: readonly string[] = []): Schema => ({
  type: 'object',
  additionalProperties: false,
  ...(required.length > 0 ? { required } : {}),
  properties,
});
const list = (items: Schema): Schema => ({ type: 'array', items });
const words = (...values: readonly string[]): Schema => ({ type: 'string', enum: values });
const text = (description: string, pattern?: string): Schema => ({
  type: 'string',
  description,
  ...(pattern === undefined ? {} : { pattern }),
});
const whole = (minimum: number, maximum: number): Schema => ({ type: 'integer', minimum, maximum });
const texts: Schema = { type: 'object', additionalProperties: { type: 'string' } };
/** Kubernetes checks these by itself, and knows more with every version. */
const asInKubernetes: Schema = { type: 'object' };

const quantity: Schema = { type: ['string', 'number'], pattern: '^[0-9.]+(m|k|M|G|T|Ki|Mi|Gi|Ti)?$' };
const amounts = object({ cpu: quantity, memory: quantity, 'ephemeral-storage': quantity });
const resources = object({ requests: amounts, limits: amounts });
const objectName = text('the name of an object in Kubernetes', '^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$');
const image = object({
  repository: text('registry and name, without a tag', '^[a-zA-Z0-9][a-zA-Z0-9._:/-]*$'),
  tag: text('a tag; the appVersion of the chart unless written', '^[A-Za-z0-9_.-]*$'),
  digest: text('sha256:…', '^(sha256:[0-9a-f]{64})?$'),
});

/** The largest that a pod may name as its user. */
const uidMax = 2_147_483_647;
/** A host in either case, a port, a path without a "/" at its end. The port's bound is said by the template. */
const issuerUrl =
  '^(https://([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?|\\[[0-9a-f:.]+\\])(:[1-9][0-9]{0,4})?(/([!-~]*[!-.0-~])?[!-.0-~])?)?$';
const label = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';

const broker = jsonSchemaOf('broker');
const sidecar = within(jsonSchemaOf('injector'), 'properties', 'sidecar');
const clearly = (...path: readonly string[]): Schema => clearer(within(broker, ...path));
/** The chart has defaults of its own, in values.yaml. */
const withoutDefault = (schema: Schema): Schema => Object.fromEntries(Object.entries(schema).filter(([key]) => key !== 'default'));
const level = withoutDefault(within(broker, 'properties', 'log', 'properties', 'level'));
/** What the API server makes tokens for, and no longer than it should. */
const tokenLifetime = text('10m to 60m', '^([1-5][0-9]|60)m$|^1h$');

const pods: Readonly<Record<string, Schema>> = {
  logLevel: level,
  resources,
  podLabels: texts,
  podAnnotations: texts,
  nodeSelector: texts,
  tolerations: list(asInKubernetes),
  affinity: asInKubernetes,
  topologySpreadConstraints: list(asInKubernetes),
  priorityClassName: { type: 'string' },
  serviceAccountAnnotations: texts,
};

const ofSidecar = (name: string): Schema => withoutDefault(clearer(within(sidecar, 'properties', name)));
const orEmpty = (schema: Schema): Schema => ({ ...schema, enum: ['', ...(schema['enum'] as readonly string[])] });
const switchOrNull: Schema = { type: ['boolean', 'null'] };

const configuration = object({
  attestors: { ...clearly('properties', 'attestors'), minItems: 0 },
  workloads: clearly('properties', 'workloads'),
  providers: clearly('properties', 'providers'),
  targets: clearly('properties', 'targets'),
  policies: clearly('properties', 'policies'),
  svidLifetime: clearly('properties', 'svidLifetime'),
});

export const chartSchema = (): Schema => ({
  $schema: 'http://json-schema.org/draft-07/schema#',
  title: 'Values of the Outrider chart',
  description: 'Made by "npm run chart" from the settings of the roles.',
  ...object(
    {
      trustDomain: text('a lower-case name such as outrider.test', '^[a-z0-9][a-z0-9._-]*$'),
      broker: object({
        ...pods,
        configuration,
        secrets: list(objectName),
        issuer: object({
          url: text('https://…, without a "/" at the end', issuerUrl),
          algorithm: withoutDefault(within(broker, 'properties', 'issuer', 'properties', 'algorithm')),
          tls: object({ secretName: objectName }),
        }),
        replicas: whole(1, 20),
        extraEnv: list(asInKubernetes),
        extraVolumes: list(asInKubernetes),
        extraVolumeMounts: list(asInKubernetes),
      }),
      cluster: object({
        issuer: text('the "issuer" of kubectl get --raw /.well-known/openid-configuration', '^https://'),
        attestation: words('token_review', 'jwks'),
        domain: text('what names of the cluster end in', `^${label}(\\.${label})*$`),
        ipFamily: ofSidecar('ipFamily'),
        noProxy: ofSidecar('noProxy'),
      }),
      injector: object({
        ...pods,
        replicas: whole(1, 20),
        sidecar: object({
          onUnmatched: ofSidecar('onUnmatched'),
          audit: ofSidecar('audit'),
          unmatchedPrivateAddresses: orEmpty(ofSidecar('unmatchedPrivateAddresses')),
          exclusions: orEmpty(ofSidecar('exclusions')),
          logLevel: ofSidecar('logLevel'),
          modes: { ...ofSidecar('modes'), uniqueItems: true },
          clusterNames: ofSidecar('clusterNames'),
          tokenLifetime,
          // The self-test's program runs as the next one.
          uid: { anyOf: [whole(1, uidMax - 1), { type: 'string', const: 'platform' }] },
          resources: ofSidecar('resources'),
          resourcesMax: ofSidecar('resourcesMax'),
        }),
        certificate: object({
          certManager: object({
            enabled: { type: 'boolean' },
            issuerRef: object({ name: objectName, kind: { type: 'string' }, group: { type: 'string' } }),
          }),
        }),
      }),
      collector: object({
        ...pods,
        storage: object({ size: quantity, storageClassName: { type: 'string' }, whenDeleted: words('Retain', 'Delete') }),
      }),
      image: object({ ...(within(image, 'properties') as Record<string, Schema>), pullPolicy: words('Always', 'IfNotPresent', 'Never') }),
      steerImage: image,
      imagePullSecrets: list(objectName),
      uid: { type: ['integer', 'null'], minimum: 1, maximum: uidMax },
      networkPolicy: object({ enabled: { type: 'boolean' }, monitoringNamespaces: list(objectName) }),
      monitoring: object({
        enabled: { type: 'boolean' },
        podMonitor: switchOrNull,
        serviceMonitor: switchOrNull,
        rules: switchOrNull,
        dashboards: switchOrNull,
        labels: texts,
        interval: text('how often, such as 30s', '^[0-9]+(s|m)$'),
      }),
      selfTest: object({ enabled: { type: 'boolean' } }),
      nameOverride: objectName,
      fullnameOverride: objectName,
      commonLabels: texts,
      commonAnnotations: texts,
      // What a chart that has this one inside may set for all.
      global: asInKubernetes,
    },
    ['trustDomain'],
  ),
});
