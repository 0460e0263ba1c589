/** Bounds of interception, part of limits.ts. Durations in milliseconds, sizes in bytes. */
export const interceptionLimits = {
  /**
   * The per-pod authority's certificate. Programs read their trust bundle once, at their start, so it must outlive any of them. At
   * half of it a new one is written, by the same key; the key ends with the pod.
   */
  interceptionAuthorityLifetimeMs: 365 * 24 * 3_600_000,
  /** A stored authority with less than this left is made anew: programs that read the bundle now may run for weeks. */
  interceptionAuthorityRemainderMs: 30 * 24 * 3_600_000,
  /** The file it is stored in: 20,000 host names are within it. */
  interceptionStateBytesMax: 4 * 1024 * 1024,
  /**
   * The authority's certificate goes along with a leaf up to this size. It grows with the hosts it names, nobody needs it to verify,
   * and programs bound what they take in a handshake: Java 32 KiB, Go 64 KiB at times, OpenSSL 100 KiB.
   */
  interceptionAuthoritySentBytesMax: 8 * 1024,
  /** It is back-dated by this much: programs share our clock, and a clock that is set back must not make it invalid for them. */
  interceptionAuthorityBackdateMs: 48 * 3_600_000,
  /** One leaf. */
  leafLifetimeMs: 3_600_000,
  /** Certificates are back-dated by this much, for clocks that run behind. */
  certificateBackdateMs: 5 * 60_000,
  leafCacheMax: 256,
  /** What a program sends behind CONNECT or an upgrade before the answer; what is more waits in its socket. */
  asideBytesMax: 16 * 1024,
} as const;
