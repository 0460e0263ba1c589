/**
 * Why a pod cannot be injected: what the sidecar could not work in, and what would take its protection away (THREATS D-2, P-3). All reasons
 * at once, a sentence each that says what to do. Pure. A user that is only in an image is not seen here.
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { isDnsLabel, isDnsSubdomain } from '../core/object-name.ts';
import type { SidecarSettings } from '../settings/injector.ts';
import type { Choices } from './annotations.ts';
import { containers as names, isTaken, labels, notesAnnotation, ownPrefix, paths, volumes as ownVolumes } from './names.ts';
import { type Container, containersOf, type Pod } from './pod.ts';

/** `pod` without our containers. */
export const refusalsOf = (pod: Pod, settings: SidecarSettings, { mode, routes }: Choices): readonly string[] => {
  const { spec } = pod;
  const when = (isSo: boolean, sentence: string): string[] => (isSo ? [sentence] : []);
  return [
    ...when(
      spec['hostNetwork'] === true,
      'hostNetwork: the pod has no network of its own for the proxy; label it outrider.dev/inject: disabled to let it go without',
    ),
    ...when(spec['hostPID'] === true, "hostPID: programs could read the proxy's memory through /proc"),
    ...when(
      spec['shareProcessNamespace'] === true,
      "shareProcessNamespace: programs could read the proxy's memory through /proc, remove it",
    ),
    // The API server checks names after us, and ours go into remarks and reasons.
    ...when(
      pod.metadata.name !== undefined && pod.metadata.name !== '' && !isDnsSubdomain(pod.metadata.name),
      "the pod's name is no DNS subdomain",
    ),
    ...containersOf(pod).flatMap(({ name }, i) => when(!isDnsLabel(name), `container ${i + 1}: its name is no DNS label`)),
    ...when(isForWindows(pod), 'Windows: the proxy is made for Linux; label the pod outrider.dev/inject: disabled'),
    ...when(
      pod.metadata.annotations?.[notesAnnotation] !== undefined && pod.metadata.labels?.[labels.injected] === undefined,
      `${notesAnnotation} is written by the injector, remove it`,
    ),
    ...containersOf(pod)
      .filter(({ name }) => isDnsLabel(name))
      .flatMap((container) =>
        containerRefusals(
          container,
          pod,
          settings,
          (mode === 'routes' ? routes : []).map(({ port }) => port),
          mode === 'transparent',
        ),
      ),
    ...(spec.volumes ?? [])
      .filter((volume) => projectsOurToken(volume, settings) && !isSelfTest(pod, settings))
      .map(({ name }) => `volume ${name}: a token for the audience ${settings.tokenAudience} is for the proxy alone, remove it`),
  ];
};

/** Its account is granted nothing but the self-test's target, and whoever makes pods in that namespace is the operator. */
const isSelfTest = ({ metadata, spec }: Pod, { selfTest }: SidecarSettings): boolean =>
  selfTest !== undefined && metadata['namespace'] === selfTest.namespace && spec['serviceAccountName'] === selfTest.serviceAccount;

/** The second label is the older name of the first, which nodes still have. */
const osLabels = ['kubernetes.io/os', 'beta.kubernetes.io/os'] as const;

/** Said outright, or by what nothing but a Windows node has. What may run on Linux, too, is injected. */
const isForWindows = (pod: Pod): boolean => {
  const { os, nodeSelector, affinity } = pod.spec;
  if (os?.['name'] === 'windows' || osLabels.some((label) => nodeSelector?.[label] === 'windows')) return true;
  const required = memberOf(memberOf(affinity, 'nodeAffinity'), 'requiredDuringSchedulingIgnoredDuringExecution');
  const terms = listIn(required, 'nodeSelectorTerms');
  // One of the terms is enough for a node.
  if (terms.length > 0 && terms.every((term) => listIn(term, 'matchExpressions').some(leavesWindowsOnly))) return true;
  const isLinux = osLabels.some((label) => nodeSelector?.[label] === 'linux');
  return !isLinux && [pod.spec, ...containersOf(pod)].some(({ securityContext }) => hasMembers(securityContext?.['windowsOptions']));
};

