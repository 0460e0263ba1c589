/** The injector's bounds, part of limits.ts. Durations in milliseconds, sizes in bytes. */
export const injectorLimits = {
  /** The webhook's authority: as long as a trust domain's. A successor signs a day after it was put into the webhook's configuration. */
  webhookAuthorityLifetimeMs: 365 * 24 * 3_600_000,
  webhookAuthorityAnnouncementMs: 24 * 3_600_000,
  /** The webhook's certificate; renewed when a third of it is left, so that ten days without an API server do no harm. */
  webhookCertificateLifetimeMs: 30 * 24 * 3_600_000,
  /** How often a replica looks whether certificate and webhook configuration are as they should be. */
  webhookPollMs: 10_000,
  /** How often namespaces and pods are counted: what a new namespace waits for its trust at most, were admission not to bring it. */
  censusPollMs: 30_000,
  /** Namespaces with rows of their own in a metric: with three states each, below what one metric may have of label sets. */
  namespaceLabelValuesMax: 1_000,
  /** An AdmissionReview: an object of at most 3 MiB, as the API server takes them, and what is around it. */
  webhookBodyBytesMax: 4 * 1024 * 1024,
  /** Connections of API servers; each keeps a few. */
  webhookConnectionsMax: 256,
  /** How long a pod's admission waits for the trust domain's authorities to be in its namespace: below the webhook's own 5 s. */
  trustEnsureTimeoutMs: 2_000,
  /** Kubernetes Events waiting to be sent; they are remarks, and more are dropped. */
  remarksMax: 100,
} as const;
