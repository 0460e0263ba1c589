/**
 * inject: writes the credentials of a grant into a request. Order is the law here: hop-by-hop fields go first, then every
 * spelling of the places to be written, then each credential is set, never appended. A client certificate is not written but
 * becomes a term of the connection. Pure; one of the few callers of reveal().
 */
import type { Budget } from '../core/budget.ts';
import type { Destination, Scheme } from '../core/destination.ts';
import { Fault } from '../core/fault.ts';
import type { Grant, Placement, PlacementKind } from '../core/grant.ts';
import { type HeaderList, overridingFields, sameNameKeys, without, withoutHopByHop } from '../core/headers.ts';
import { Secret } from '../core/secret.ts';
import type { Target } from '../core/target.ts';
import type { ConnectionTerms } from '../net/outbound.ts';
import { asPrepared, type Authorized, type BodySource, type Prepared, type Routed } from './exchange.ts';
import { awsSigV4 } from './inject/aws-sigv4.ts';
import { basic } from './inject/basic.ts';
import { bearer } from './inject/bearer.ts';
import { bodyField } from './inject/body-field.ts';
import { clientCertificateOf, isShown } from './inject/client-certificate.ts';
import { cookie } from './inject/cookie.ts';
import { dpop } from './inject/dpop.ts';
import { header } from './inject/header.ts';
import { hmac } from './inject/hmac.ts';
import { pathSegment } from './inject/path-segment.ts';
import { requirePlaceholder, withoutPlaceholder } from './inject/placeholder.ts';
import { query } from './inject/query.ts';

export { asksForNonce, nonceOf } from './inject/dpop.ts';

/** One kind of placement: where it writes, and what. `V`: what it reads the credential's text as. */
export interface Placer<P extends Placement = Placement, V = string> {
  /** Throws credential_invalid. Called once for each credential of a grant. */
  readonly read: (text: string) => V;
  /** What the target is shown of it, and must not say again; nothing for keys that only sign. */
  readonly shown: (value: V, placement: P) => readonly string[];
  /** Field names it owns in a request: cleared before anything is written. */
  readonly fields: (placement: P) => readonly string[];
  /** Whether the body must be read whole before `place`. */
  readonly needsWholeBody?: (draft: Draft, placement: P) => boolean;
  /** `draft.headers` have been cleared of `fields` in `place`; `original` has what the program sent. Throws a Fault. */
  readonly place: (draft: Draft, placement: P, value: V, context: PlaceContext) => Draft;
  /** Signs what the others wrote, so it comes last. At most one in a grant. */
  readonly isSignature?: true;
}

/** A request while it is being written: what is in it when the last placement is done is sent. */
export interface Draft {
  readonly method: string;
  readonly destination: Destination;
  /** As it was judged; placements in the path change it. */
  readonly path: string;
  /** With its "?", or ''. */
  readonly query: string;
  readonly headers: HeaderList;
  /** `held` where the placement said that it needs the whole body. A placement that changes it also sets Content-Length. */
  readonly body: BodySource | undefined;
}

export interface PlaceContext {
  /** Wall clock. */
  readonly nowMs: number;
  readonly uuid: () => string;
  /** What a placement holds of a body while it passes is taken from it. */
  readonly buffers: Budget;
  /** What the target asked to see in a proof (RFC 9449 section 8), where it did. */
  readonly nonce?: string | undefined;
  /** The header list as the program sent it, for placements that replace a signature. */
  readonly original: HeaderList;
}

type WrittenKind = Exclude<PlacementKind, 'client_certificate'>;
/** Each placer reads its own kind of value, and is given no other. */
type AnyPlacer<P extends Placement> = Omit<Placer<P, never>, 'read'> & { readonly read: (text: string) => unknown };
const placers: { readonly [K in WrittenKind]: AnyPlacer<Extract<Placement, { kind: K }>> } = {
  bearer,
  basic,
  header,
  query,
  cookie,
  path_segment: pathSegment,
  body_field: bodyField,
  hmac,
  aws_sigv4: awsSigV4,
  dpop,
};

const placerOf = (placement: Placement): Placer<Placement, unknown> => {
  const found = (placers as Readonly<Record<string, unknown>>)[placement.kind] as Placer<Placement, unknown> | undefined;
  if (!found) throw new Fault('credential_invalid', { detail: 'Its placement is unknown to this proxy.' });
  return found;
};

interface Written {
  readonly placement: Placement;
  readonly placer: Placer<Placement, unknown>;
  readonly value: unknown;
}

/** What a grant writes into every request: read once, because parsing keys costs more than placing them. */
interface Plan {
  readonly written: readonly Written[];
  /** Spellings of the fields that are cleared. */
  readonly owned: ReadonlySet<string>;
  readonly unspoken: readonly Secret[];
}

