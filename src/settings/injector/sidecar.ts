/** How an operator writes what is put into pods. Only this decides it; a pod's annotations choose within what is allowed here. */
import * as z from 'zod';
import { host } from '../address.ts';
import { duration } from '../duration.ts';
import { keys, list, oneOf, scalar } from '../grammar.ts';
import { type PeerSettings, peer } from '../identity.ts';
import { quantity } from '../quantity.ts';
import { objectName, printable } from '../text.ts';

/** explicit: programs are told of the proxy. transparent: their connections are steered to it. routes: local ports stand for targets. */
export const injectionModes = ['explicit', 'transparent', 'routes'] as const;
export type InjectionMode = (typeof injectionModes)[number];

/** A program could make its sidecar write a lot; none could silence it. */
export const sidecarLogLevels = ['debug', 'info', 'warn', 'error'] as const;
export type SidecarLogLevel = (typeof sidecarLogLevels)[number];

/** Quantities, as Kubernetes writes them. */
export interface SidecarResources {
  readonly requests: { readonly cpu: string; readonly memory: string };
  readonly limits: { readonly cpu: string | undefined; readonly memory: string };
}

export interface SidecarSettings {
  /** Of the proxy. */
  readonly image: string;
  /** Of the init container that lays the rules of transparent mode. */
  readonly steerImage: string | undefined;
  readonly imagePullPolicy: 'Always' | 'IfNotPresent' | 'Never';
  readonly broker: PeerSettings;
  readonly collector: PeerSettings;
  /** Of the pod's token for the broker. */
  readonly tokenAudience: string;
  readonly tokenLifetimeMs: number;
  /** The proxy's user; `platform`: whichever the platform gives it (OpenShift). */
  readonly uid: number | 'platform';
  readonly clusterDomain: string;
  /** Of the addresses that pods have: where the kubelet and Prometheus come from. IPv6 takes connections of both. */
  readonly ipFamily: 'IPv4' | 'IPv6';
  /** Whether programs reach names of the cluster (.svc and the cluster's domain) without the proxy. proxied where such names are targets. */
  readonly clusterNames: 'direct' | 'proxied';
  /** Added to NO_PROXY. */
  readonly noProxy: readonly string[];
  readonly resources: SidecarResources;
  /** The most that annotations may ask for. */
  readonly resourcesMax: { readonly cpu: string; readonly memory: string };
  /** Those that pods may ask for; the first of `injectionModes` that is allowed is the default. */
  readonly modes: readonly InjectionMode[];
  readonly onUnmatched: 'tunnel' | 'refuse';
  readonly audit: 'required' | 'best_effort';
  readonly logLevel: SidecarLogLevel;
  /** Undefined: as the proxy decides by mode. */
  readonly unmatchedPrivateAddresses: 'allowed' | 'refused' | undefined;
  /**
   * Whether annotations may take ports and ranges from the steering of transparent mode: what is not steered, the proxy cannot refuse. Unless
   * written, refused where it refuses anything that is no target.
   */
  readonly exclusions: 'allowed' | 'refused';
  /** The one account whose program may hold a token for the broker beside its proxy: the chart's self-test asks the collector itself. */
  readonly selfTest: { readonly namespace: string; readonly serviceAccount: string } | undefined;
}

/** A reference of an image: no blanks, and nothing that a shell or YAML would read otherwise. */
const image = scalar({ what: 'the name of an image', write: 'for example registry.example/outrider:1.0' }, (text) =>
  text.length <= 512 && /^[a-zA-Z0-9][a-zA-Z0-9._\-/:@]*$/.test(text) ? text : undefined,
);

/** Kubernetes takes no larger one in `runAsUser`; 0 is root, which could read everything in the pod. */
const uidMax = 2_147_483_647;
const uidError = `must be platform or a whole number from 1 to ${uidMax}, write for example 15001`;
const uid = z.union([z.int({ error: uidError }).min(1, { error: uidError }).max(uidMax, { error: uidError }), z.literal('platform')], {
  error: uidError,
});

const exception = scalar(
  {
    what: 'what is reached without a proxy',
    write: 'a name for all below it, an address or a range, such as .internal.example or 10.0.0.0/8',
  },
  (text) => (text.length <= 253 && /^[a-zA-Z0-9.:_\-/[\]]+$/.test(text) ? text : undefined),
);

const minute = 60_000;

export const sidecar = keys(
  {
    image,
    steerImage: image.optional(),
    imagePullPolicy: oneOf(['Always', 'IfNotPresent', 'Never']).default('IfNotPresent'),
    broker: peer,
    collector: peer,
    tokenAudience: printable({ what: 'an audience', write: 'one line, such as outrider' }).default('outrider'),
    // The API server makes no token for less than 10 min.
    tokenLifetime: duration({ minMs: 10 * minute, maxMs: 60 * minute, write: '10m' }).default(10 * minute),
    uid: uid.default(15_001),
    clusterDomain: host.default('cluster.local'),
    ipFamily: oneOf(['IPv4', 'IPv6']).default('IPv4'),
    clusterNames: oneOf(['direct', 'proxied']).default('direct'),
    noProxy: list(exception, { write: '[10.96.0.0/12]' }).default([]),
    resources: keys(
      {
        requests: keys({ cpu: quantity('cpu'), memory: quantity('memory') }, '{cpu: 50m, memory: 112Mi}'),
        limits: keys({ cpu: quantity('cpu').optional(), memory: quantity('memory') }, '{memory: 384Mi}'),
      },
      '{requests: {cpu: 50m, memory: 112Mi}, limits: {memory: 384Mi}}',
    ).prefault({ requests: { cpu: '50m', memory: '112Mi' }, limits: { memory: '384Mi' } }),
    resourcesMax: keys({ cpu: quantity('cpu'), memory: quantity('memory') }, '{cpu: 2, memory: 1Gi}').prefault({
      cpu: '2',
      memory: '1Gi',
    }),
    modes: list(oneOf(injectionModes), { write: '[explicit, transparent, routes]', min: 1 }).default(['explicit', 'routes']),
    onUnmatched: oneOf(['tunnel', 'refuse']).default('tunnel'),
    audit: oneOf(['required', 'best_effort']).default('required'),
    logLevel: oneOf(sidecarLogLevels).default('info'),
    unmatchedPrivateAddresses: oneOf(['allowed', 'refused']).optional(),
    exclusions: oneOf(['allowed', 'refused']).optional(),
    selfTest: keys(
      {
        namespace: objectName({ what: 'the name of a namespace', write: 'the one that the self-test runs in, such as outrider' }),
        serviceAccount: objectName({ what: 'the name of a service account', write: "the self-test's, such as outrider-self-test" }),
      },
      '{namespace: outrider, serviceAccount: outrider-self-test}',
    ).optional(),
  },
  'a mapping with image, broker and collector',
).transform(({ tokenLifetime, steerImage, resources, unmatchedPrivateAddresses, exclusions, selfTest, ...written }): SidecarSettings => {
  const { requests, limits } = resources;
  const refusesSome = written.onUnmatched === 'refuse' || unmatchedPrivateAddresses === 'refused';
  return {
    ...written,
    steerImage,
    tokenLifetimeMs: tokenLifetime,
    resources: { requests, limits: { cpu: limits.cpu, memory: limits.memory } },
    unmatchedPrivateAddresses,
    exclusions: exclusions ?? (refusesSome ? 'refused' : 'allowed'),
    selfTest,
  };
});
