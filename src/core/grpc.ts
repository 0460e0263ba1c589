/**
 * What gRPC looks like in HTTP, as far as a proxy must know it: its content type, its status codes and how a message is written.
 * https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import type { GrpcStatus } from './fault.ts';
import { type HeaderList, valuesOf } from './headers.ts';

/** https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
export const grpcStatusCodes = {
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
} as const satisfies Record<GrpcStatus, number>;

const contentType = (headers: HeaderList): string => valuesOf(headers, 'content-type')[0]?.toLowerCase() ?? '';

/** A call that needs HTTP/2 all the way. gRPC-Web is made for HTTP/1.1 and is not one. */
export const isGrpc = (headers: HeaderList): boolean => /^application\/grpc[\t ]*(?:[+;]|$)/.test(contentType(headers));

/**
 * The content type for an answer to a caller that reads its status from grpc-status rather than from HTTP, gRPC-Web included: the
 * call's own, without parameters. undefined for all others.
 */
export const grpcContentType = (headers: HeaderList): string | undefined =>
  /^(application\/grpc(?:-web(?:-text)?)?(?:\+[a-z0-9.-]{1,32})?)[\t ]*(?:;|$)/.exec(contentType(headers))?.[1];

/** Percent-encoding of a status message ("Percent-Byte-Encoded" in the protocol's grammar). */
export const grpcMessage = (text: string): string =>
  [...Buffer.from(text, 'utf8')]
    .map((byte) =>
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25 ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
    )
    .join('');
