/**
 * Bounds one text field of an access event. Hosts, paths, methods and reasons hold what a program sent: an event must stay
 * small and encodable whatever that was (THREATS R-5). Control characters stay in the value; the collector's JSON escapes them.
 */
import { createHash } from 'node:crypto';

/**
 * `value` unchanged when it is at most `bytesMax` bytes of UTF-8. A longer one keeps its beginning, cut between characters,
 * followed by ` [N more bytes, sha256 HEX]` of what was cut: still at most `bytesMax`, and two values that differ stay
 * different. `bytesMax` is at least 128. (A lone surrogate is left to the encoder, which writes U+FFFD in its place.)
 */
export const boundedField = (value: string, bytesMax: number): string => {
  // No UTF-16 unit takes more than 3 bytes: nearly every value is short enough not to be measured.
  if (value.length * 3 <= bytesMax) return value;
  const bytes = Buffer.from(value, 'utf8');
  if (bytes.length <= bytesMax) return value;
  // Every mark is as long as the longest: the number of all bytes is at least as wide as the number cut.
  const markBytes = mark(bytes.length, '').length + 64;
  let end = bytesMax - markBytes;
  while (isContinuation(bytes[end])) end -= 1;
  const rest = bytes.subarray(end);
  return bytes.toString('utf8', 0, end) + mark(rest.length, createHash('sha256').update(rest).digest('hex'));
};

const mark = (count: number, hash: string): string => ` [${count} more bytes, sha256 ${hash}]`;

const isContinuation = (byte: number | undefined): boolean => byte !== undefined && (byte & 0xc0) === 0x80;
