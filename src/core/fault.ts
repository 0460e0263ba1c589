/**
 * Every way an exchange can go wrong: one table. A code is stable; its status, blame and sentences may be read by programs,
 * people and README.md (checked by test/tidy.test.ts). `cause` and `detail` are for the log, except where a file says that a
 * detail is safe to show: only proxy/respond.ts writes faults to clients, and rpc/status.ts to gRPC peers.
 */
import type { Decision } from './policy.ts';

export type Blame = 'client' | 'policy' | 'identity' | 'broker' | 'collector' | 'target' | 'outrider';

/** gRPC status names as in the specification (https://grpc.github.io/grpc/core/md_doc_statuscodes.html). */
export type GrpcStatus =
  | 'CANCELLED'
  | 'UNKNOWN'
  | 'INVALID_ARGUMENT'
  | 'DEADLINE_EXCEEDED'
  | 'NOT_FOUND'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'UNIMPLEMENTED'
  | 'INTERNAL'
  | 'UNAVAILABLE'
  | 'UNAUTHENTICATED';

export interface FaultRow {
  readonly status: number;
  readonly grpc: GrpcStatus;
  readonly blame: Blame;
  /** Whether the same request may succeed a little later. */
  readonly retry: boolean;
  /** Proxy-Status error type (RFC 9209 section 2.3). */
  readonly proxyStatus: string;
  /** What happened: the problem's title (RFC 9457 section 3.1.3). */
  readonly title: string;
  /** What to ask for, and of whom. */
  readonly ask: string;
}

const row = (
  status: number,
  grpc: GrpcStatus,
  blame: Blame,
  retry: boolean,
  proxyStatus: string,
  title: string,
  ask: string,
): FaultRow => ({ status, grpc, blame, retry, proxyStatus, title, ask });

