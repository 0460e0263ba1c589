/**
 * A pod that is to be injected and the operator's settings → the injected pod, the pod as it is, or why not. Pure, and the same again for its
 * own result: what is ours in a pod that comes back (reinvocation, a copied manifest) is replaced by ours, unless it is exactly that.
 */
import { isDeepStrictEqual } from 'node:util';
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { amountOf, type Resource } from '../core/quantity.ts';
import { parseSettings, SettingsError } from '../settings/document.ts';
import type { SidecarSettings } from '../settings/injector.ts';
import { annotationPrefix, containers as names, labels, notesAnnotation, paths } from './names.ts';
import { type Choices, readAnnotations } from './annotations.ts';
import { type Surroundings, tellEnvironment } from './environment.ts';
import type { Container, Pod } from './pod.ts';
import { refusalsOf } from './refusals.ts';
import { proxyConfiguration, proxyContainer, publicMount, sidecarVolumes, steerContainer } from './sidecar.ts';

export type Decision =
  /** `notes`: what is not as the user wrote it, a sentence each. */
  | { readonly kind: 'injected'; readonly pod: Pod; readonly notes: readonly string[] }
  | { readonly kind: 'unchanged'; readonly reason: string }
  | { readonly kind: 'denied'; readonly reasons: readonly string[] };

export const decide = (pod: Pod, settings: SidecarSettings): Decision => {
  const { labels: written = {}, annotations = {} } = pod.metadata;
  const wish = written[labels.inject];
  if (wish === 'disabled') return { kind: 'unchanged', reason: 'the pod is labelled so' };
  // What the kubelet runs from a file is only shown in the API.
  if (annotations['kubernetes.io/config.mirror'] !== undefined) return { kind: 'unchanged', reason: 'a mirror pod' };
  const { choices, problems } = readAnnotations(annotations, settings);
  const bare = withoutSidecar(pod);
  const reasons = [
    ...(wish === undefined || wish === 'enabled' ? [] : [`the label ${labels.inject} is neither enabled nor disabled`]),
    ...problems,
    ...(problems.length === 0 ? routeProblems(settings, choices) : []),
    ...refusalsOf(bare, settings, choices),
  ];
  return reasons.length > 0 ? { kind: 'denied', reasons: shown(reasons) } : inject(pod, bare, settings, choices);
};

/** A refusal is read by people, and in the log. */
const reasonsMax = 32;
const shown = (reasons: readonly string[]): readonly string[] =>
  reasons.length <= reasonsMax ? reasons : [...reasons.slice(0, reasonsMax), `and ${reasons.length - reasonsMax} more`];

/** The proxy's own settings judge the URLs. */
const routeProblems = (settings: SidecarSettings, choices: Choices): readonly string[] => {
  if (choices.routes.length === 0) return [];
  try {
    parseSettings(proxyConfiguration(settings, choices), 'routes');
    return [];
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    return error.problems.map(({ path, message }) => `${annotationPrefix}routes: ${path}: ${message}`);
  }
};

const ours: ReadonlySet<string> = new Set(Object.values(names));

const withoutSidecar = (pod: Pod): Pod => {
  const { initContainers, ...rest } = pod.spec;
  const others = initContainers?.filter(({ name }) => !ours.has(name));
  return { ...pod, spec: others === undefined ? rest : { ...rest, initContainers: others } };
};

