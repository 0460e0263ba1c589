/** What a target speaks. auto: HTTP/1.1, and HTTP/2 for what needs it (gRPC) or when it is all the target speaks. */
export const targetProtocols = ['auto', 'http1', 'h2'] as const;
export type TargetProtocol = (typeof targetProtocols)[number];

export const tlsVersions = ['TLSv1.2', 'TLSv1.3'] as const;
export type TlsVersion = (typeof tlsVersions)[number];

/** A destination service, as the broker tells proxies of it. */
export interface Target {
  readonly name: string;
  /** Canonical host names or IP literals; exact. */
  readonly hosts: readonly string[];
  readonly ports: readonly number[];
  /** Whether a credential may travel in clear text. */
  readonly cleartextAllowed: boolean;
  /** PEM of the authorities its certificate must chain to; '' for the proxy's trust store. */
  readonly trustBundlePem: string;
  readonly protocol: TargetProtocol;
  readonly tlsVersionMin: TlsVersion;
}

export interface TargetSnapshot {
  readonly configurationVersion: string;
  readonly targets: readonly Target[];
}
