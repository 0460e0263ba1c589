/**
 * What is known of a program's connection before its first request, by whatever way in it came. Both HTTP engines ask it of a
 * socket; a connection without such claims is one to the forward proxy itself.
 */
import { randomUUID } from 'node:crypto';
import type { Duplex } from 'node:stream';
import type { Scheme } from '../../core/destination.ts';
import type { Fault } from '../../core/fault.ts';
import { type HeaderList, valuesOf } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { DialAddress } from '../../net/dial.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Accepted } from '../exchange.ts';

export interface ConnectionClaims {
  /** `host:port` that the whole connection is for; undefined where only its requests say (HTTP/2 in clear text, transparent). */
  readonly connect: string | undefined;
  /** The TLS server name. */
  readonly sni: string | undefined;
  readonly scheme: Scheme;
  /** Names of a reverse route's own listener: a Host that says one of them claims nothing. Lower case. */
  readonly ownAuthorities: readonly string[];
  /** Where the connection was going, in transparent mode. */
  readonly originalAddress: DialAddress | undefined;
}

/** Claims by socket: set by the way in, read by the engines. */
export type Connections = WeakMap<Duplex, ConnectionClaims>;

export interface EngineHandlers {
  /** Never rejects: it has answered, one way or the other. `isFurther`: another one of its connection is under way. */
  readonly request: (accepted: Accepted, isFurther: boolean) => Promise<void>;
  /** A request that never became an exchange. */
  readonly refused: (fault: Fault) => void;
}

/** How long programs are waited for; limits.ts says why. */
export interface Patience {
  readonly keepAliveMs: number;
  readonly bodyIdleMs: number;
  readonly stallMs: number;
  readonly lostLookMs: number;
  /** When room is needed. */
  readonly idleReclaimMs: number;
  readonly slowReclaimMs: number;
}

export const ordinaryPatience: Patience = {
  keepAliveMs: limits.clientKeepAliveTimeoutMs,
  bodyIdleMs: limits.bodyIdleTimeoutMs,
  stallMs: limits.clientStallTimeoutMs,
  lostLookMs: limits.lostLookMs,
  idleReclaimMs: limits.clientIdleReclaimMs,
  slowReclaimMs: limits.clientSlowReclaimMs,
};

export interface EngineOptions {
  readonly clock: Clock;
  readonly patience: Patience;
  readonly handlers: EngineHandlers;
  readonly connections: Connections;
}

/** The Host that a program claims: none when it names the reverse route's own listener. */
export const hostClaim = (host: string | undefined, claims: ConnectionClaims | undefined): string | undefined =>
  host !== undefined && claims?.ownAuthorities.includes(host.toLowerCase()) ? undefined : host;

/** What every exchange starts with. */
export const identifiers = (headers: HeaderList, clock: Clock) => ({
  id: randomUUID(),
  acceptedAtMs: clock.now(),
  acceptedAtMonotonic: clock.monotonic(),
  traceId: traceIdOf(valuesOf(headers, 'traceparent')),
});

/** The trace-id of a W3C traceparent (https://www.w3.org/TR/trace-context/#traceparent-header), or ''. */
const traceIdOf = ([traceparent, ...more]: readonly string[]): string => {
  if (traceparent === undefined || more.length > 0) return '';
  return /^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/.exec(traceparent)?.[1] ?? '';
};
