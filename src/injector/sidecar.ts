/**
 * The containers and volumes that are put into a pod: the proxy as a native sidecar, first of all init containers, and in transparent mode the
 * container that lays the steering rules. Pure. What the API server would fill in is written out, so that ours are the same when they come
 * back from it.
 *
 * No readiness probe: a pod that serves must not be taken out of its Service because a broker is away; who needs a credential hears why.
 * No preStop: Kubernetes ends native sidecars after the containers, so there is nothing to wait for.
 */
import { amountOf, type Resource } from '../core/quantity.ts';
import { trustEntry, trustConfigMap } from './trust.ts';
import type { SidecarResources, SidecarSettings } from '../settings/injector.ts';
import type { Choices } from './annotations.ts';
import { bundleFile, containers, paths, ports, trustStoreFile, volumes } from './names.ts';
import type { Container, Volume, VolumeMount } from './pod.ts';

/** The variable that the proxy reads its configuration from, and removes. Set at creation, it cannot be changed after. */
const configurationVariable = 'OUTRIDER_CONFIG';

/** How long the proxy may take until programs start: attestation and targets need a broker. Past it, it is started again. */
const startupSeconds = 300;

const probe = (path: string, periodSeconds: number, failureThreshold: number) => ({
  httpGet: { path, port: ports.admin, scheme: 'HTTP' },
  timeoutSeconds: 5,
  periodSeconds,
  successThreshold: 1,
  failureThreshold,
});

const termination = { terminationMessagePath: '/dev/termination-log', terminationMessagePolicy: 'FallbackToLogsOnError' } as const;

const mount = (name: string, mountPath: string, readOnly: boolean): VolumeMount => ({ name, mountPath, ...(readOnly ? { readOnly } : {}) });

/** What program containers get to see: certificates. */
export const publicMount: VolumeMount = mount(volumes.public, paths.public, true);

export const proxyContainer = (settings: SidecarSettings, choices: Choices): Container => {
  const { requests, limits } = choices.resources;
  return {
    name: containers.proxy,
    image: settings.image,
    imagePullPolicy: settings.imagePullPolicy,
    args: ['proxy', '--config-env', configurationVariable],
    restartPolicy: 'Always',
    env: [{ name: configurationVariable, value: proxyConfiguration(settings, choices) }],
    ports: [{ name: 'outrider-admin', containerPort: ports.admin, protocol: 'TCP' }],
    startupProbe: probe('/readyz', 1, startupSeconds),
    livenessProbe: probe('/livez', 10, 6),
    resources: {
      requests: { cpu: requests.cpu, memory: requests.memory },
      limits: { ...cpuLimitOf(limits), memory: limits.memory },
    },
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      ...(settings.uid === 'platform' ? {} : { runAsUser: settings.uid, runAsGroup: settings.uid }),
      seccompProfile: { type: 'RuntimeDefault' },
    },
    ...termination,
    volumeMounts: [
      mount(volumes.token, paths.token, true),
      mount(volumes.trust, paths.trust, true),
      mount(volumes.public, paths.public, false),
      mount(volumes.private, paths.private, false),
      mount(volumes.log, paths.log, false),
    ],
  };
};

/** Transparent mode alone: the only container with a capability, for a moment. Its image's entrypoint is `outrider steer`. */
export const steerContainer = (settings: SidecarSettings, { excludePorts, excludeRanges, resources }: Choices): Container => ({
  name: containers.steer,
  image: settings.steerImage ?? settings.image,
  imagePullPolicy: settings.imagePullPolicy,
  args: [
    'install',
    '--to',
    String(ports.transparent),
    '--except-uid',
    String(settings.uid),
    ...(excludePorts.length === 0 ? [] : ['--except-port', excludePorts.join(',')]),
    ...(excludeRanges.length === 0 ? [] : ['--except-range', excludeRanges.join(',')]),
  ],
  resources: steerResources(resources),
  securityContext: {
    allowPrivilegeEscalation: false,
    capabilities: { add: ['NET_ADMIN'], drop: ['ALL'] },
    readOnlyRootFilesystem: true,
    runAsGroup: 0,
    runAsNonRoot: false,
    runAsUser: 0,
    seccompProfile: { type: 'RuntimeDefault' },
  },
  ...termination,
});

/**
 * The proxy's where it has less: a namespace whose quota or limits take the proxy takes this one. A limit of CPU is written where the proxy has
 * one, which a quota for such limits wants of every container.
 */
const steerResources = ({ requests, limits }: SidecarResources) => ({
  requests: { cpu: lesser('cpu', '20m', requests.cpu), memory: lesser('memory', '64Mi', requests.memory) },
  limits: { ...cpuLimitOf(limits), memory: lesser('memory', '128Mi', limits.memory) },
});

const cpuLimitOf = ({ cpu }: SidecarResources['limits']): { readonly cpu?: string } => (cpu === undefined ? {} : { cpu });

const lesser = (resource: Resource, one: string, other: string): string =>
  (amountOf(resource, one) as number) <= (amountOf(resource, other) as number) ? one : other;

/** The sidecar's alone, but for the public one. */
export const sidecarVolumes = ({ tokenAudience, tokenLifetimeMs }: SidecarSettings): readonly Volume[] => [
  {
    name: volumes.token,
    projected: {
      // The kubelet makes token files 0600 for a user that all containers share, 0640 for the pod's fsGroup where there is one, and else
      // as it is written here: so the proxy's own user can read it, and nobody else has it mounted.
      defaultMode: 0o644,
      sources: [{ serviceAccountToken: { audience: tokenAudience, expirationSeconds: tokenLifetimeMs / 1_000, path: 'token' } }],
    },
  },
  {
    name: volumes.trust,
    configMap: { name: trustConfigMap, items: [{ key: trustEntry, path: 'ca.pem' }], defaultMode: 0o644 },
  },
  { name: volumes.public, emptyDir: { medium: 'Memory', sizeLimit: '16Mi' } },
  { name: volumes.private, emptyDir: { medium: 'Memory', sizeLimit: '16Mi' } },
  { name: volumes.log, emptyDir: { sizeLimit: '64Mi' } },
];

/** JSON, which is YAML. No "$(" can be in it, which Kubernetes would read: every text of it has been matched against a grammar without. */
export const proxyConfiguration = (settings: SidecarSettings, { mode, routes, logLevel }: Choices): string =>
  JSON.stringify({
    kind: 'proxy',
    listen: `127.0.0.1:${ports.proxy}`,
    ...(mode === 'transparent' ? { transparent: { port: ports.transparent } } : {}),
    ...(mode === 'routes' ? { routes: routes.map(({ port, to }) => ({ listen: `127.0.0.1:${port}`, to })) } : {}),
    admin: `${settings.ipFamily === 'IPv6' ? '[::]' : '0.0.0.0'}:${ports.admin}`,
    identity: { broker: settings.broker, brokerCaFile: `${paths.trust}/ca.pem`, tokenFile: `${paths.token}/token` },
    collector: settings.collector,
    interception: { bundleFile, trustStoreFile, stateFile: `${paths.private}/authority.pem` },
    onUnmatched: settings.onUnmatched,
    audit: settings.audit,
    ...(settings.unmatchedPrivateAddresses === undefined
      ? {}
      : { upstream: { unmatchedPrivateAddresses: settings.unmatchedPrivateAddresses } }),
    log: { level: logLevel },
  });
