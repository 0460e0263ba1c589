/**
 * A Pod as far as it is looked at and changed here; everything else of it passes as it came. Read from JSON with a check of the shapes, so
 * that nothing behind it meets a list where an object belongs. https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';

export interface EnvironmentEntry {
  readonly name: string;
  readonly value?: string;
  readonly valueFrom?: JsonObject;
}

export interface VolumeMount {
  readonly name: string;
  readonly mountPath: string;
  readonly readOnly?: boolean;
  readonly [key: string]: unknown;
}

export interface Container {
  readonly name: string;
  readonly env?: readonly EnvironmentEntry[];
  readonly envFrom?: readonly JsonObject[];
  readonly ports?: readonly JsonObject[];
  readonly volumeMounts?: readonly VolumeMount[];
  readonly securityContext?: JsonObject;
  readonly resources?: JsonObject;
  readonly [key: string]: unknown;
}

export interface Volume {
  readonly name: string;
  readonly [key: string]: unknown;
}

export interface PodSpec {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly volumes?: readonly Volume[];
  readonly securityContext?: JsonObject;
  readonly nodeSelector?: Readonly<Record<string, string>>;
  readonly os?: JsonObject;
  readonly [key: string]: unknown;
}

export interface PodMetadata {
  readonly name?: string;
  readonly generateName?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly JsonObject[];
  readonly [key: string]: unknown;
}

export interface Pod {
  readonly metadata: PodMetadata;
  readonly spec: PodSpec;
  readonly [key: string]: unknown;
}

type Check = (value: unknown) => boolean;

const isText: Check = (value) => typeof value === 'string';
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || value === null || check(value);
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);
const textMap: Check = (value) => isJsonObject(value) && Object.values(value).every(isText);
const object =
  (members: Readonly<Record<string, Check>>): Check =>
  (value) =>
    isJsonObject(value) && Object.entries(members).every(([name, check]) => check(value[name]));

const container = object({
  name: isText,
  env: optional(listOf(object({ name: isText, value: optional(isText), valueFrom: optional(isJsonObject) }))),
  envFrom: optional(listOf(isJsonObject)),
  ports: optional(listOf(isJsonObject)),
  volumeMounts: optional(listOf(object({ name: isText, mountPath: isText }))),
  securityContext: optional(isJsonObject),
  resources: optional(isJsonObject),
});

const podShape = object({
  metadata: optional(
    object({
      name: optional(isText),
      generateName: optional(isText),
      labels: optional(textMap),
      annotations: optional(textMap),
      ownerReferences: optional(listOf(isJsonObject)),
    }),
  ),
  spec: object({
    containers: listOf(container),
    initContainers: optional(listOf(container)),
    volumes: optional(listOf(object({ name: isText }))),
    securityContext: optional(isJsonObject),
    nodeSelector: optional(textMap),
    os: optional(isJsonObject),
  }),
});

/** Undefined when it is no pod. A member that is null is as good as none. */
export const readPod = (value: unknown): Pod | undefined => {
  if (!podShape(value)) return undefined;
  const pod = withoutNulls(value) as Pod;
  return pod.metadata === undefined ? ({ ...(pod as Omit<Pod, 'metadata'>), metadata: {} } as Pod) : pod;
};

/** Kubernetes' own encoding has `creationTimestamp: null` and the like, which mean nothing. */
const withoutNulls = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(Object.entries(value).flatMap(([name, member]) => (member === null ? [] : [[name, withoutNulls(member)]])));
};

/** Those that the user wrote and those that are ours, init containers first. */
export const containersOf = ({ spec }: Pod): readonly Container[] => [...(spec.initContainers ?? []), ...spec.containers];
