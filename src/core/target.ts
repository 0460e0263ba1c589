/** What a target speaks. auto: HTTP/1.1, and HTTP/2 for what needs it (gRPC) or when it is all the target speaks. */
export const targetProtocols = ['auto', 'http1', 'h2'] as const;
export type TargetProtocol = (typeof targetProtocols)[number];

export const tlsVersions = ['TLSv1.2', 'TLSv1.3'] as const;
export type TlsVersion = (typeof tlsVersions)[number];

/** What happens when an answer repeats the credential that its request carried. */
export const echoTreatments = ['redact', 'refuse', 'pass'] as const;
export type EchoTreatment = (typeof echoTreatments)[number];

/**
 * How a path is read. canonical: one spelling, ambiguous ones refused. verbatim: sent as it came, for stores whose keys are any bytes
 * (S3); a path with a second reading is then covered only by rules for every path, and by every denial.
 */
export const pathReadings = ['canonical', 'verbatim'] as const;
export type PathReading = (typeof pathReadings)[number];

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
  readonly echo: EchoTreatment;
  readonly paths: PathReading;
  /** What the program must write where the credential goes; '' when it need not write anything. Never leaves the pod. */
  readonly placeholder: string;
}

export interface TargetSnapshot {
  readonly configurationVersion: string;
  readonly targets: readonly Target[];
}
