/**
 * CONNECT: intercepted when a target names the destination, so that its requests come back through pipeline.ts one by one; else
 * tunnelled untouched or refused, as configured. Never carries a credential itself.
 */
import { type Destination, hostPort } from '../core/destination.ts';
import { asFault, type Fault } from '../core/fault.ts';
import type { Target } from '../core/target.ts';
import type { Dialer } from '../net/dial.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import type { EventLog } from './event.ts';
import type { TlsTerms, Tunnel } from './listener.ts';
import type { Interception } from './listener/interception.ts';
import { reportFault } from './pipeline.ts';
import { type RoutePolicy, type RoutingTable, routeTunnel } from './route.ts';
import { dialPolicyOf } from './upstream.ts';

export interface TunnelParts {
  readonly table: () => RoutingTable;
  readonly routePolicy: RoutePolicy;
  readonly unmatchedPrivateAllowed: boolean;
  readonly interception: Interception;
  readonly dialer: Dialer;
  readonly events: EventLog;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

export const createTunnelHandler =
  (parts: TunnelParts) =>
  async (tunnel: Tunnel): Promise<void> => {
    let destination: Destination | undefined;
    try {
      const routed = routeTunnel(tunnel.connect, parts.table(), parts.routePolicy);
      destination = routed.destination;
      if (routed.route.kind === 'target')
        return tunnel.intercept(destination, tlsTermsFor(routed.route.target, destination, parts.interception));
      const { socket } = await parts.dialer.open(destination, dialPolicyOf(routed.route, parts.unmatchedPrivateAllowed), undefined);
      const { fromClientBytes, fromTargetBytes } = await tunnel.splice(socket);
      return conclude(parts, { ...tunnel, method: 'CONNECT' }, destination, undefined, fromClientBytes, fromTargetBytes);
    } catch (thrown) {
      const fault = asFault(thrown);
      tunnel.refuse(fault);
      return conclude(parts, { ...tunnel, method: 'CONNECT' }, destination, fault, 0, 0);
    }
  };

/** How TLS is spoken with a program on its way to a target. */
export const tlsTermsFor = ({ protocol }: Target, { host }: Destination, interception: Interception): TlsTerms => ({
  secureContext: interception.contextFor(host),
  prefersH2: protocol === 'h2',
});

/** What a connection that ended without requests of its own is recorded by. */
export type Concluded = Pick<Tunnel, 'id' | 'acceptedAtMonotonic' | 'traceId'> & { readonly method: 'CONNECT' | '' };

export const conclude = (
  { events, metrics, clock, log }: TunnelParts,
  tunnel: Concluded,
  destination: Destination | undefined,
  fault: Fault | undefined,
  requestBodyBytes: number,
  responseBodyBytes: number,
): void => {
  const status = fault?.row.status ?? 200;
  const where = destination ? hostPort(destination) : '';
  events.record({
    kind: fault ? 'refusal' : 'pass',
    timeMs: clock.now(),
    requestId: tunnel.id,
    workload: '',
    attestationId: '',
    target: '',
    destination: where,
    scheme: 'tunnel',
    method: tunnel.method,
    path: '',
    decision: {
      verdict: fault ? 'deny' : 'pass',
      policy: '',
      policyVersion: '',
      rule: '',
      reason: fault ? fault.row.title : 'no target names this destination',
    },
    grantId: '',
    credentials: [],
    outcome: {
      status,
      fault: fault?.code ?? '',
      requestBodyBytes,
      responseBodyBytes,
      durationMs: clock.monotonic() - tunnel.acceptedAtMonotonic,
      timeToFirstByteMs: 0,
      echoes: 0,
    },
    traceId: tunnel.traceId,
    lostCount: 0,
    attempt: 1,
  });
  const decision = !fault ? 'pass' : fault.row.blame === 'policy' ? 'deny' : 'fault';
  metrics.add('outrider_proxy_requests_total', { target: '', decision, code_class: `${Math.floor(status / 100)}xx` });
  metrics.add('outrider_proxy_body_bytes_total', { direction: 'request' }, requestBodyBytes);
  metrics.add('outrider_proxy_body_bytes_total', { direction: 'response' }, responseBodyBytes);
  if (fault) reportFault(metrics, fault, { requestId: tunnel.id, destination: where, method: tunnel.method, log });
};
