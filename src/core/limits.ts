/**
 * Every bound in one place, each with its reason. Bounds are passed at the call; no library default is relied on.
 * Durations in milliseconds, sizes in bytes.
 */
export const limits = {
  // Requests ------------------------------------------------------------------------------------------------------
  /** One header block, both directions. Node's own default is 16 KiB; large cookies and tokens need more. */
  headerBytesMax: 32 * 1024,
  /** Field lines in one block, both directions: ours, because Node truncates response headers silently. */
  headerCountMax: 100,
  /** A request target; nginx' default is 8 KiB. */
  requestTargetBytesMax: 8 * 1024,
  /** From the first byte of a connection or request to the end of its header block (slowloris). */
  requestHeadersTimeoutMs: 10_000,
  /** TLS handshake with the program. */
  clientHandshakeTimeoutMs: 5_000,
  /** After CONNECT was answered: how long until the first byte says whether it is TLS. */
  firstByteTimeoutMs: 10_000,
  /** An idle kept-alive connection from the program: above common client pools (90 s in Go), so that they close first. */
  clientKeepAliveTimeoutMs: 95_000,
  /** No byte either way on a request or response body. Not a total: a body may take as long as it moves. */
  bodyIdleTimeoutMs: 300_000,
  /**
   * Nothing moves either way on a program's connection in the middle of an exchange: longer than a target may think, so that what
   * ends is a program that has stopped reading.
   */
  clientStallTimeoutMs: 600_000,
  /** Connections from programs to one proxy. */
  clientConnectionsMax: 4_096,
  /** How long the rest of a request is read and dropped after an early answer, before the connection is closed instead. */
  earlyAnswerDrainMs: 1_000,
  /** What a tunnel may be idle for, both ways. */
  tunnelIdleTimeoutMs: 3_600_000,

  // Targets -------------------------------------------------------------------------------------------------------
  /** TCP connect to a target, every address tried included. */
  targetConnectTimeoutMs: 5_000,
  targetHandshakeTimeoutMs: 5_000,
  /** First byte of the response head. Long, because model inference thinks before it answers. */
  targetHeadersTimeoutMs: 300_000,
  /** Kept-alive idle time; below common servers' 5 s so that we close first and do not race them. */
  targetKeepAliveTimeoutMs: 4_000,
  /** Connections to one target. */
  targetConnectionsMax: 256,
  /** Requests waiting for one of those connections. */
  targetQueueMax: 4_096,
  /** Different targets' pools kept open. */
  targetPoolsMax: 256,
  dnsTimeoutMs: 5_000,
  dnsAnswersMax: 16,
  /** Informational (1xx) responses before the final one. */
  informationalResponsesMax: 8,

  // Interception --------------------------------------------------------------------------------------------------
  /**
   * The per-pod authority. Programs read their trust bundle once, at their start, so it must outlive any of them; its key is in
   * this process' memory alone and ends with it.
   */
  interceptionAuthorityLifetimeMs: 365 * 24 * 3_600_000,
  /** One leaf. */
  leafLifetimeMs: 3_600_000,
  /** Certificates are back-dated by this much, for clocks that run behind. */
  certificateBackdateMs: 5 * 60_000,
  leafCacheMax: 256,

  // Broker --------------------------------------------------------------------------------------------------------
  attestTimeoutMs: 10_000,
  getGrantTimeoutMs: 5_000,
  /** gRPC messages on every stream. */
  messageBytesMax: 1024 * 1024,
  grpcKeepAliveIntervalMs: 30_000,
  grpcKeepAliveTimeoutMs: 10_000,
  /** From an accepted TCP connection to its first HTTP/2 frame, on either side. */
  grpcHandshakeTimeoutMs: 5_000,
  /** A connection without calls is closed; the next call opens a new one. */
  grpcIdleTimeoutMs: 300_000,
  /** Connections to one gRPC server: above `watchersMax`, each watcher having one. */
  grpcConnectionsMax: 12_000,
  /** Calls at a time on one connection (THREATS S-3); further ones wait at the client. */
  grpcStreamsMax: 100,
  /** What one connection may hold in memory at the server, in MB as node:http2 counts. */
  grpcSessionMemoryMaxMb: 32,
  /** One text in a message: above SPIFFE IDs (2,048), cut event fields and reasons that quote them. */
  wireTextBytesMax: 8 * 1024,
  /** One list in a message: above the 10,000 targets that are aimed at; the size of the message bounds the rest. */
  wireListMax: 20_000,
  /** A fault's detail, and its decision, in trailers: with the decision, and percent-encoded at worst, within Node's 64 KiB for them. */
  faultDetailCharsMax: 2_048,
  /** First and longest pause between tries to reach a peer; doubled in between, with jitter. */
  reconnectPauseMinMs: 200,
  reconnectPauseMaxMs: 10_000,
  grantCacheMax: 4_096,
  /** A refused or failed grant is remembered this long, so that a loop in a program is not a loop at the broker. */
  grantDeniedCacheMs: 2_000,
  grantFailedCacheMs: 500,
  /** No grant is used longer than this, whatever its credential's life. */
  grantLifetimeMaxMs: 3_600_000,
  /** A broker-minted JWT. */
  mintedTokenLifetimeMaxMs: 600_000,
  evidenceBytesMax: 16 * 1024,
  certificateRequestBytesMax: 4 * 1024,
  /** Difference of clocks between token issuer and broker. */
  clockSkewMs: 60_000,
  /** Objects within objects in a token: Kubernetes' have three. */
  tokenDepthMax: 8,
  /** How long opening the store waits for a broker that is just ending; blocks, so short. */
  storeLockTimeoutMs: 2_000,
  /** Leases in one listing. */
  leasesListMax: 10_000,
  /** Verifiers may keep the published JWKS this long; less when the key overlap leaves less. */
  publishedKeysCacheMaxMs: 300_000,
  /** Connections to the discovery and JWKS endpoints. */
  issuerConnectionsMax: 256,
  watchersMax: 10_000,
  /** Updates that wait for a watcher that does not read; past it the stream ends, and the next one begins with a snapshot. */
  watchBacklogMax: 16,
  /** Attestations the broker remembers: two live SVIDs for each of `watchersMax` proxies while they renew, and as many again. */
  attestationsMax: 40_000,
  /** Of these, for one set of attributes (one pod): a pod that attests in a loop forgets its own, not its neighbours'. */
  attestationsPerWorkloadMax: 16,
  /** Different sets of matching workloads whose rules are kept compiled. */
  workloadViewsMax: 10_000,
  /** How often configuration files are read for changes; mounted ones are swapped by renaming, which file events miss. */
  configurationPollMs: 2_000,
  /** How often expired leases are deleted. */
  leaseSweepMs: 60_000,
  /** The trust domain's authority. */
  trustDomainAuthorityLifetimeMs: 365 * 24 * 3_600_000,
  /** The broker's own serving certificate; changed at half its life. */
  serverCertificateLifetimeMs: 24 * 3_600_000,

  // Outbound calls of the broker (token endpoints, JWKS, TokenReview) ----------------------------------------------
  outboundTimeoutMs: 5_000,
  outboundBodyBytesMax: 1024 * 1024,
  /** A JWKS is fetched again for an unknown key, but not more often than this. */
  jwksCooldownMs: 5_000,
  jwksLifetimeMs: 600_000,
  /** While an issuer cannot be reached, its keys serve on for this long after they were read; a key it withdrew lives no longer. */
  jwksStaleMaxMs: 3_600_000,
  /** Keys of one issuer; clusters publish one to three. */
  jwksKeysMax: 64,
  /** TokenReviews under way at one API server; anyone may ask for one, so more are refused rather than queued. */
  tokenReviewsMax: 64,
  /** A credential from a file or a token endpoint. */
  credentialBytesMax: 16 * 1024,
  /** A token request: below `getGrantTimeoutMs`, so that the proxy hears which provider failed rather than giving up first. */
  tokenRequestTimeoutMs: 4_000,
  /** A token whose endpoint does not say how long it lives (RFC 6749 section 5.1 leaves it open): short, as every issuer outlives it. */
  tokenLifetimeDefaultMs: 300_000,
  /** No token is kept longer, whatever its endpoint says, so that a changed client secret takes effect within a day. */
  tokenLifetimeMaxMs: 24 * 3_600_000,
  /** A failed token request is remembered this long, so that a thousand waiting workloads do not each repeat it. */
  tokenFailedCacheMs: 1_000,

  // Evidence ------------------------------------------------------------------------------------------------------
  /** Events kept while the collector is away. About 600 B each: some 6 MiB. */
  eventQueueMax: 10_000,
  /** Of these, places kept for outcomes of requests already admitted and for loss records. */
  eventQueueReserved: 2_000,
  eventBatchMax: 200,
  /** Host names, paths and methods in an event; longer values are cut and hashed. */
  eventFieldBytesMax: 1_024,
  /** How long shutdown waits for the collector's last acknowledgement. */
  eventFlushTimeoutMs: 5_000,
  /** How long the first event of a batch waits for others: what turns one gRPC message and one fsync a request into 100 a second. */
  eventBatchDelayMs: 10,
  /** Without an acknowledgement for this long while events are out, the stream is given up and opened anew. */
  eventAcknowledgeTimeoutMs: 30_000,
  /** Credentials named in one event; a target has a few placements. */
  eventCredentialsMax: 16,
  /** A sequence number that has not arrived this long after a later one is missing; it may still arrive late. */
  eventGapGraceMs: 60_000,
  /** Gaps remembered for one proxy run, for late arrivals; the oldest is forgotten first. */
  eventGapsMax: 64,
  /** Proxy runs the collector remembers for deduplication, some 500 B each. */
  eventReportersMax: 50_000,
  /** Bytes written to the event store before one sync. */
  eventCommitBytesMax: 8 * 1024 * 1024,
  /** How often a store that failed is tried again, so that readiness comes back without traffic. */
  eventStoreRetryMs: 500,
  /** One stored event; the longest that passes the gRPC message limit, with every byte escaped. */
  eventLineBytesMax: 6 * 1024 * 1024,

  // Everything ----------------------------------------------------------------------------------------------------
  /** Different values of one metric label; further ones are counted as "other". */
  labelValuesMax: 200,
  configurationBytesMax: 1024 * 1024,
  /** YAML nesting; ours is 7 deep. */
  configurationDepthMax: 32,
  /** YAML aliases, and the values they stand for, in one file: enough to say a thing once, too few for a bomb. */
  configurationAliasesMax: 100,
  configurationAliasedValuesMax: 10_000,
  /** Problems of one file that are written out; further ones are counted. */
  configurationProblemsShownMax: 100,
  /** In-flight requests may finish for this long after SIGTERM. */
  requestDrainMs: 12_000,
  /** All of a shutdown: requests, then the last events, then the rest. Below Kubernetes' grace period of 30 s. */
  drainTimeoutMs: 20_000,
} as const;
