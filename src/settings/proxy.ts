/** What an operator writes for the proxy. */
import { dirname } from 'node:path';
import * as z from 'zod';
import type { Destination, Scheme } from '../core/destination.ts';
import { limits } from '../core/limits.ts';
import { dialAddress, host, isLoopback, type ListenAddress, listenAddress, loopbackAddress, port } from './address.ts';
import { integer, keys, list, oneOf } from './grammar.ts';
import { type IdentitySettings, identity, type PeerSettings, peer } from './identity.ts';
import { type LogLevel, log } from './logging.ts';
import { identityFiles, missingFiles, type NamedFile } from './missing-files.ts';
import { route } from './proxy/route.ts';
import { upstreamProxy } from './proxy/upstream-proxy.ts';
import type { Path } from './path.ts';
import { type Entry, itemsAt, type Problem, repeated, sharedListeners, valueAt } from './reference.ts';
import { filePath } from './text.ts';

export interface ResolveEntry {
  readonly host: string;
  readonly port: number;
  /** Where this host and port are dialled instead of what DNS says; also permits that address. */
  readonly address: string;
  readonly addressPort: number;
}

/** A port of this machine for programs that can be told neither of a proxy nor be steered: it stands for one destination. */
export interface RouteSettings {
  readonly listen: ListenAddress;
  readonly to: Destination;
}

/** The proxy that connections to targets go through (a company's way out). The environment is not read for it. */
export interface UpstreamProxySettings {
  readonly scheme: Scheme;
  readonly host: string;
  readonly port: number;
  /** Holds `user:password`. Re-read on use. */
  readonly credentialsFile: string | undefined;
  /** What is dialled directly, each as curl reads an item of NO_PROXY. */
  readonly noProxy: readonly string[];
}

export interface ProxySettings {
  readonly kind: 'proxy';
  readonly listen: ListenAddress;
  /** Where steering rules send connections: on 127.0.0.1 and ::1. */
  readonly transparent: { readonly port: number } | undefined;
  readonly routes: readonly RouteSettings[];
  readonly admin: ListenAddress;
  readonly identity: IdentitySettings;
  readonly collector: PeerSettings;
  readonly interception: {
    /** Where the public bundle (system roots and the interception authority) is written for programs to trust. */
    readonly bundleFile: string;
    /** The same as a PKCS #12 file, which a JVM reads in place of its own roots. */
    readonly trustStoreFile: string | undefined;
    /** Where the authority with its key outlives a restart of the proxy: memory-backed, the proxy's alone. */
    readonly stateFile: string | undefined;
    /**
     * What the authority may be used for besides the hosts that targets name: a target that comes later under one of these domains is
     * trusted by programs that are running.
     */
    readonly domains: readonly string[];
  };
  readonly onUnmatched: 'tunnel' | 'refuse';
  /** required: a credential is used only when its intent has been queued. best_effort: loss is counted, requests go on. */
  readonly audit: 'required' | 'best_effort';
  readonly eventQueueMax: number;
  readonly upstream: {
    /** PEM files trusted for targets in addition to the system's roots. */
    readonly caFiles: readonly string[];
    readonly resolve: readonly ResolveEntry[];
    /**
     * Whether unmatched traffic may go to private address ranges. Unless written: allowed with steered connections, which are most of a
     * pod's to its cluster and went there by themselves, else refused.
     */
    readonly unmatchedPrivateAddresses: 'allowed' | 'refused';
    readonly proxy: UpstreamProxySettings | undefined;
  };
  readonly log: { readonly level: LogLevel };
}

/** Room for a burst of requests at least; at about 600 B an event, some 60 MiB at most. */
const eventQueueFloor = 100;
const eventQueueCeiling = 100_000;

const resolveEntry = keys({ host, port, address: dialAddress }, '{host: api.example.com, port: 443, address: 127.0.0.1:15443}').transform(
  ({ host, port, address }): ResolveEntry => ({ host, port, address: address.host, addressPort: address.port }),
);

const upstream = keys(
  {
    caFiles: list(filePath('/etc/outrider/targets-ca.pem'), { write: '[/etc/outrider/targets-ca.pem]' }).default([]),
    resolve: list(resolveEntry, { write: '[{host: api.example.com, port: 443, address: 127.0.0.1:15443}]' }).default([]),
    unmatchedPrivateAddresses: oneOf(['allowed', 'refused']).optional(),
    proxy: upstreamProxy.optional(),
  },
  'a mapping with caFiles, resolve, unmatchedPrivateAddresses or proxy',
)
  .transform(({ proxy, unmatchedPrivateAddresses, ...written }) => ({ ...written, unmatchedPrivateAddresses, proxy }))
  .prefault({});

