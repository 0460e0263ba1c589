/**
 * Every bound in one place, each with its reason. Bounds are passed at the call; no library default is relied on.
 * Durations in milliseconds, sizes in bytes.
 */
import { findLimits } from './limits/find.ts';
import { injectorLimits } from './limits/injector.ts';
import { interceptionLimits } from './limits/interception.ts';
import { rpcLimits } from './limits/rpc.ts';
import { runLimits } from './limits/run.ts';

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
  /**
   * Transparent mode, on a port that a target names: a program that is silent for this long waits for the server to speak first (SMTP,
   * MySQL), and its connection passes. TLS and HTTP programs speak within a millisecond of connecting.
   */
  serverFirstAfterMs: 300,
  /** From such a program's first byte to the end of its ClientHello or HTTP head; past it the connection passes. */
  peekTimeoutMs: 3_000,
  /** A ClientHello with post-quantum key shares has 2 KiB; OpenSSL takes up to 128 KiB. A longer one passes. */
  clientHelloBytesMax: 32 * 1024,
  /** An idle kept-alive connection from the program: above common client pools (90 s in Go), so that they close first. */
  clientKeepAliveTimeoutMs: 95_000,
  /** No byte either way on a request or response body. Not a total: a body may take as long as it moves. */
  bodyIdleTimeoutMs: 300_000,
  /** What is taken of a request body at a time, and so what a target's connection may have to hold twice: in the clear and encrypted. */
  bodyPieceBytesMax: 64 * 1024,
  /**
   * Nothing moves either way on a program's connection in the middle of an exchange: longer than a target may think, so that what
   * ends is a program that has stopped reading.
   */
  clientStallTimeoutMs: 600_000,
  /** How often it is looked whether who is connected still is, where nobody reads from them and would be told. */
  lostLookMs: 5_000,
  /** How long an HTTP/2 connection that is over may take to be told so. */
  goodbyeTimeoutMs: 1_000,
  /**
   * Connections from programs to one proxy; a whole pod's programs have some hundreds. An idle one costs 20 to 45 KiB, intercepted 85, in the
   * middle of a body up to 240, so that this many of a hostile mixture stay below the marks for memory. Where there are fewer descriptors it
   * is less, two for each. When it is reached, who keeps us waiting the longest makes room.
   */
  clientConnectionsMax: 1_024,
  /** Descriptors that are not for programs: listeners, broker, collector, admin, files, the engine's own. */
  reservedDescriptors: 64,
  /** Connections beyond the bound that are answered 503 at a time; more are closed unanswered. */
  clientRefusalsMax: 64,
  /** When room is needed: a connection without a request goes after this long, long enough for one that was just opened to say what it wants. */
  clientIdleReclaimMs: 250,
  /** When room is needed: a body that does not come and an answer that is not read go after this long below this rate. */
  clientSlowReclaimMs: 10_000,
  clientSlowBytesPerSecond: 1_024,
  /** The same grace when there is nobody else to close, rather than to turn away who comes. */
  clientSlowCrowdedMs: 1_000,
  /**
   * Resident memory of the proxy: the ceiling is 320 MiB. Above `Collect` garbage is collected now and then, above `CollectSoon` as soon as
   * `CollectGrowth` has come since the last time. Above `High` idle and slow connections are closed and only a few requests run at a time,
   * until it is below `Low`. Under full load without an attack it is below `CollectSoon`.
   */
  memoryCollectBytes: 192 * 1024 * 1024,
  memoryCollectSoonBytes: 240 * 1024 * 1024,
  memoryCollectGrowthBytes: 12 * 1024 * 1024,
  memoryHighBytes: 288 * 1024 * 1024,
  memoryLowBytes: 272 * 1024 * 1024,
  memorySampleMs: 100,
  memoryCollectEveryMs: 1_000,
  /** Requests at a time while memory is short: the proxy never stops altogether. */
  memoryShortRequestsMax: 16,
  /** How long a slow body and an unread answer are borne while memory is short. */
  memoryShortSlowMs: 1_000,
  /** Requests under way of all programs together: each connection has one, and HTTP/2 some hundreds more. Some 50 KiB each at worst. */
  clientRequestsMax: 1_536,
  /**
   * Of these, beyond the first of each connection: what is left is one for each that may be connected, so that whoever asks for one thing at a
   * time has its turn, however many things others ask for at once.
   */
  clientFurtherRequestsMax: 512,
  /** Requests that wait for their turn on a program's connection: package managers pipeline ten, load generators some dozens. */
  clientPipelinedRequestsMax: 128,
  /** How long the rest of a request is read and dropped after an early answer, before the connection is closed instead. */
  earlyAnswerDrainMs: 1_000,
  /** What one end of a tunnel had sent when it closed is delivered to the other within this. */
  tunnelFlushTimeoutMs: 30_000,
  /** Silence on a connection until TCP asks whether the other end is still there: no stream is cut for being quiet, dead peers are found. */
  tcpKeepAliveDelayMs: 60_000,
  /** Streams at a time on a program's HTTP/2 connection. */
  clientH2StreamsMax: 256,
  /** What one such connection may hold in memory, in MB as node:http2 counts: some streams with full windows. */
  clientH2SessionMemoryMaxMb: 32,
  /** Bytes a program may send on a stream before they are read, and on all of a connection's. */
  clientH2WindowBytes: 256 * 1024,
  clientH2SessionWindowBytes: 1024 * 1024,
  /**
   * Connections of HTTP/2 that get such a window and so many streams; further ones keep the protocol's 64 KiB, so that all windows together are some
   * MiB, and get these few streams: programs use one connection for each place, and a hundred that ask for 256 things each are an attack.
   */
  clientH2WideSessionsMax: 32,
  clientH2NarrowStreamsMax: 32,
  /** Entries in one SETTINGS frame; the registry has some ten. */
  clientH2SettingsMax: 32,
  /** Invalid frames, and streams refused for being too many, before the connection is ended. */
  clientH2InvalidFramesMax: 100,
  clientH2RejectedStreamsMax: 100,
  /** Streams a program may open and reset at once, and then a second, before the connection is ended (CVE-2023-44487). */
  clientH2ResetBurst: 1_000,
  clientH2ResetsPerSecond: 100,
  /** The same for PING and SETTINGS, each of which asks for an answer (CVE-2019-9512, CVE-2019-9515); keepalives come every few seconds. */
  clientH2ControlBurst: 1_000,
  clientH2ControlsPerSecond: 10,

  // Targets -------------------------------------------------------------------------------------------------------
  /** TCP connect to a target, every address tried included. */
  targetConnectTimeoutMs: 5_000,
  targetHandshakeTimeoutMs: 5_000,
  /** Between one address that has not answered yet and the next one tried beside it (RFC 8305 section 5's default). */
  targetConnectPauseMs: 250,
  /**
   * How long a connection to a target is silent before the kernel asks whether it is still there, how often it asks then, and how many
   * questions stay unanswered: silence is never an end, a peer that is gone is found in 135 s, an outage of a minute is survived.
   */
  targetProbeDelayMs: 60_000,
  targetProbeIntervalMs: 15_000,
  targetProbesMax: 5,
  /**
   * Under TLS 1.3 a target says only after the handshake that it insists on a client certificate: waited for where it asked for one and
   * none is configured, and nowhere else. One round trip, generously.
   */
  clientCertificateVerdictMs: 500,
  /** From CONNECT to the answer of the proxy on the way, which resolves and connects in between: above our own two deadlines for that. */
  upstreamProxyAnswerTimeoutMs: 15_000,
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
  /** Idle connections kept for exchanges that wait for 100 or may end in trailers: uploads, which come a few at a time. */
  targetSpareConnectionsMax: 8,
  /** Sets of authorities and client certificates kept ready for TLS: with the system's roots each costs 1.3 MiB and 23 ms. */
  targetTrustContextsMax: 16,
  /** How long a body waits for 100 before it is sent anyway (RFC 9110 section 10.1.1: not indefinitely); curl waits as long. */
  targetContinueTimeoutMs: 1_000,
  /** How long it is remembered that a target's TLS refuses HTTP/1.1, or HTTP/2: each relearning costs one handshake. */
  targetProtocolLearnedMs: 600_000,
  /** HTTP/2 sessions with one target: more streams than fit wait. */
  targetSessionsMax: 16,
  /** Streams on one session, where the target would allow more: so that one lost connection ends no more than these. */
  targetSessionStreamsMax: 250,
  /** A session without streams; below the 60 s of common load balancers. */
  targetSessionIdleTimeoutMs: 50_000,
  /** What one session may hold in memory, in MB as node:http2 counts. */
  targetSessionMemoryMaxMb: 64,
  /** Bytes that a target may send ahead of a program that reads slowly: on one stream, on one session. */
  targetStreamWindowBytes: 512 * 1024,
  targetSessionWindowBytes: 4 * 1024 * 1024,
  /** A session whose streams are silent is asked whether it lives; gRPC servers end sessions that ask more often than every 5 min. */
  targetPingIntervalMs: 330_000,
  targetPingTimeoutMs: 20_000,
  dnsTimeoutMs: 5_000,
  dnsAnswersMax: 16,
  /**
   * Names asked for at a time: Node has four threads for that and for files, and a silent name server holds one for half a minute. Of
   * these, for names that no target names.
   */
  dnsLookupsMax: 3,
  dnsLookupsUnmatchedMax: 2,
  /** Informational (1xx) responses before the final one. */
  informationalResponsesMax: 8,

  /** A body that a placement needs whole: JSON documents and forms are far smaller; uploads are signed in other ways. */
  heldBodyBytesMax: 1024 * 1024,
  /** Objects and arrays within each other in a JSON body that a credential is written into: common readers stop between 64 and 1,000. */
  heldBodyDepthMax: 64,
  /** Characters of one number in it: far more than any number means. */
  heldBodyNumberCharsMax: 1_024,
  /** One chunk of an aws-chunked body, held to be signed: SDKs that sign chunks send 64 to 256 KiB. */
  awsChunkBytesMax: 1024 * 1024,
  /** Between two such chunks: a size in hexadecimal and the longest signature have 170. */
  awsChunkLineBytesMax: 256,
  /** The trailer of such a body: a checksum or two, and the signature. */
  awsTrailerBytesMax: 4 * 1024,
  /** A URL signed for AWS is sent at once, and its lifetime ends soon after, whatever its program asked for: targets log URLs. */
  awsUrlLifetimeMs: 300_000,
  /** Signing keys derived from one set of AWS access keys, by day, region and service; each costs four hashes. */
  awsDerivedKeysMax: 16,
  /** All bodies and answers that are held in memory at a time. */
  heldBytesTotalMax: 32 * 1024 * 1024,
  /** A body that is kept while it is sent, so that the request can be repeated with a fresh credential after a 401. */
  replayBodyBytesMax: 64 * 1024,
  /** A grant whose credential was refused is fetched anew at most this often: a target that always says 401 costs no token requests. */
  grantRejectedIntervalMs: 10_000,
  /** How much of an answer is searched for the credential that its request carried. */
  echoScanBytesMax: 1024 * 1024,
  /** What may begin a credential waits for what follows; a few bytes no longer than this, because somebody may wait for them. */
  echoHeldMs: 50,
  echoGivenBytesMax: 12,
  /** How much may come of a compressed byte (THREATS S-5): text shrinks to a tenth, a bomb to a thousandth. */
  echoExpansionMax: 100,
  /** Compressed bytes that wait until they are decoded. */
  echoWaitingBytesMax: 64 * 1024,
  /** What a decoder counts for in `heldBytesTotalMax`: zlib's window and buffers; those of Brotli and Zstandard, as far as 1 MiB fills them. */
  echoInflaterBytes: 64 * 1024,
  echoDecoderBytes: 512 * 1024,
  /** A target that repeats credentials is told of in the log this often; the metric counts each. */
  echoLogIntervalMs: 60_000,
  /** Of a 401 that waits until it is known whether the request is repeated; past it the target is not read. */
  waitingAnswerBytesMax: 16 * 1024,
  /** How long it waits at most: a grant's fetch has its own bound, and may be made twice when something was revoked meanwhile. */
  waitingAnswerTimeoutMs: 6_000,
  /** Origins whose latest nonce for proofs (RFC 9449 section 8) is remembered. */
  proofNoncesMax: 256,

  ...interceptionLimits,

  // Broker --------------------------------------------------------------------------------------------------------
  attestTimeoutMs: 10_000,
  /** How often a wait for a time of the wall clock looks whether that has been set: after a sleep, timers know nothing of it. */
  wallClockLookMs: 15_000,
  getGrantTimeoutMs: 5_000,
  /** gRPC messages on every stream. */
  messageBytesMax: 1024 * 1024,
  /** The targets of one snapshot, which is one message, with room for its version. */
  snapshotBytesMax: 1024 * 1024 - 1024,
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
  /** A grant of another configuration than the broker told of waits this long for the news, and is then asked for again, twice. */
  grantAgreementWaitMs: 1_000,
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
  /** What was attested, as an SVID carries it: Kubernetes' nine attributes at their longest have 2 KiB; it is sent in every handshake. */
  attestedBytesMax: 4 * 1024,
  /** Different sets of matching workloads whose rules are kept compiled. */
  workloadViewsMax: 10_000,
  /** How often configuration files are read for changes; mounted ones are swapped by renaming, which file events miss. */
  configurationPollMs: 2_000,
  /** How often expired leases are deleted. */
  leaseSweepMs: 60_000,
  /** An authority of the trust domain. Its successor is made at half of it and signs after the announcement: see pki/authority-schedule.ts. */
  trustDomainAuthorityLifetimeMs: 365 * 24 * 3_600_000,
  trustDomainAuthorityAnnouncementMs: 30 * 24 * 3_600_000,
  /**
   * How often a broker that shares its keys reads what others made of them, give or take a fifth. What is new there signs much later: a
   * signing key after its overlap, eleven minutes at least, an authority after weeks.
   */
  sharedKeysPollMs: 10_000,
  /** Replicas that change the keys at the same time: every conflict means that one was done, and then the others have nothing to do. */
  sharedKeysAttemptsMax: 10,
  /** The broker's own serving certificate; changed at half its life. Nothing that an authority signs lives longer. */
  serverCertificateLifetimeMs: 24 * 3_600_000,

  // Outbound calls of the broker (token endpoints, JWKS, TokenReview) ----------------------------------------------
  outboundTimeoutMs: 5_000,
  outboundBodyBytesMax: 1024 * 1024,
  /** One page of a list of pods: 100 of them, each some 10 to 60 KiB with its status and managed fields. */
  apiServerPageItems: 100,
  apiServerBodyBytesMax: 16 * 1024 * 1024,
  /** A list of all pages; the largest clusters that Kubernetes supports have 150,000 pods. */
  apiServerItemsMax: 150_000,
  /** A JWKS is fetched again for an unknown key, but not more often than this. */
  jwksCooldownMs: 5_000,
  jwksLifetimeMs: 600_000,
  /** While an issuer cannot be reached, its keys serve on for this long after they were read; a key it withdrew lives no longer. */
  jwksStaleMaxMs: 3_600_000,
  /** Keys of one issuer; clusters publish one to three. */
  jwksKeysMax: 64,
  /** TokenReviews under way at one API server; anyone may ask for one, so `tokenReviewsWaitingMax` more wait, and not for long. */
  tokenReviewsMax: 64,
  /** A credential from a file or a token endpoint. */
  credentialBytesMax: 16 * 1024,
  /** A token request: below `getGrantTimeoutMs`, so that the proxy hears which provider failed rather than giving up first. */
  tokenRequestTimeoutMs: 4_000,
  /** A token whose endpoint does not say how long it lives (RFC 6749 section 5.1 leaves it open): short, as every issuer outlives it. */
  tokenLifetimeDefaultMs: 300_000,
  /** No token is kept longer, whatever its endpoint says, so that a changed client secret takes effect within a day. */
  tokenLifetimeMaxMs: 24 * 3_600_000,
  /** A minted client certificate: long enough to serve while it is renewed, and no longer than an SVID may be. */
  clientCertificateLifetimeMinMs: 5 * 60_000,
  clientCertificateLifetimeMaxMs: 24 * 3_600_000,
  /** A failed token request is remembered this long, so that a thousand waiting workloads do not each repeat it. */
  tokenFailedCacheMs: 1_000,

  ...injectorLimits,

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

  ...findLimits,
  ...rpcLimits,
  ...runLimits,

  // Everything ----------------------------------------------------------------------------------------------------
  /** Different values of one metric label; further ones are counted as "other". */
  labelValuesMax: 200,
  /** 10,000 targets of some 300 bytes each, which is what is aimed at. */
  configurationBytesMax: 4 * 1024 * 1024,
  /** YAML nesting; ours is 7 deep. */
  configurationDepthMax: 32,
  /** YAML aliases, and the values they stand for, in one file: enough to say a thing once, too few for a bomb. */
  configurationAliasesMax: 100,
  configurationAliasedValuesMax: 10_000,
  /** Problems of one file that are written out; further ones are counted. */
  configurationProblemsShownMax: 100,
  /**
   * After SIGTERM connections are still taken for this long, and every answer and GOAWAY says that it is the last: whoever chose this proxy
   * before it heard of the end is served. Not waited for when nobody is connected.
   */
  drainNoticeMs: 1_000,
  /** After that, a connection between requests that says nothing for so long is closed. */
  drainQuietMs: 100,
  /** In-flight requests may finish for this long after SIGTERM. */
  requestDrainMs: 12_000,
  /** All of a shutdown: requests, then the last events, then the rest. Below Kubernetes' grace period of 30 s. */
  drainTimeoutMs: 20_000,
} as const;
