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
}

export interface TargetSnapshot {
  readonly configurationVersion: string;
  readonly targets: readonly Target[];
}