const leavesWindowsOnly = (expression: unknown): boolean => {
  const key = memberOf(expression, 'key');
  if (!osLabels.some((label) => label === key)) return false;
  const values = listIn(expression, 'values');
  const operator = memberOf(expression, 'operator');
  if (operator === 'In') return values.length > 0 && values.every((value) => value === 'windows');
  return operator === 'NotIn' && values.includes('linux');
};

const memberOf = (value: unknown, name: string): unknown => (isJsonObject(value) ? value[name] : undefined);
const listIn = (value: unknown, name: string): readonly unknown[] => {
  const list = memberOf(value, name);
  return Array.isArray(list) ? (list as readonly unknown[]) : [];
};
const hasMembers = (value: unknown): boolean => isJsonObject(value) && Object.keys(value).length > 0;

const containerRefusals = (
  container: Container,
  pod: Pod,
  settings: SidecarSettings,
  routePorts: readonly number[],
  isSteered: boolean,
): string[] => {
  const reasons = [
    ...((Object.values(names) as readonly string[]).includes(container.name) ? ['the name is reserved for the proxy'] : []),
    ...(isSameUser(container, pod, settings) ? [`runs as user ${settings.uid}, which is the proxy's: choose another runAsUser`] : []),
    ...(isSteered && mayChangeRules(container)
      ? ['may change steering rules (privileged or NET_ADMIN): use mode explicit, or take that away']
      : []),
    ...(container.ports ?? [])
      .map((port) => port['containerPort'])
      .filter((port) => isTaken(port) || (routePorts as readonly unknown[]).includes(port))
      .map((port) => `port ${String(port)} is the proxy's: choose another`),
    ...(container.volumeMounts ?? []).flatMap(({ name, mountPath, readOnly, ...rest }) => {
      const isPublic =
        name === ownVolumes.public && mountPath === paths.public && readOnly === true && Object.keys(rest).every(isDefaulted);
      return name.startsWith(ownPrefix) && !isPublic ? [`mounts ${name}: volumes that begin with ${ownPrefix} are the proxy's`] : [];
    }),
    ...(container.volumeMounts ?? [])
      .filter(({ name, mountPath }) => !name.startsWith(ownPrefix) && isBelow(mountPath, paths.public))
      .map(({ mountPath }) => `mounts something at ${mountPath}, where the proxy's certificates are`),
  ];
  return reasons.map((reason) => `container ${container.name}: ${reason}`);
};

/** What the API server writes into a mount by itself. */
const isDefaulted = (name: string): boolean => name === 'recursiveReadOnly';

const isBelow = (path: string, directory: string): boolean => {
  const plain = path.replace(/\/+/g, '/').replace(/\/$/, '');
  return plain === directory || plain.startsWith(`${directory}/`);
};

const isSameUser = ({ securityContext }: Container, { spec }: Pod, { uid }: SidecarSettings): boolean =>
  (securityContext?.['runAsUser'] ?? spec.securityContext?.['runAsUser']) === uid;

const mayChangeRules = ({ securityContext = {} }: Container): boolean => {
  const { privileged, capabilities } = securityContext;
  const added = isJsonObject(capabilities) && Array.isArray(capabilities['add']) ? capabilities['add'] : [];
  const strong = new Set(['ALL', 'NET_ADMIN', 'SYS_ADMIN']);
  return (
    privileged === true || added.some((name: unknown) => typeof name === 'string' && strong.has(name.toUpperCase().replace(/^CAP_/, '')))
  );
};

/** Whoever holds such a token can be the workload without the proxy. */
const projectsOurToken = (volume: JsonObject, { tokenAudience }: SidecarSettings): boolean => {
  if (volume['name'] === ownVolumes.token) return false;
  const sources = isJsonObject(volume['projected']) ? volume['projected']['sources'] : undefined;
  return (Array.isArray(sources) ? sources : []).some((source: unknown) => {
    const token = isJsonObject(source) ? source['serviceAccountToken'] : undefined;
    return isJsonObject(token) && token['audience'] === tokenAudience;
  });
};
