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
  /** A usual review has some 20 KiB. As many as there may be connections take 16 MiB. */
  webhookShortBodyBytesMax: 64 * 1024,
  /**
   * All longer ones that are read or answered at a time: anyone who reaches the port may send them, and one that is answered takes ten times
   * its bytes of the 256 MiB that the chart gives. Four of the longest; while memory is short, one.
   */
  webhookLongBodiesBytesMax: 16 * 1024 * 1024,
  /** Resident memory (ops/pressure.ts): an injector at rest has some 80 MiB. What is read and thrown away is collected late by itself. */
  webhookMemoryCollectBytes: 128 * 1024 * 1024,
  webhookMemoryCollectSoonBytes: 144 * 1024 * 1024,
  webhookMemoryCollectGrowthBytes: 12 * 1024 * 1024,
  webhookMemoryHighBytes: 192 * 1024 * 1024,
  webhookMemoryLowBytes: 176 * 1024 * 1024,
  webhookMemorySampleMs: 100,
  webhookMemoryCollectEveryMs: 1_000,
  /** A request's whole body, and the reading of its answer: the API server has given up long before. */
  webhookRequestTimeoutMs: 10_000,
  /** How long one that is refused may go on sending until it is answered; a client of good faith has ended by then. */
  webhookRefusalLingerMs: 500,
  /** When a review that found no room is tried again: clients of the API server's own make read it, and keep the pod's admission waiting. */
  webhookRetryAfterMs: 1_000,
  /** Connections of API servers; each keeps a few. */
  webhookConnectionsMax: 256,
  /** How long a pod's admission waits for the trust domain's authorities to be in its namespace: below the webhook's own 5 s. */
  trustEnsureTimeoutMs: 2_000,
  /** Namespaces that the API server is asked about at a time, for reviews that may be anybody's; the next count brings the others. */
  placesAskedMax: 8,
  /** Namespaces whose first labelled pod is waited for, and how long until it is looked for. */
  placesWaitingMax: 100,
  placesWaitMs: 2_000,
  /** Kubernetes Events waiting to be sent; they are remarks, and more are dropped. */
  remarksMax: 100,
} as const;