const plans = new WeakMap<Grant, Plan>();

const planOf = (grant: Grant): Plan => {
  const known = plans.get(grant);
  if (known) return known;
  const written = grant.credentials
    .filter((credential) => !isShown(credential))
    .map(({ placement, value }): Written => {
      const placer = placerOf(placement);
      return { placement, placer, value: placer.read(value.reveal()) };
    });
  const signatures = written.filter(({ placer }) => placer.isSignature);
  if (signatures.length > 1) throw new Fault('credential_invalid', { detail: 'There are two signatures for one request.' });
  const plan: Plan = {
    written: [...written.filter(({ placer }) => !placer.isSignature), ...signatures],
    owned: sameNameKeys(written.flatMap(({ placement, placer }) => placer.fields(placement))),
    unspoken: written.flatMap(({ placement, placer, value }) => placer.shown(value, placement).map((text) => new Secret(text))),
  };
  plans.set(grant, plan);
  return plan;
};

/** RFC 9110 section 10.1.1: our own hop answers Expect, so the next one does not see it. */
const answeredHere = sameNameKeys(['host', 'expect']);

const draftOf = ({ method, destination, path, headers, body }: Authorized, owned: ReadonlySet<string>): Draft => ({
  method,
  destination,
  path: path.path,
  query: path.query,
  headers: without(withoutHopByHop(headers), answeredHere, overridingFields, owned),
  body,
});

/** Throws credential_invalid. */
export const needsWholeBody = (authorized: Authorized): boolean => {
  const { written } = planOf(authorized.grant);
  if (authorized.body === undefined || !written.some(({ placer }) => placer.needsWholeBody)) return false;
  const draft: Draft = { ...draftOf(authorized, new Set()), headers: authorized.headers };
  return written.some(({ placer, placement }) => placer.needsWholeBody?.(draft, placement));
};

/** Throws credential_invalid when a credential cannot be written, and what its placement has against the request. */
export const inject = (authorized: Authorized, context: Omit<PlaceContext, 'original'>): Prepared => {
  const { grant, route, destination } = authorized;
  const { written, owned, unspoken } = planOf(grant);
  const places = { ...context, original: authorized.headers };
  const cleared = draftOf(authorized, owned);
  requirePlaceholder({ ...cleared, headers: authorized.headers }, grant, route.target);
  const placed = written.reduce((before, { placer, placement, value }) => placer.place(before, placement, value, places), cleared);
  const draft = withoutPlaceholder(placed, route.target);
  return asPrepared({
    accepted: authorized,
    destination,
    method: draft.method,
    path: draft.path + draft.query,
    headers: draft.headers,
    body: draft.body,
    connection: connectionTo(route.target, grant, destination.scheme),
    isCredentialed: true,
    unspoken,
    echo: route.target.echo,
  });
};

interface Terms {
  readonly target: Target;
  readonly scheme: Scheme;
  readonly terms: ConnectionTerms;
}

const termsOfGrants = new WeakMap<Grant, Terms>();

/** The same terms for all requests under a grant: by them a connection is found. */
const connectionTo = (target: Target, grant: Grant, scheme: Scheme): ConnectionTerms => {
  const last = termsOfGrants.get(grant);
  if (last?.target === target && last.scheme === scheme) return last.terms;
  const { protocol, trustBundlePem, tlsVersionMin } = target;
  const terms = { protocol, trustBundlePem, tlsVersionMin, clientCertificate: clientCertificateOf(grant.credentials, scheme) };
  termsOfGrants.set(grant, { target, scheme, terms });
  return terms;
};

/** What passes goes where the program was going, as it would have gone by itself. */
const passing: ConnectionTerms = { protocol: 'auto', trustBundlePem: '', tlsVersionMin: 'TLSv1.2', clientCertificate: undefined };

/**
 * HTTP/2 in clear text has no handshake in which a server could choose: a program that speaks it to an address knows what is there, and
 * what is there may know nothing else.
 */
const passingAs = ({ protocol, scheme, originalAddress }: Routed): ConnectionTerms =>
  protocol === 'h2' && scheme === 'http' && originalAddress !== undefined ? { ...passing, protocol: 'h2' } : passing;

/** pass: what goes on without a credential; only what must not travel is taken off. */
export const pass = (routed: Routed): Prepared =>
  asPrepared({
    accepted: routed,
    destination: routed.destination,
    method: routed.method,
    path: routed.path.path + routed.path.query,
    headers: without(withoutHopByHop(routed.headers), answeredHere),
    body: routed.body,
    connection: passingAs(routed),
    isCredentialed: false,
    unspoken: [],
    echo: 'pass',
  });
