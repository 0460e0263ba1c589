/** What an operator writes for the proxy. */
export interface PeerSettings {
  /** host:port of a gRPC server. */
  readonly address: string;
  /** The SPIFFE ID its certificate must have; checked instead of the host name. */
  readonly spiffeId: string;
}

export interface IdentitySettings {
  readonly broker: PeerSettings;
  /** PEM of the trust domain's authorities, to recognise the broker by before the first attestation. Re-read on use. */
  readonly brokerCaFile: string;
  /** The projected service-account token. Re-read on use. */
  readonly tokenFile: string;
}

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

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';
