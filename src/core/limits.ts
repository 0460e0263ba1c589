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
  /** Connections from programs to one proxy. */
  clientConnectionsMax: 4_096,
  /** Unread request bytes drained after an early answer, before the connection is closed instead. */
  earlyAnswerDrainBytesMax: 64 * 1024,
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
  /** The per-pod authority; the pod's volume outlives a container restart, not a day. */
  interceptionAuthorityLifetimeMs: 24 * 3_600_000,
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
  watchersMax: 10_000,

  // Outbound calls of the broker (token endpoints, JWKS, TokenReview) ----------------------------------------------
  outboundTimeoutMs: 5_000,
  outboundBodyBytesMax: 1024 * 1024,
  /** A JWKS is fetched again for an unknown key, but not more often than this. */
  jwksCooldownMs: 5_000,
  jwksLifetimeMs: 600_000,
  /** A credential from a file or a token endpoint. */
  credentialBytesMax: 16 * 1024,

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

  // Everything ----------------------------------------------------------------------------------------------------
  /** Different values of one metric label; further ones are counted as "other". */
  labelValuesMax: 200,
  configurationBytesMax: 1024 * 1024,
  /** In-flight requests may finish for this long after SIGTERM. */
  drainTimeoutMs: 20_000,
} as const;
