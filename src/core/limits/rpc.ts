/** Bounds of the gRPC servers and of attestation against those who ask: part of limits.ts. Durations in milliseconds, sizes in bytes. */
export const rpcLimits = {
  /** TLS handshakes under way, some 80 KiB each: what one core finishes within two seconds. */
  grpcHandshakesMax: 512,
  /**
   * Connections to a broker whose client has not proved who it is: attestations, each over within a second unless the API server is slow. 80 KiB
   * each, and at worst some 100 more for each of its calls, so that all of them stay within half of the memory that the chart gives.
   */
  anonymousConnectionsMax: 512,
  /** The same at a collector, where nobody attests: health checks. */
  healthConnectionsMax: 64,
  anonymousStreamsMax: 2,
  /** The longest evidence and certificate request, and what is around them. */
  anonymousMessageBytesMax: 32 * 1024,
  anonymousSessionMemoryMaxMb: 1,
  /** When room is needed for a handshake or for such a connection, whoever has had it for the longest goes, if that is as long as this. */
  anonymousReclaimMs: 1_000,
  /** Such a connection takes no new calls after this; whoever has more to ask connects anew. */
  anonymousAgeMs: 5_000,
  /** It is over after this, whatever it waits for: an attestation has had its `attestTimeoutMs` by then. */
  anonymousLifetimeMs: 16_000,
  /** Watches over the health of one server: load balancers have one each, kubelet asks without. */
  healthWatchesMax: 64,
  /** Record on one connection: a proxy has one stream, each on a connection of its own. All replicas have one SPIFFE ID, so it cannot be what is counted by. */
  recordStreamsMax: 4,
  /** Batches of all streams that are being stored: two commits of the store. Decoded they are some times as large. */
  recordBytesMax: 16 * 1024 * 1024,
  /** Watchers that are told of a change in one turn: a thousand targets are 100 KiB for each, copied and encrypted in a tenth of a millisecond. */
  watchersToldAtOnce: 16,
  /**
   * Attestations that wait until one of the TokenReviews under way is over, all that clients without a certificate can ask for at a time; and for
   * how long, so that with `outboundTimeoutMs` after it a proxy hears what failed rather than giving up first.
   */
  tokenReviewsWaitingMax: 1_024,
  tokenReviewWaitMs: 4_000,
  /** What anyone may cause again and again is told of in the log this often. */
  refusalLogIntervalMs: 60_000,
} as const;
