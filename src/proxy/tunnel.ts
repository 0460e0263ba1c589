/**
 * CONNECT: intercepted when a target names the destination, so that its requests come back through pipeline.ts one by one; else
 * tunnelled untouched or refused, as configured. Never carries a credential itself.
 */
import { type Destination, hostPort } from '../core/destination.ts';
import { asFault, type Fault } from '../core/fault.ts';
import { dialTcp, type Resolver } from '../net/dial.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import type { EventLog } from './event.ts';
import type { Tunnel } from './listener.ts';
import type { Interception } from './listener/interception.ts';
import { reportFault } from './pipeline.ts';
import { type RoutePolicy, type RoutingTable, routeTunnel } from './route.ts';
import { dialPolicyOf } from './upstream.ts';

export interface TunnelParts {
  readonly table: () => RoutingTable;
  readonly routePolicy: RoutePolicy;
  readonly unmatchedPrivateAllowed: boolean;
  readonly interception: Interception;
  readonly resolver: Resolver;
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
      if (routed.route.kind === 'target') return tunnel.intercept(destination, parts.interception.contextFor(destination.host));
      const addresses = await parts.resolver.resolve(destination, dialPolicyOf(routed.route, parts.unmatchedPrivateAllowed));
      const { fromClientBytes, fromTargetBytes } = await tunnel.splice(await dialTcp(addresses));
      return conclude(parts, tunnel, destination, undefined, fromClientBytes, fromTargetBytes);
    } catch (thrown) {
      const fault = asFault(thrown);
      tunnel.refuse(fault);
      return conclude(parts, tunnel, destination, fault, 0, 0);
    }
  };

const conclude = (
  { events, metrics, clock, log }: TunnelParts,
  tunnel: Tunnel,
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
    method: 'CONNECT',
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
    },
    traceId: tunnel.traceId,
    lostCount: 0,
  });
  const decision = !fault ? 'pass' : fault.row.blame === 'policy' ? 'deny' : 'fault';
  metrics.add('outrider_proxy_requests_total', { target: '', decision, code_class: `${Math.floor(status / 100)}xx` });
  metrics.add('outrider_proxy_body_bytes_total', { direction: 'request' }, requestBodyBytes);
  metrics.add('outrider_proxy_body_bytes_total', { direction: 'response' }, responseBodyBytes);
  if (fault) reportFault(metrics, fault, { requestId: tunnel.id, destination: where, method: 'CONNECT', log });
};