// biome-ignore format: a table reads best as a table
export const faults = {
  // The request itself
  request_malformed: row(400, 'INVALID_ARGUMENT', 'client', false, 'http_request_error', 'The request is not valid HTTP.', 'Correct the request; the connection was closed.'),
  framing_invalid: row(400, 'INVALID_ARGUMENT', 'client', false, 'http_request_error', 'The request frames its body in a conflicting or unusual way.', 'Send one Content-Length or one "Transfer-Encoding: chunked"; the connection was closed.'),
  path_ambiguous: row(400, 'INVALID_ARGUMENT', 'client', false, 'http_request_error', 'The path can be read in more than one way.', 'Send the path without dot segments, empty segments, backslashes, ";" or encoded separators.'),
  authority_invalid: row(400, 'INVALID_ARGUMENT', 'client', false, 'http_request_error', 'The destination is missing or not a valid host and port.', 'Send exactly one Host with a plain host name or address.'),
  authority_mismatch: row(421, 'INVALID_ARGUMENT', 'client', false, 'http_request_error', 'CONNECT, TLS server name, Host and request target do not name the same destination.', 'Use the same host and port in all of them; no credential was sent.'),
  method_refused: row(405, 'INVALID_ARGUMENT', 'client', false, 'http_request_denied', 'This method is never forwarded.', 'TRACE would echo the credential, and CONNECT cannot be nested: use another method.'),
  request_timeout: row(408, 'DEADLINE_EXCEEDED', 'client', true, 'http_request_error', 'The request did not arrive in time.', 'Send the header block without pauses.'),
  expectation_failed: row(417, 'INVALID_ARGUMENT', 'client', false, 'http_request_error', 'The Expect field asks for something other than 100-continue.', 'Send "Expect: 100-continue" or no Expect.'),
  headers_too_large: row(431, 'INVALID_ARGUMENT', 'client', false, 'http_request_error', 'The header block is larger than this proxy accepts.', 'Send fewer or shorter fields (100 fields, 32 KiB, request target 8 KiB).'),
  placeholder_missing: row(403, 'PERMISSION_DENIED', 'client', false, 'http_request_denied', 'The request does not show the placeholder that this target asks for.', 'Give the program the placeholder of the target in place of a credential.'),
  placeholder_misplaced: row(400, 'INVALID_ARGUMENT', 'client', false, 'http_request_denied', 'The placeholder stands where no credential goes, and it never leaves the pod.', 'Send the placeholder only in the place that the target names.'),
  credential_place_missing: row(400, 'INVALID_ARGUMENT', 'client', false, 'http_request_denied', 'The request has no place for the credential.', 'Send the request in the form that the target asks for: the path segment or the body field that holds the credential must be there.'),
  body_too_large: row(413, 'INVALID_ARGUMENT', 'client', false, 'http_request_error', 'The body is too large to be read whole, which this placement needs.', 'Send less (1 MiB), or ask the platform team for a placement that does not need the body.'),
  signature_unsupported: row(400, 'INVALID_ARGUMENT', 'client', false, 'http_request_denied', 'The request is signed in a way that cannot be replaced.', 'Configure the program to sign with AWS Signature Version 4 in the header or in the query, or not at all.'),
  client_closed: row(499, 'CANCELLED', 'client', true, 'http_request_error', 'The program closed the connection before the answer was complete.', 'Nothing: this is recorded, not sent.'),
  overloaded: row(503, 'RESOURCE_EXHAUSTED', 'outrider', true, 'connection_limit_reached', 'More is asked at once than can be done.', 'Retry after a pause; the detail says what is short.'),

  // Where it wants to go
  destination_unmatched: row(403, 'PERMISSION_DENIED', 'policy', false, 'http_request_denied', 'No target names this destination.', 'Ask the platform team to add a target for this host and port, or to set onUnmatched: tunnel.'),
  destination_prohibited: row(403, 'PERMISSION_DENIED', 'policy', false, 'destination_ip_prohibited', 'The destination resolves to an address that must not be dialled.', 'Ask the platform team: loopback, link-local, metadata and private addresses need a target or a resolve entry that names them.'),
  cleartext_refused: row(403, 'PERMISSION_DENIED', 'policy', false, 'http_request_denied', 'A credential for this target must not travel in clear text.', 'Use https, or ask the platform team to set cleartext: allowed on the target.'),

  // Policy
  policy_denied: row(403, 'PERMISSION_DENIED', 'policy', false, 'http_request_denied', 'Policy does not allow this request.', 'Ask the owner of the named policy for a rule that allows this workload, target, method and path.'),

  // Who is asking
  not_ready: row(503, 'UNAVAILABLE', 'outrider', true, 'proxy_internal_response', 'The proxy has no identity or configuration yet.', 'Retry shortly; /readyz says what is missing.'),
  draining: row(503, 'UNAVAILABLE', 'outrider', true, 'proxy_internal_response', 'The proxy is shutting down.', 'Retry on a new connection.'),
  evidence_missing: row(503, 'UNAUTHENTICATED', 'identity', true, 'proxy_configuration_error', 'The workload has no identity token to show.', 'Ask the platform team to mount the projected service-account token.'),
  evidence_expired: row(503, 'UNAUTHENTICATED', 'identity', true, 'proxy_configuration_error', "The workload's identity token has expired.", 'Ask the platform team why the token file is not rotated.'),
  evidence_not_yet_valid: row(503, 'UNAUTHENTICATED', 'identity', true, 'proxy_configuration_error', "The workload's identity token is not valid yet.", 'Ask the platform team to compare the clocks of issuer and broker.'),
  evidence_audience: row(403, 'UNAUTHENTICATED', 'identity', false, 'proxy_configuration_error', "The workload's identity token is for another audience.", "Ask the platform team to project a token with the broker's audience."),
  evidence_issuer: row(403, 'UNAUTHENTICATED', 'identity', false, 'proxy_configuration_error', "The workload's identity token is from an issuer the broker does not trust.", 'Ask the platform team to add an attestor for this issuer.'),
  evidence_invalid: row(403, 'UNAUTHENTICATED', 'identity', false, 'proxy_configuration_error', "The workload's identity token could not be verified.", 'Ask the platform team for a genuine, pod-bound token.'),
  evidence_unverifiable: row(503, 'UNAVAILABLE', 'broker', true, 'proxy_internal_response', 'The broker cannot reach what verifies the identity token.', 'Retry shortly; ask the platform team to check the issuer or API server.'),
  workload_unknown: row(403, 'PERMISSION_DENIED', 'identity', false, 'http_request_denied', 'The workload is genuine, but none that the broker knows.', 'Ask the platform team to add a workload that matches its attributes.'),
  identity_expired: row(503, 'UNAUTHENTICATED', 'identity', true, 'proxy_internal_response', "The workload's certificate has expired and could not be renewed.", 'Retry shortly; ask the platform team if it stays.'),
  identity_refused: row(503, 'UNAUTHENTICATED', 'identity', true, 'proxy_internal_response', "The broker does not accept the workload's certificate.", 'Retry shortly; the proxy attests anew.'),
  certificate_request_invalid: row(503, 'INVALID_ARGUMENT', 'outrider', false, 'proxy_internal_error', 'The certificate request is not valid or does not prove its key.', 'Report this: the proxy sent what the broker cannot read.'),

  // Broker
  broker_unavailable: row(503, 'UNAVAILABLE', 'broker', true, 'proxy_internal_response', 'The broker cannot be reached.', 'Retry shortly; ask the platform team to check the broker.'),
  broker_untrusted: row(502, 'UNAVAILABLE', 'broker', false, 'proxy_internal_response', "The broker's certificate is not the expected one.", 'Ask the platform team to compare the trust bundle and SPIFFE ID configured for the broker.'),
  broker_timeout: row(504, 'DEADLINE_EXCEEDED', 'broker', true, 'proxy_internal_response', 'The broker did not answer in time.', 'Retry shortly; ask the platform team to check the broker.'),
  broker_error: row(502, 'INTERNAL', 'broker', true, 'proxy_internal_response', 'The broker failed to answer.', "Ask the platform team to look for the request in the broker's log."),
  target_unknown: row(503, 'NOT_FOUND', 'broker', true, 'proxy_internal_response', 'The broker no longer knows this target.', 'Retry shortly; the proxy is being told of the change.'),
  credential_unavailable: row(502, 'FAILED_PRECONDITION', 'broker', true, 'proxy_internal_response', 'The credential for this target could not be obtained.', 'Ask the platform team to check the provider of this target.'),
  credential_invalid: row(502, 'FAILED_PRECONDITION', 'broker', false, 'proxy_internal_response', 'The credential cannot be written into a request.', "Ask the platform team to check the provider's value: it is empty, too long or has control characters."),

  // Collector
  event_backlog: row(503, 'RESOURCE_EXHAUSTED', 'collector', true, 'proxy_internal_response', 'Access cannot be recorded, so no credential is used.', 'Retry shortly; ask the platform team to check the collector.'),
  event_refused: row(403, 'PERMISSION_DENIED', 'outrider', false, 'proxy_internal_error', 'The collector refuses an access event of this proxy.', 'Report this: the event names another workload than its sender, or is not well-formed.'),
  event_store_failed: row(503, 'UNAVAILABLE', 'collector', true, 'proxy_internal_response', 'The collector cannot store access events now.', 'Ask the platform team to check the disk of the collector.'),

  // Target
  target_unresolved: row(502, 'UNAVAILABLE', 'target', true, 'dns_error', 'The host name of the target cannot be resolved.', 'Check the name; ask the platform team to check DNS.'),
  target_refused: row(502, 'UNAVAILABLE', 'target', true, 'connection_refused', 'The target refused the connection.', 'Check that the target is running.'),
  target_unreachable: row(502, 'UNAVAILABLE', 'target', true, 'destination_unavailable', 'The target cannot be reached.', 'Check the network between the pod and the target.'),
  target_connect_timeout: row(504, 'DEADLINE_EXCEEDED', 'target', true, 'connection_timeout', 'The target did not accept the connection in time.', 'Check the network between the pod and the target.'),
  target_certificate_invalid: row(502, 'UNAVAILABLE', 'target', false, 'tls_certificate_error', "The target's certificate is not valid for its name.", 'Ask the owner of the target to mend its certificate, or the platform team to trust its authority.'),
  target_tls_failed: row(502, 'UNAVAILABLE', 'target', true, 'tls_protocol_error', 'The TLS handshake with the target failed.', 'Ask the owner of the target which TLS versions it offers.'),
  target_closed: row(502, 'UNAVAILABLE', 'target', true, 'connection_terminated', 'The target closed the connection before it answered.', 'Retry if the request may be repeated.'),
  target_timeout: row(504, 'DEADLINE_EXCEEDED', 'target', true, 'http_response_timeout', 'The target did not answer in time.', 'Retry if the request may be repeated.'),
  target_malformed: row(502, 'UNAVAILABLE', 'target', false, 'http_protocol_error', 'The target answered with something that is not valid HTTP.', 'Ask the owner of the target.'),
  target_protocol: row(502, 'FAILED_PRECONDITION', 'target', false, 'http_protocol_error', 'The target does not speak the protocol that this request needs.', 'Ask the platform team to compare the protocol of the target with what the service speaks: gRPC needs HTTP/2, upgrades need HTTP/1.1.'),
  upstream_proxy_unreachable: row(502, 'UNAVAILABLE', 'target', true, 'destination_unavailable', 'The proxy on the way to the target cannot be reached.', 'Ask the platform team to check upstream.proxy.'),
  upstream_proxy_refused: row(502, 'UNAVAILABLE', 'target', false, 'connection_refused', 'The proxy on the way to the target refused the connection.', 'Ask the platform team to check the rules and the credentials of upstream.proxy.'),
  target_echoed: row(502, 'UNAVAILABLE', 'target', false, 'http_response_transformation', 'The answer of the target repeats the credential.', 'Use another endpoint; ask the owner of the target why it answers with credentials.'),
  target_unsearchable: row(502, 'UNAVAILABLE', 'target', false, 'http_response_transformation', 'The answer of the target cannot be searched for the credential.', 'Ask for an answer without compression (Accept-Encoding: identity), or the platform team to set echo: redact for this target.'),
  target_truncated: row(502, 'UNAVAILABLE', 'target', true, 'http_response_incomplete', 'The target broke off in the middle of its answer.', 'Retry if the request may be repeated; what arrived is not complete.'),

  // Us
  internal: row(500, 'INTERNAL', 'outrider', false, 'proxy_internal_error', 'Outrider failed.', 'Report this with the instance of this problem.'),
} as const satisfies Record<string, FaultRow>;

