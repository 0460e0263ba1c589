/**
 * inject: writes the credentials of a grant into a request. Order is the law here: hop-by-hop fields go first, then every
 * spelling of the places to be written, then each credential is set, never appended. A client certificate is not written but
 * becomes a term of the connection. Pure; one of the few callers of reveal().
 */
import type { Scheme } from '../core/destination.ts';
import { Fault } from '../core/fault.ts';
import type { Grant, PlacedCredential, Placement, PlacementKind } from '../core/grant.ts';
import { type HeaderList, overridingFields, sameNameKeys, without, withoutHopByHop, writableValue } from '../core/headers.ts';
import type { Target } from '../core/target.ts';
import type { ConnectionTerms } from '../net/outbound.ts';
import { asPrepared, type Authorized, type Prepared, type Routed } from './exchange.ts';
import { basic } from './inject/basic.ts';
import { bearer } from './inject/bearer.ts';
import { clientCertificateOf, isShown } from './inject/client-certificate.ts';
import { header } from './inject/header.ts';
import { query } from './inject/query.ts';

/** One kind of placement: where it writes, and what. */
export interface Placer<P extends Placement = Placement> {
  /** Field names it owns in a request: cleared before anything is written. */
  readonly fields: (placement: P) => readonly string[];
  readonly place: (draft: Draft, placement: P, value: string) => Draft;
}

export interface Draft {
  readonly headers: HeaderList;
  /** With its "?", or ''. */
  readonly query: string;
}

type WrittenKind = Exclude<PlacementKind, 'client_certificate'>;
const placers: { readonly [K in WrittenKind]: Placer<Extract<Placement, { kind: K }>> } = { bearer, basic, header, query };

const placerOf = (placement: Placement): Placer => {
  const found = (placers as Readonly<Record<string, Placer>>)[placement.kind];
  if (!found) throw new Fault('credential_invalid', { detail: 'Its placement is unknown to this proxy.' });
  return found;
};

/** RFC 9110 section 10.1.1: our own hop answers Expect, so the next one does not see it. */
const answeredHere = sameNameKeys(['host', 'expect']);

/** Throws credential_invalid when a credential cannot be written. */
export const inject = (authorized: Authorized): Prepared => {
  const { grant, path, headers, route, ...rest } = authorized;
  const written = grant.credentials.filter((credential) => !isShown(credential));
  const owned = written.flatMap(({ placement }) => placerOf(placement).fields(placement));
  const cleared = without(withoutHopByHop(headers), answeredHere, overridingFields, sameNameKeys(owned));
  const start: Draft = { headers: cleared, query: path.query };
  const draft = written.reduce(place, start);
  return asPrepared({
    accepted: authorized,
    destination: rest.destination,
    method: rest.method,
    path: path.path + draft.query,
    headers: draft.headers,
    body: rest.body,
    connection: connectionTo(route.target, grant, rest.destination.scheme),
    isCredentialed: true,
  });
};

const place = (draft: Draft, { placement, value }: PlacedCredential): Draft => {
  const revealed = value.reveal();
  if (revealed === '' || !writableValue(revealed)) throw new Fault('credential_invalid');
  return placerOf(placement).place(draft, placement, revealed);
};

const connectionTo = ({ protocol, trustBundlePem, tlsVersionMin }: Target, grant: Grant, scheme: Scheme): ConnectionTerms => ({
  protocol,
  trustBundlePem,
  tlsVersionMin,
  clientCertificate: clientCertificateOf(grant.credentials, scheme),
});

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
  });