const interception = keys(
  {
    bundleFile: filePath('/run/outrider/public/ca-bundle.pem'),
    trustStoreFile: filePath('/run/outrider/public/trust-store.p12').optional(),
    stateFile: filePath('/run/outrider/private/authority.pem').optional(),
    domains: list(host, { write: '[internal.example]' }).default([]),
  },
  '{bundleFile: /run/outrider/public/ca-bundle.pem}',
).transform(({ trustStoreFile, stateFile, ...written }): ProxySettings['interception'] => ({ ...written, trustStoreFile, stateFile }));

export const proxySchema = keys(
  {
    kind: z.literal('proxy'),
    listen: loopbackAddress,
    transparent: keys({ port }, '{port: 15008}').optional(),
    routes: list(route, { write: '[{listen: "127.0.0.1:8081", to: "https://api.example.com"}]' }).default([]),
    admin: listenAddress,
    identity,
    collector: peer,
    interception,
    onUnmatched: oneOf(['tunnel', 'refuse']).default('tunnel'),
    audit: oneOf(['required', 'best_effort']).default('required'),
    eventQueueMax: integer(eventQueueFloor, eventQueueCeiling).default(limits.eventQueueMax),
    upstream,
    log,
  },
  'a mapping',
).transform(({ transparent, upstream: way, ...written }): ProxySettings => {
  const unmatchedPrivateAddresses = way.unmatchedPrivateAddresses ?? (transparent ? 'allowed' : 'refused');
  return { ...written, transparent, upstream: { ...way, unmatchedPrivateAddresses } };
});

const listenersIn = (document: unknown): Path[] => [
  ['listen'],
  ['admin'],
  ['transparent', 'port'],
  ...itemsAt(document, 'routes').map(({ path }) => [...path, 'listen']),
];

const files = ['bundleFile', 'trustStoreFile', 'stateFile'];

/** The public files and the private one, of which each would end the other. */
const writtenTwice = (document: unknown): Problem[] =>
  repeated(
    files
      .map((name): Entry => ({ path: ['interception', name], value: valueAt(document, 'interception', name) }))
      .filter(({ value }) => typeof value === 'string'),
    ({ value }) => String(value),
    ({ path }) => `is the file of ${path.join('.')} too, write another`,
  );

/** As in curl, "*" beside others is an item that no host equals. */
const notAlone = (document: unknown): Problem[] => {
  const items = itemsAt(document, 'upstream', 'proxy', 'noProxy');
  const message = 'leaves the proxy out for everything, write it alone, or without it';
  return items.length < 2 ? [] : items.filter(({ value }) => value === '*').map(({ path }) => ({ path, at: 'value', message }));
};

export const proxyReferences = (document: unknown): Problem[] => {
  const entries = itemsAt(document, 'upstream', 'resolve').filter(({ value }) => typeof valueAt(value, 'host') === 'string');
  return [
    ...sharedListeners(document, listenersIn(document)),
    ...writtenTwice(document),
    ...notAlone(document),
    ...repeated(
      entries,
      ({ value }) => JSON.stringify([valueAt(value, 'host'), valueAt(value, 'port')]),
      ({ path }) => `is the host and port of upstream.resolve[${String(path.at(-1))}] again, remove one`,
    ),
  ];
};

const evidenceMayBeLost =
  'audit: best_effort: credentials are used even when their use cannot be recorded; write required unless availability matters more than evidence';

export const proxyWarnings = ({ audit, identity, interception, upstream }: ProxySettings): readonly string[] => [
  ...(audit === 'best_effort' ? [evidenceMayBeLost] : []),
  ...(sharesDirectory(interception) ? [keyBesideBundle] : []),
  ...(showsPassword(upstream.proxy) ? [passwordInClear] : []),
  ...missingFiles([
    ...identityFiles(identity),
    ...upstream.caFiles.map((file, index): NamedFile => [`upstream.caFiles[${index}]`, file]),
    ['upstream.proxy.credentialsFile', upstream.proxy?.credentialsFile],
  ]),
];

const keyBesideBundle =
  "interception.stateFile: holds the authority's private key, and is in the directory of a file that programs read; write it to a volume of the proxy's alone";

const sharesDirectory = ({ bundleFile, trustStoreFile, stateFile }: ProxySettings['interception']): boolean =>
  stateFile !== undefined && [bundleFile, trustStoreFile].some((file) => file !== undefined && dirname(file) === dirname(stateFile));

const passwordInClear = 'upstream.proxy: its user and password cross the network in clear text; write https:// when the proxy speaks it';

const showsPassword = (proxy: UpstreamProxySettings | undefined): boolean =>
  proxy?.scheme === 'http' && proxy.credentialsFile !== undefined && !isLoopback(proxy.host);
