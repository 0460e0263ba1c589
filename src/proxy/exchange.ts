/**
 * A request as it grows: Accepted → Routed → Identified → Granted → Authorized → Prepared. Each type extends the last, and only
 * Prepared can be sent, so what was not judged and injected cannot leave. No stage sees the HTTP engine: bodies and answers are
 * behind BodySource and ResponseSink.
 */
import type { AccessEventDraft } from '../core/access-event.ts';
import { type Destination, hostPort, type Scheme } from '../core/destination.ts';
import type { Grant } from '../core/grant.ts';
import type { HeaderList } from '../core/headers.ts';
import type { Decision } from '../core/policy.ts';
import type { CanonicalTarget } from '../core/request-target.ts';
import type { Target } from '../core/target.ts';

/** The names a client gave for where it wants to go, as received; undefined where it gave none. */
export interface AuthorityClaims {
  /** CONNECT's request target. */
  readonly connect: string | undefined;
  /** TLS server name inside the tunnel. */
  readonly sni: string | undefined;
  /** Authority of an absolute-form request target. */
  readonly absolute: string | undefined;
  /** The Host field. */
  readonly host: string | undefined;
}

export interface BodySource {
  /** Yields chunks as they arrive; ends by throwing a Fault when the request breaks off. Read at most once. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Bytes read so far. */
  readonly bytes: () => number;
}

/** The program's end of the answer. */
export interface ResponseSink {
  readonly head: (status: number, reason: string, headers: HeaderList) => void;
  /** False: wait for onDrain. */
  readonly write: (chunk: Uint8Array) => boolean;
  readonly onDrain: (resume: () => void) => void;
  readonly end: () => void;
  /** Breaks the connection, so that a truncated answer cannot be taken for a whole one. */
  readonly abort: () => void;
  /** Calls back when the program goes away before the answer is complete. */
  readonly onGone: (gone: () => void) => void;
  readonly hasStarted: () => boolean;
  readonly status: () => number;
  readonly bytes: () => number;
  /** Monotonic ms of the first byte written; 0 before. */
  readonly firstByteAt: () => number;
}

/** An admitted request: framing and syntax are sound, nothing is known of where it may go. */
export interface Accepted {
  /** UUID: the problem's instance, and what joins intent and outcome. */
  readonly id: string;
  readonly acceptedAtMs: number;
  readonly acceptedAtMonotonic: number;
  readonly traceId: string;
  readonly scheme: Scheme;
  readonly method: string;
  /** Origin-form, as received. */
  readonly rawTarget: string;
  readonly claims: AuthorityClaims;
  readonly headers: HeaderList;
  readonly body: BodySource | undefined;
  readonly sink: ResponseSink;
}

/** Where it goes: a target (to be credentialed) or elsewhere (to be passed without a credential). */
export interface Routed extends Accepted {
  readonly destination: Destination;
  readonly path: CanonicalTarget;
  readonly route: Route;
}

export type Route = { readonly kind: 'target'; readonly target: Target; readonly configurationVersion: string } | { readonly kind: 'pass' };

export interface RoutedToTarget extends Routed {
  readonly route: Route & { readonly kind: 'target' };
}

export interface Identity {
  readonly spiffeId: string;
  readonly attestationId: string;
}

export interface Identified extends RoutedToTarget {
  readonly identity: Identity;
}

export interface Granted extends Identified {
  readonly grant: Grant;
}

export interface Authorized extends Granted {
  readonly decision: Decision;
}

declare const prepared: unique symbol;

/** What may be sent: the only input of the upstream stage. Made by inject (with a credential) or pass (without). */
export interface Prepared {
  readonly [prepared]: true;
  readonly accepted: Accepted;
  readonly destination: Destination;
  readonly method: string;
  /** Path and query with query placements applied: may hold a credential, never logged. */
  readonly path: string;
  /** May hold a credential, never logged. */
  readonly headers: HeaderList;
  readonly body: BodySource | undefined;
  readonly trustBundlePem: string;
  readonly isCredentialed: boolean;
}

export const asPrepared = (value: Omit<Prepared, typeof prepared>): Prepared => value as Prepared;

/** How far a request came: all that its event, its log line and its metrics are made of. */
export type Progress = Accepted &
  Partial<Pick<Routed, 'destination' | 'path' | 'route'>> &
  Partial<Pick<Authorized, 'identity' | 'grant' | 'decision'>>;

/** A request's share of an access event; the pipeline adds kind and outcome. */
export const eventOf = (progress: Progress): Omit<AccessEventDraft, 'kind' | 'timeMs' | 'outcome'> => ({
  requestId: progress.id,
  workload: progress.identity?.spiffeId ?? '',
  attestationId: progress.identity?.attestationId ?? '',
  target: progress.route?.kind === 'target' ? progress.route.target.name : '',
  destination: progress.destination ? hostPort(progress.destination) : '',
  scheme: progress.scheme,
  method: progress.method,
  path: progress.path?.path ?? '',
  decision: progress.decision,
  grantId: progress.grant?.id ?? '',
  credentials: (progress.grant?.credentials ?? []).map(({ providerKind, provider, placement, fingerprint }) => ({
    providerKind,
    provider,
    placement: placement.kind,
    fingerprint,
  })),
  traceId: progress.traceId,
  lostCount: 0,
});
