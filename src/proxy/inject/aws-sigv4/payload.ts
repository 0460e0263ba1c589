/**
 * What a signature says of the body: a hash, a word for "not signed", or that it is signed in chunks. What the program chose stays, since the
 * target holds the body to it. Pure.
 * https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */
import type { Scheme } from '../../../core/destination.ts';
import { Fault } from '../../../core/fault.ts';
import { type HeaderList, valuesOf } from '../../../core/headers.ts';
import { limits } from '../../../core/limits.ts';
import type { BodySource } from '../../exchange.ts';
import { isObjectStore, parameterName, uriDecode } from './canonical.ts';
import type { AwsAlgorithm } from './keyring.ts';
import type { OriginalSignature } from './original.ts';

export type Payload =
  /** Sent as it comes; `value` is what is signed. */
  | { readonly kind: 'stated'; readonly value: string }
  /** Read whole and hashed here. */
  | { readonly kind: 'hashed' }
  /** Signed chunk by chunk (aws-chunked), after the request. */
  | { readonly kind: 'chunks'; readonly value: string; readonly hasTrailer: boolean };

const unsignedPayload = 'UNSIGNED-PAYLOAD';

const signedChunks: Readonly<Record<string, { readonly algorithm: AwsAlgorithm; readonly hasTrailer: boolean }>> = {
  'STREAMING-AWS4-HMAC-SHA256-PAYLOAD': { algorithm: 'sigv4', hasTrailer: false },
  'STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER': { algorithm: 'sigv4', hasTrailer: true },
  'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD': { algorithm: 'sigv4a', hasTrailer: false },
  'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER': { algorithm: 'sigv4a', hasTrailer: true },
};

const unsupported = (detail: string): Fault => new Fault('signature_unsupported', { detail });

export interface PayloadTerms {
  /** As the program sent them. */
  readonly headers: HeaderList;
  readonly body: BodySource | undefined;
  readonly scheme: Scheme;
  readonly algorithm: AwsAlgorithm;
  readonly service: string;
  readonly original: OriginalSignature;
  readonly parameters: readonly string[];
}

/** Throws signature_unsupported for what is signed in a way that cannot be replaced. */
export const payloadOf = ({ headers, body, scheme, algorithm, service, original, parameters }: PayloadTerms): Payload => {
  const value = statedIn(headers, original.form === 'query' ? parameters : []);
  const chunks = value === undefined ? undefined : signedChunks[value];
  if (chunks) {
    if (original.form === 'query') throw unsupported('Chunks cannot be signed where the request is signed in its query.');
    if (chunks.algorithm !== algorithm) {
      throw unsupported(
        'Its chunks are signed by another algorithm than the target takes: send an unsigned payload with a trailing checksum.',
      );
    }
    return { kind: 'chunks', value: value as string, hasTrailer: chunks.hasTrailer };
  }
  if (value !== undefined) {
    const isKnown = value === unsignedPayload || value === 'STREAMING-UNSIGNED-PAYLOAD-TRAILER' || /^[0-9a-f]{64}$/i.test(value);
    if (!isKnown) throw unsupported('Its x-amz-content-sha256 is none that can be signed here.');
    return { kind: 'stated', value };
  }
  if (!isObjectStore(service)) return { kind: 'hashed' };
  // S3 hashes no body of a URL that was signed beforehand, and needs none over TLS: uploads then go on as they come, whatever their size.
  if (original.form === 'query') return { kind: 'stated', value: unsignedPayload };
  const isShort = body === undefined || body.held !== undefined || lengthOf(headers) <= limits.heldBodyBytesMax;
  return isShort || scheme === 'http' ? { kind: 'hashed' } : { kind: 'stated', value: unsignedPayload };
};

/** What x-amz-content-sha256 says; where it says two things the target might take either. */
const statedIn = (headers: HeaderList, parameters: readonly string[]): string | undefined => {
  const inHeaders = valuesOf(headers, 'x-amz-content-sha256').map((value) => value.trim());
  const inQuery = parameters
    .filter((parameter) => parameterName(parameter).toLowerCase() === 'x-amz-content-sha256')
    .map((parameter) => uriDecode(parameter.slice(parameter.indexOf('=') + 1)));
  const [first, ...others] = [...inHeaders, ...inQuery];
  if (others.some((other) => other !== first) || inHeaders.length > 1) throw unsupported('It has more than one x-amz-content-sha256.');
  return first;
};

/** Infinite where nothing says. */
const lengthOf = (headers: HeaderList): number => {
  const value = valuesOf(headers, 'content-length')[0];
  return value === undefined ? Number.POSITIVE_INFINITY : Number(value);
};
