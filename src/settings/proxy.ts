/** What an operator writes for the proxy. */
import * as z from 'zod';
import { limits } from '../core/limits.ts';
import { dialAddress, host, isLoopback, type ListenAddress, listenAddress, port } from './address.ts';
import { integer, keys, list, oneOf } from './grammar.ts';
import { type IdentitySettings, identity, type PeerSettings, peer } from './identity.ts';
import { type LogLevel, log } from './logging.ts';
import { identityFiles, missingFiles, type NamedFile } from './missing-files.ts';
import { itemsAt, type Problem, repeated, sharedListeners, valueAt } from './reference.ts';
import { filePath } from './text.ts';

export interface ResolveEntry {
  readonly host: string;
  readonly port: number;
  /** Where this host and port are dialled instead of what DNS says; also permits that address. */
  readonly address: string;
  readonly addressPort: number;
}

export interface ProxySettings {
  readonly kind: 'proxy';
  readonly listen: ListenAddress;
  readonly admin: ListenAddress;
  readonly identity: IdentitySettings;
  readonly collector: PeerSettings;
  readonly interception: {
    /** Where the public bundle (system roots and the interception authority) is written for programs to trust. */
    readonly bundleFile: string;
  };
  readonly onUnmatched: 'tunnel' | 'refuse';
  /** required: a credential is used only when its intent has been queued. best_effort: loss is counted, requests go on. */
  readonly audit: 'required' | 'best_effort';
  readonly eventQueueMax: number;
  readonly upstream: {
    /** PEM files trusted for targets in addition to the system's roots. */
    readonly caFiles: readonly string[];
    readonly resolve: readonly ResolveEntry[];
    /** Whether unmatched traffic may go to private address ranges. */
    readonly unmatchedPrivateAddresses: 'allowed' | 'refused';
  };
  readonly log: { readonly level: LogLevel };
}

/** Room for a burst of requests at least; at about 600 B an event, some 60 MiB at most. */
const eventQueueFloor = 100;
const eventQueueCeiling = 100_000;

const loopbackAddress = listenAddress.superRefine(({ host, port }, context) => {
  if (isLoopback(host)) return;
  const message = `is not a loopback address: a proxy that others can reach must ask them for a password or a client certificate, and this version cannot, write 127.0.0.1:${port}`;
  context.addIssue({ code: 'custom', message });
});

const resolveEntry = keys({ host, port, address: dialAddress }, '{host: api.example.com, port: 443, address: 127.0.0.1:15443}').transform(
  ({ host, port, address }): ResolveEntry => ({ host, port, address: address.host, addressPort: address.port }),
);

const upstream = keys(
  {
    caFiles: list(filePath('/etc/outrider/targets-ca.pem'), { write: '[/etc/outrider/targets-ca.pem]' }).default([]),
    resolve: list(resolveEntry, { write: '[{host: api.example.com, port: 443, address: 127.0.0.1:15443}]' }).default([]),
    unmatchedPrivateAddresses: oneOf(['allowed', 'refused']).default('refused'),
  },
  'a mapping with caFiles, resolve or unmatchedPrivateAddresses',
).prefault({});

export const proxySchema = keys(
  {
    kind: z.literal('proxy'),
    listen: loopbackAddress,
    admin: listenAddress,
    identity,
    collector: peer,
    interception: keys({ bundleFile: filePath('/run/outrider/ca-bundle.pem') }, '{bundleFile: /run/outrider/ca-bundle.pem}'),
    onUnmatched: oneOf(['tunnel', 'refuse']).default('tunnel'),
    audit: oneOf(['required', 'best_effort']).default('required'),
    eventQueueMax: integer(eventQueueFloor, eventQueueCeiling).default(limits.eventQueueMax),
    upstream,
    log,
  },
  'a mapping',
).transform((written): ProxySettings => written);

export const proxyReferences = (document: unknown): Problem[] => {
  const entries = itemsAt(document, 'upstream', 'resolve').filter(({ value }) => typeof valueAt(value, 'host') === 'string');
  return [
    ...sharedListeners(document, [['listen'], ['admin']]),
    ...repeated(
      entries,
      ({ value }) => JSON.stringify([valueAt(value, 'host'), valueAt(value, 'port')]),
      ({ path }) => `is the host and port of upstream.resolve[${String(path.at(-1))}] again, remove one`,
    ),
  ];
};

const evidenceMayBeLost =
  'audit: best_effort: credentials are used even when their use cannot be recorded; write required unless availability matters more than evidence';

export const proxyWarnings = ({ audit, identity, upstream }: ProxySettings): readonly string[] => [
  ...(audit === 'best_effort' ? [evidenceMayBeLost] : []),
  ...missingFiles([...identityFiles(identity), ...upstream.caFiles.map((file, index): NamedFile => [`upstream.caFiles[${index}]`, file])]),
];