export type FaultCode = keyof typeof faults;

export const isFaultCode = (code: string): code is FaultCode => Object.hasOwn(faults, code);

export interface FaultDetail {
  /** What exactly, in words that hold no secret and nothing of the internals: shown to the client. */
  readonly detail?: string;
  /** The refusing decision, if there is one: shown to the client. */
  readonly decision?: Decision;
  /** For the log alone. */
  readonly cause?: unknown;
}

/** A bad exchange. A bug is an assert instead; a bad setting is a problem collected with the others (settings/). */
export class Fault extends Error {
  readonly code: FaultCode;
  readonly detail: string;
  readonly decision: Decision | undefined;

  constructor(code: FaultCode, { detail = '', decision, cause }: FaultDetail = {}) {
    super(detail === '' ? faults[code].title : `${faults[code].title} ${detail}`, { cause });
    this.name = 'Fault';
    this.code = code;
    this.detail = detail;
    this.decision = decision;
  }

  get row(): FaultRow {
    return faults[this.code];
  }
}

/** Anything thrown as a Fault: what is none becomes `fallback` with the thrown value as its cause. */
export const asFault = (thrown: unknown, fallback: FaultCode = 'internal'): Fault =>
  thrown instanceof Fault ? thrown : new Fault(fallback, { cause: thrown });
