/**
 * A request as it grows: Accepted → Routed → Identified → Granted → Authorized → Prepared. Each type extends the last, and only
 * Prepared can be sent, so what was not judged and injected cannot leave. No stage sees the HTTP engine: bodies and answers are
 * behind BodySource and ResponseSink.
 */
import type { Duplex } from 'node:stream';
import type { AccessEventDraft, CredentialUse } from '../core/access-event.ts';
import { type Destination, hostPort, type Scheme } from '../core/destination.ts';
import type { Grant } from '../core/grant.ts';
import type { HeaderList } from '../core/headers.ts';
import type { Decision } from '../core/policy.ts';
import type { CanonicalTarget } from '../core/request-target.ts';
import type { Secret } from '../core/secret.ts';
import type { EchoTreatment, Target } from '../core/target.ts';
import type { DialAddress } from '../net/dial.ts';
import type { ConnectionTerms } from '../net/outbound.ts';

/** The names a client gave for where it wants to go, as received; undefined where it gave none. */
export interface AuthorityClaims {
  /** What the connection is for: CONNECT's request target, a reverse route's destination, the name found in transparent mode. */
  readonly connect: string | undefined;
  /** TLS server name inside the tunnel. */
  readonly sni: string | undefined;
  /** Authority of an absolute-form request target. */
  readonly absolute: string | undefined;
  /** The Host field or `:authority`. */
  readonly host: string | undefined;
}

export interface BodySource {
  /** Yields chunks as they arrive; ends by throwing a Fault when the request breaks off. Read at most once, unless `held`. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Bytes read so far. */
  readonly bytes: () => number;
  /** The trailer fields, once the chunks have ended (RFC 9110 section 6.5). */
  readonly trailers: () => HeaderList;
  /** All of it, where it was read beforehand (hold.ts). */
  readonly held?: Uint8Array;
  /** Lets go of what is held; may be called more than once. */
  readonly release?: () => void;
}

/** The program's end of the answer. */
export interface ResponseSink {
  /** An interim answer (1xx, never 101); dropped where the program's protocol has none. */
  readonly informational: (status: number, headers: HeaderList) => void;
  readonly head: (status: number, reason: string, headers: HeaderList) => void;
  /** False: wait for onDrain. */
  readonly write: (chunk: Uint8Array) => boolean;
  readonly onDrain: (resume: () => void) => void;
  readonly end: (trailers?: HeaderList) => void;
  /** Answers 101 and joins the program's connection to the target's, with back-pressure; resolves when both are closed. */
  readonly upgrade: (headers: HeaderList, target: Duplex) => Promise<void>;
  /** Bytes the program sent after its upgrade. */
  readonly upgradedBytes: () => number;
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
  /** What the program speaks on this connection; what the target speaks is chosen apart. */
  readonly protocol: ClientProtocol;
  readonly scheme: Scheme;
  readonly method: string;
  /** Origin-form, as received. */
  readonly rawTarget: string;
  readonly claims: AuthorityClaims;
  readonly headers: HeaderList;
  readonly body: BodySource | undefined;
  /** The protocol that the program asks to change to (RFC 9110 section 7.8), as received; undefined for an ordinary request. */
  readonly upgrade: string | undefined;
  /** The program waits for 100 before it sends its body (RFC 9110 section 10.1.1). */
  readonly expectsContinue: boolean;
  /** Where the program's connection was going in transparent mode. Only what passes without a credential is dialled there. */
  readonly originalAddress: DialAddress | undefined;
  readonly sink: ResponseSink;
}

export type ClientProtocol = 'http/1.0' | 'http/1.1' | 'h2';

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
  /** How the connection to the target is to be: protocol, trust, client certificate. */
  readonly connection: ConnectionTerms;
  readonly isCredentialed: boolean;
  /** What the answer must not repeat, and what happens when it does; the same list for every request of a grant. */
  readonly unspoken: readonly Secret[];
  readonly echo: EchoTreatment;
}

export const asPrepared = (value: Omit<Prepared, typeof prepared>): Prepared => value as Prepared;

/** How far a request came: all that its event, its log line and its metrics are made of. */
export type Progress = Accepted &
  Partial<Pick<Routed, 'destination' | 'path' | 'route'>> &
  Partial<Pick<Authorized, 'identity' | 'grant' | 'decision'>>;

const uses = new WeakMap<Grant, readonly CredentialUse[]>();
const noUses: readonly CredentialUse[] = [];

/** One list for all events under a grant: most of an event is the same as in the one before, and need not be made again. */
const usesOf = (grant: Grant): readonly CredentialUse[] => {
  const known = uses.get(grant);
  if (known) return known;
  const made = grant.credentials.map(({ providerKind, provider, placement, fingerprint }) => ({
    providerKind,
    provider,
    placement: placement.kind,
    fingerprint,
  }));
  uses.set(grant, made);
  return made;
};

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
  credentials: progress.grant ? usesOf(progress.grant) : noUses,
  traceId: progress.traceId,
  lostCount: 0,
  attempt: 1,
});
