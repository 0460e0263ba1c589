/** Bounds of a proxy around one command (outrider run), part of limits.ts. Durations in milliseconds, sizes in bytes. */
export const runLimits = {
  /** How long a command waits for its proxy, unless told: a broker that restarts is back by then. */
  runReadyTimeoutMs: 30_000,
  /** When the wait is explained: a start takes well under a second, and a person wonders after a few. */
  runProgressAfterMs: 3_000,
  /** The last lines of the proxy's log that are kept while a command waits, to be shown when it cannot be run; they repeat. */
  runHeldLogLinesMax: 3,
  /** A file of roots that the user trusts; the largest in use are below 1 MiB. */
  trustFileBytesMax: 8 * 1024 * 1024,
} as const;
