/** Bounds of asking the collector for events (Find) and of the self-test that does, part of limits.ts. Durations in milliseconds, sizes in bytes. */
export const findLimits = {
  /** In one answer, as messages are bounded, too. */
  foundEventsMax: 100,
  foundBytesMax: 512 * 1024,
  /** How far back from the end of the store: some ten thousand events, read in a tenth of a second. */
  findBytesMax: 8 * 1024 * 1024,
  findChunkBytes: 64 * 1024,
  /**
   * Anyone with an identity may ask, again and again: a pause after each chunk, which costs a few tenths of a millisecond to look through, and few at
   * a time, more being refused, leave most of the collector's one thread to storing.
   */
  findChunkPauseMs: 1,
  findsMax: 2,
  findTimeoutMs: 5_000,
  /** How often the self-test asks: a proxy sends its events within a fraction of a second. */
  selfTestPauseMs: 250,
  /** An answer to the self-test is read no further. */
  selfTestBodyBytesMax: 64 * 1024,
} as const;
