/** What an operator writes for the injector. How the sidecar is written is in injector/sidecar.ts; how parts must fit, in injector/references.ts. */
import * as z from 'zod';
import { type ListenAddress, listenAddress } from './address.ts';
import { keys } from './grammar.ts';
import { cluster, type ClusterSettings } from './injector/cluster.ts';
import { serving, type ServingSettings } from './injector/serving.ts';
import { sidecar, type SidecarSettings } from './injector/sidecar.ts';
import { type LogLevel, log } from './logging.ts';
import { missingFiles } from './missing-files.ts';
import { objectName } from './text.ts';

export { memoryLimitMin } from './injector/references.ts';
export { type InjectionMode, injectionModes, type SidecarLogLevel, sidecarLogLevels } from './injector/sidecar.ts';
export type { SidecarResources } from './injector/sidecar.ts';
export type { ListenAddress, ServingSettings, SidecarSettings };

export interface InjectorSettings {
  readonly kind: 'injector';
  /** HTTPS: POST /mutate */
  readonly listen: ListenAddress;
  readonly admin: ListenAddress;
  readonly cluster: ClusterSettings;
  /** Where it runs itself, and where its Secret and the ConfigMap with the trust domain's authorities are. */
  readonly namespace: string;
  readonly serving: ServingSettings;
  /** The ConfigMap, key `ca.pem`, that the brokers keep current, copied to where injected pods are. */
  readonly trust: { readonly configMap: string };
  /** The MutatingWebhookConfiguration that leads here: owner of the copies. */
  readonly webhookConfiguration: string;
  readonly sidecar: SidecarSettings;
  readonly log: { readonly level: LogLevel };
}

export const injectorSchema = keys(
  {
    kind: z.literal('injector'),
    listen: listenAddress,
    admin: listenAddress,
    cluster,
    namespace: objectName({ what: 'the name of a namespace', write: 'the one that the injector runs in, such as outrider' }),
    serving,
    trust: keys(
      {
        configMap: objectName({ what: 'the name of a ConfigMap', write: 'the one that the brokers keep current, such as outrider-trust' }),
      },
      '{configMap: outrider-trust}',
    ),
    webhookConfiguration: objectName({
      what: 'the name of a MutatingWebhookConfiguration',
      write: 'the one that leads here, such as outrider-injector',
    }),
    sidecar,
    log,
  },
  'a mapping',
).transform((written): InjectorSettings => written);

export const injectorWarnings = ({ cluster, serving, sidecar }: InjectorSettings): readonly string[] => [
  ...(sidecar.audit === 'best_effort' ? [evidenceMayBeLost] : []),
  ...(sidecar.uid === 'platform' ? [sharedUser] : []),
  ...missingFiles([
    ['cluster.caFile', cluster.caFile],
    ['cluster.tokenFile', cluster.tokenFile],
    ...(serving.kind === 'files'
      ? [['serving.files.certFile', serving.certFile] as const, ['serving.files.keyFile', serving.keyFile] as const]
      : []),
  ]),
];

const evidenceMayBeLost =
  'sidecar.audit: best_effort: credentials are used even when their use cannot be recorded; write required unless availability matters more than evidence';

const sharedUser =
  'sidecar.uid: platform: the platform may run programs and proxy as one user, and then only their containers keep them apart; write a number where the platform lets you';
