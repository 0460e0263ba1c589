/** What a needle compares instead of bytes, and pairs of bytes for its shifts. Part of core/needle.ts. */

/** Letters in one case; url-safe base64 as standard. */
const folded = Uint8Array.from({ length: 256 }, (_, byte) => {
  if (byte >= 0x41 && byte <= 0x5a) return byte + 0x20;
  if (byte === 0x2d) return 0x2b;
  return byte === 0x5f ? 0x2f : byte;
});
export const fold = (byte: number): number => folded[byte] as number;

/** The bytes that fold to this one. */
export const unfolded = (symbol: number): readonly number[] => (sources[symbol] ??= allBytes.filter((byte) => fold(byte) === symbol));
const allBytes = Array.from({ length: 256 }, (_, byte) => byte);
const sources: (readonly number[])[] = [];

/** A small number for two bytes, of which different pairs may share one. */
export const pairOf = (first: number, second: number): number => ((first & 63) << 6) | (second & 63);
