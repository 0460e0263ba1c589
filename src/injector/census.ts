/**
 * Which pods that should have a proxy run without one: those in labelled namespaces and those labelled themselves, counted by reading them
 * now and then. A pod made before its namespace was labelled, or while a lenient webhook was away, shows here and nowhere else.
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import type { ApiServer } from '../net/api-server.ts';
import type { Metrics } from '../ops/metrics.ts';
import { containers, labels as labelNames } from './names.ts';

export const podStates = ['injected', 'uninjected', 'opted_out'] as const;
export type PodState = (typeof podStates)[number];

/** Namespace → how many of its pods are in each state. Labelled namespaces are in it without a pod, too. */
export type Census = ReadonlyMap<string, Readonly<Record<PodState, number>>>;

const podPath = '/api/v1/pods';

/** Not those that have ended: of finished Jobs a namespace may keep thousands. */
const fieldSelector = 'status.phase!=Succeeded,status.phase!=Failed';

/** Holds a page of pods at a time, and counts. Throws ApiError. */
export const takeCensus = async (api: Pick<ApiServer, 'pages'>): Promise<Census> => {
  const labelSelector = `${labelNames.inject}=enabled`;
  const counts = new Map<string, Record<PodState, number>>();
  for await (const page of api.pages('/api/v1/namespaces', { labelSelector }))
    for (const namespace of page) counts.set(nameOf(namespace), { injected: 0, uninjected: 0, opted_out: 0 });
  const namespaces = new Set(counts.keys());
  const count = (pod: JsonObject): void => {
    const state = stateOf(pod);
    if (state === undefined) return;
    const namespace = String(metadataOf(pod)['namespace']);
    const row = counts.get(namespace) ?? { injected: 0, uninjected: 0, opted_out: 0 };
    row[state] += 1;
    counts.set(namespace, row);
  };
  // A pod of a labelled namespace comes with its namespace.
  for await (const page of api.pages(podPath, { labelSelector, fieldSelector }))
    for (const pod of page) if (!namespaces.has(String(metadataOf(pod)['namespace']))) count(pod);
  for (const namespace of namespaces)
    for await (const page of api.pages(`/api/v1/namespaces/${namespace}/pods`, { fieldSelector })) for (const pod of page) count(pod);
  return counts;
};

/** Adds, so that namespaces that share a row for being too many are summed in it. */
export const showCensus = (census: Census, metrics: Pick<Metrics, 'add' | 'reset'>): void => {
  metrics.reset('outrider_injector_pods');
  for (const [namespace, counts] of census)
    for (const state of podStates) metrics.add('outrider_injector_pods', { namespace, state }, counts[state]);
};

const metadataOf = ({ metadata }: JsonObject): JsonObject => (isJsonObject(metadata) ? metadata : {});
const nameOf = (object: JsonObject): string => String(metadataOf(object)['name']);

/** Undefined for a pod that has ended. */
const stateOf = (pod: JsonObject): PodState | undefined => {
  const { spec, status } = pod;
  const phase = isJsonObject(status) ? status['phase'] : undefined;
  if (phase === 'Succeeded' || phase === 'Failed') return undefined;
  const initContainers = isJsonObject(spec) && Array.isArray(spec['initContainers']) ? spec['initContainers'] : [];
  const isInjected = initContainers.some(
    (container: unknown) => isJsonObject(container) && container['name'] === containers.proxy && container['restartPolicy'] === 'Always',
  );
  if (isInjected) return 'injected';
  const { labels } = metadataOf(pod);
  return isJsonObject(labels) && labels[labelNames.inject] === 'disabled' ? 'opted_out' : 'uninjected';
};
