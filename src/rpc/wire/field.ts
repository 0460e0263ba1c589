/**
 * What a field of a message may hold, said once: texts and lists within bounds, numbers that JavaScript can carry, times that exist.
 * Whatever does not fit is a WireError; the client makes broker_error of it and the server request_malformed.
 */
import { type DescMessage, fromBinary, type MessageInitShape, type MessageShape, create, toBinary } from '@bufbuild/protobuf';
import type { Duration, Timestamp } from '@bufbuild/protobuf/wkt';
import { limits } from '../../core/limits.ts';

/** A message that this version cannot accept. Its text names a field, never a value. */
export class WireError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'WireError';
  }
}

export const encode = <D extends DescMessage>(schema: D, message: MessageInitShape<D>): Buffer => {
  const bytes = toBinary(schema, create(schema, message));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
};

export const decode = <D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> => {
  try {
    return fromBinary(schema, bytes, { readUnknownFields: false });
  } catch {
    // The library's message may quote what it read.
    throw new WireError(`the bytes are not a ${schema.name}`);
  }
};

export const need = <T>(value: T | undefined, what: string): T => {
  if (value === undefined) throw new WireError(`${what} is missing`);
  return value;
};

export const text = (value: string, what: string): string => {
  if (value.length > limits.wireTextBytesMax) throw new WireError(`${what} is too long`);
  return value;
};

export const someText = (value: string, what: string): string => {
  if (value === '') throw new WireError(`${what} is empty`);
  return text(value, what);
};

export const list = <T>(values: readonly T[], what: string): readonly T[] => {
  if (values.length > limits.wireListMax) throw new WireError(`${what} has too many elements`);
  return values;
};

export const someList = <T>(values: readonly T[], what: string): readonly T[] => {
  if (values.length === 0) throw new WireError(`${what} is empty`);
  return list(values, what);
};

export const count = (value: bigint, what: string): number => {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new WireError(`${what} is too large`);
  return number;
};

/** Not negative; in whole microseconds, which is finer than any clock of ours. */
const secondsAndNanos = (ms: number): { seconds: bigint; nanos: number } => {
  const seconds = Math.floor(ms / 1000);
  const micros = Math.round((ms - seconds * 1000) * 1000);
  return micros < 1_000_000 ? { seconds: BigInt(seconds), nanos: micros * 1000 } : { seconds: BigInt(seconds) + 1n, nanos: 0 };
};

/** One division at most, so that a double of whole microseconds comes back as it went. */
const millis = ({ seconds, nanos }: { readonly seconds: bigint; readonly nanos: number }): number => {
  const micros = Number(seconds) * 1_000_000 + nanos / 1000;
  return Number.isSafeInteger(micros) ? micros / 1000 : Number(seconds) * 1000 + nanos / 1_000_000;
};

/** The first and the last instant that a Timestamp may be, as far as ours go (google/protobuf/timestamp.proto): 1970 to 9999. */
const timestampSecondsMax = 253_402_300_799n;
/** google/protobuf/duration.proto: some 10,000 years. */
const durationSecondsMax = 315_576_000_000n;

export const timestampOf = secondsAndNanos;
export const durationOf = secondsAndNanos;

export const timestampMs = (value: Timestamp | undefined, what: string): number => {
  const { seconds, nanos } = need(value, what);
  if (seconds < 0n || seconds > timestampSecondsMax || nanos < 0 || nanos > 999_999_999) throw new WireError(`${what} is not a time`);
  return millis({ seconds, nanos });
};

export const durationMs = (value: Duration | undefined, what: string): number => {
  const { seconds, nanos } = need(value, what);
  if (seconds < 0n || seconds > durationSecondsMax || nanos < 0 || nanos > 999_999_999)
    throw new WireError(`${what} is not a length of time`);
  return millis({ seconds, nanos });
};
