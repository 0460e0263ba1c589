/**
 * route: where a request goes. All the names a client gave become one destination or nothing; a destination that a target names
 * is credentialed, any other is passed or refused. Pure.
 */
import { type Authority, defaultPort, type Destination, hostPort, parseAuthority } from '../core/destination.ts';
import { Fault } from '../core/fault.ts';
import { type CanonicalTarget, canonicalTarget, verbatimTarget } from '../core/request-target.ts';
import type { Target, TargetSnapshot } from '../core/target.ts';
import type { Accepted, AuthorityClaims, Route, Routed } from './exchange.ts';

export interface RoutingTable {
  readonly configurationVersion: string;
  /** `host:port` to target; a map, so that ten thousand targets cost what ten do. */
  readonly byDestination: ReadonlyMap<string, Target>;
  /** Ports that targets name, and whether one of these targets takes a credential in clear text. */
  readonly ports: ReadonlyMap<number, { readonly cleartextAllowed: boolean }>;
}

export const routingTable = ({ configurationVersion, targets }: TargetSnapshot): RoutingTable => {
  const byDestination = new Map<string, Target>();
  const contested = new Set<string>();
  for (const target of targets) {
    for (const host of target.hosts) {
      for (const port of target.ports) {
        const key = hostPort({ host, port });
        // Injection needs exactly one match; the broker refuses such configurations, and so do we (LESSONS 26).
        if (byDestination.has(key)) contested.add(key);
        byDestination.set(key, target);
      }
    }
  }
  for (const key of contested) byDestination.delete(key);
  const ports = new Map<number, { cleartextAllowed: boolean }>();
  for (const { ports: named, cleartextAllowed } of targets) {
    for (const port of named) ports.set(port, { cleartextAllowed: cleartextAllowed || ports.get(port)?.cleartextAllowed === true });
  }
  return { configurationVersion, byDestination, ports };
};

export interface RoutePolicy {
  readonly onUnmatched: 'tunnel' | 'refuse';
}

const readClaim = (claim: string): Authority => {
  const authority = parseAuthority(claim);
  if (!authority) throw new Fault('authority_invalid');
  return authority;
};

/**
 * The one destination that all claims agree on. A claim without a port means the scheme's default. Throws authority_invalid for
 * a claim that is no authority or when there is none, authority_mismatch for any disagreement (invariant I2).
 */
export const reconcile = (scheme: Destination['scheme'], claims: AuthorityClaims): Destination => {
  const withPort = [claims.connect, claims.absolute, claims.host]
    .filter((claim) => claim !== undefined)
    .map(readClaim)
    .map(({ host, port }) => ({ scheme, host, port: port ?? defaultPort(scheme) }));
  const [first] = withPort;
  if (!first) throw new Fault('authority_invalid', { detail: 'Nothing names a destination.' });
  const isSame = withPort.every(({ host, port }) => host === first.host && port === first.port);
  // A server name has no port; a client that sends none (an IP literal, an old library) makes no claim.
  const sni = claims.sni === undefined ? undefined : readClaim(claims.sni);
  if (!isSame || (sni && (sni.host !== first.host || sni.port !== undefined))) throw new Fault('authority_mismatch');
  return first;
};

/** Where a tunnel leads: the same tables, asked before anything is decrypted. */
export const routeTunnel = (connect: string, table: RoutingTable, policy: RoutePolicy): { destination: Destination; route: Route } => {
  const { host, port } = readClaim(connect);
  if (port === undefined) throw new Fault('authority_invalid', { detail: 'CONNECT needs a port.' });
  const destination: Destination = { scheme: 'https', host, port };
  return { destination, route: routeOf(destination, table, policy) };
};

const routeOf = (destination: Destination, table: RoutingTable, policy: RoutePolicy): Route => {
  const target = table.byDestination.get(hostPort(destination));
  if (target) return { kind: 'target', target, configurationVersion: table.configurationVersion };
  if (policy.onUnmatched === 'refuse') throw new Fault('destination_unmatched');
  return { kind: 'pass' };
};

/** Throws authority_*, destination_unmatched, cleartext_refused, path_ambiguous. */
export const route = (accepted: Accepted, table: RoutingTable, policy: RoutePolicy): Routed => {
  const destination = reconcile(accepted.scheme, accepted.claims);
  const chosen = routeOf(destination, table, policy);
  if (chosen.kind === 'target' && destination.scheme === 'http' && !chosen.target.cleartextAllowed) throw new Fault('cleartext_refused');
  return {
    ...accepted,
    destination,
    route: chosen,
    path: chosen.kind === 'target' ? judgedPath(accepted.rawTarget, chosen.target) : passedPath(accepted.rawTarget),
  };
};

const judgedPath = (raw: string, { paths }: Target): CanonicalTarget => {
  const path = paths === 'verbatim' ? verbatimTarget(raw) : canonicalTarget(raw);
  if ('problem' in path) throw new Fault('path_ambiguous', { detail: `Refused because ${path.problem}.` });
  return path;
};

/** Traffic that carries no credential is not judged by path and keeps its own spelling. */
const passedPath = (raw: string): CanonicalTarget => {
  const mark = raw.indexOf('?');
  return mark < 0 ? { path: raw, query: '' } : { path: raw.slice(0, mark), query: raw.slice(mark) };
};