const inject = (pod: Pod, { metadata, spec }: Pod, settings: SidecarSettings, choices: Choices): Decision => {
  const surroundings: Surroundings = { mode: choices.mode, direct: directOf(settings, choices) };
  const notes: string[] = [];
  const program = (container: Container): Container => {
    const told = tellEnvironment(container, surroundings);
    notes.push(...told.notes.map((note) => `container ${container.name}: ${note}`));
    return { ...container, env: told.env, volumeMounts: placed(container.volumeMounts ?? [], [publicMount]) };
  };
  const initPrograms = (spec.initContainers ?? []).map(program);
  const programs = spec.containers.map(program);
  const unseen = [...(spec.initContainers ?? []), ...spec.containers].filter(({ envFrom = [] }) => envFrom.length > 0);
  if (unseen.length > 0)
    notes.push(`envFrom of ${unseen.map(({ name }) => name).join(', ')} is not seen: what it has of proxy and trust variables is set over`);

  const present = new Map((pod.spec.initContainers ?? []).map((container) => [container.name, container]));
  const made = [proxyContainer(settings, choices), ...(choices.mode === 'transparent' ? [steerContainer(settings, choices)] : [])];
  const sidecar = made.map((container) => kept(present.get(container.name), container));
  const allNotes = [...new Set([...earlierNotes(pod), ...notes])].slice(0, notesMax);
  const injected: Pod = {
    ...pod,
    metadata: {
      ...metadata,
      labels: { ...metadata.labels, [labels.injected]: 'true' },
      ...(allNotes.length === 0 ? {} : { annotations: { ...metadata.annotations, [notesAnnotation]: allNotes.join('\n') } }),
    },
    spec: {
      ...spec,
      initContainers: [...sidecar, ...initPrograms],
      containers: programs,
      volumes: placed(spec.volumes ?? [], sidecarVolumes(settings)),
    },
  };
  return { kind: 'injected', pod: injected, notes: allNotes };
};

/** An annotation is read by people. */
const notesMax = 64;

/** The API server's address is what Kubernetes tells every container; it is no name of the cluster, and in no range that we know. */
const directOf = ({ clusterNames, clusterDomain, noProxy }: SidecarSettings, choices: Choices): readonly string[] => [
  ...(choices.noProxy ?? (clusterNames === 'direct' ? ['.svc', `.${clusterDomain}`] : [])),
  '$(KUBERNETES_SERVICE_HOST)',
  ...(choices.noProxy === undefined ? noProxy : []),
  ...choices.excludeRanges,
];

/** Of the round before: what a variable was replaced for is no longer to be seen. */
export const earlierNotes = ({ metadata }: Pod): readonly string[] =>
  (metadata.annotations?.[notesAnnotation] ?? '').split('\n').filter((line) => line !== '');

/** Each in the place of the one of its name, or after all others. */
const placed = <T extends { readonly name: string }>(list: readonly T[], own: readonly T[]): readonly T[] => {
  const byName = new Map(own.map((item) => [item.name, item]));
  const known = new Set(list.map(({ name }) => name));
  return [...list.map((item) => byName.get(item.name) ?? item), ...own.filter(({ name }) => !known.has(name))];
};

/**
 * The one that is there when it is ours, and what others added to it is only what admission plugins add to every container: the service account's
 * own mount, and resources that nobody wrote. Anything else could be a look-alike that is weaker, and is replaced.
 */
const kept = (present: Container | undefined, made: Container): Container => {
  if (!present) return made;
  const { resources, volumeMounts = [], securityContext = {}, ...rest } = present;
  const { procMount, ...security } = securityContext;
  const mounts = volumeMounts.filter(({ name, mountPath }) => !(name.startsWith('kube-api-access-') && mountPath === paths.apiAccess));
  const plain = { ...rest, securityContext: security, ...(mounts.length > 0 ? { volumeMounts: mounts } : {}) };
  const { resources: wanted, ...others } = made;
  const isOurs = isDeepStrictEqual(plain, others) && (procMount ?? 'Default') === 'Default' && hasResources(resources, wanted);
  return isOurs ? present : made;
};

/** Amounts, since the API server writes them in its own way. */
const hasResources = (present: JsonObject = {}, wanted: JsonObject = {}): boolean =>
  Object.entries(wanted).every(([part, amounts]) =>
    Object.entries(amounts as JsonObject).every(([resource, text]) => {
      const held = present[part];
      const found = isJsonObject(held) ? held[resource] : undefined;
      const amount = (value: unknown): number | undefined => amountOf(resource as Resource, String(value));
      return found !== undefined && amount(found) === amount(text);
    }),
  );
