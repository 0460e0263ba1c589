/**
 * A request's life, in order: route → identity → grant → authorize → hold → inject → (intent) → upstream → event. Only this file knows the
 * order. One catch answers the program, one finally records what happened.
 */
import { randomUUID } from 'node:crypto';
import type { EventKind } from '../core/access-event.ts';
import type { Budget } from '../core/budget.ts';
import { asFault, type Fault } from '../core/fault.ts';
import type { Decision } from '../core/policy.ts';
import type { Outbound } from '../net/outbound.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import { authorize } from './authorize.ts';
import type { EventLog } from './event.ts';
import { type Accepted, eventOf, type Progress, type Routed, type RoutedToTarget } from './exchange.ts';
import { type GrantSource, grantFor } from './grant.ts';
import { type IdentityState, identify } from './identity.ts';
import { hold } from './hold.ts';
import { inject, needsWholeBody, pass } from './inject.ts';
import { respond } from './respond.ts';
import { type RoutePolicy, type RoutingTable, route } from './route.ts';
import { dialPolicyOf, send } from './upstream.ts';

export interface PipelineParts {
  /** Throws not_ready, or what stands in the way, until the broker has told of the targets. */
  readonly table: () => RoutingTable;
  readonly routePolicy: RoutePolicy;
  readonly unmatchedPrivateAllowed: boolean;
  readonly identity: () => IdentityState;
  readonly grants: GrantSource;
  readonly outbound: Outbound;
  readonly events: EventLog;
  /** Bounds what is held of bodies, of all requests together. */
  readonly buffers: Budget;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

export type Pipeline = (accepted: Accepted) => Promise<void>;

export const createPipeline = (parts: PipelineParts): Pipeline => {
  const { routePolicy, grants, outbound, events, buffers } = parts;
  const timed = stageTimer(parts);

  return async (accepted) => {
    let progress: Progress = accepted;
    let isIntended = false;
    let fault: Fault | undefined;
    try {
      const routed = timed('route', () => route(accepted, parts.table(), routePolicy));
      progress = routed;
      const dialPolicy = dialPolicyOf(routed.route, parts.unmatchedPrivateAllowed);
      if (!isToTarget(routed)) {
        const prepared = pass(routed);
        return await timed('upstream', () => send(prepared, outbound, dialPolicy));
      }
      const identified = identify(routed, parts.identity());
      progress = identified;
      const granted = await timed('grant', () => grantFor(identified, grants));
      progress = granted;
      const authorized = timed('authorize', () => authorize(granted));
      progress = authorized;
      const held = needsWholeBody(authorized) ? await timed('hold', () => hold(authorized, buffers)) : authorized;
      progress = held;
      const prepared = timed('inject', () => inject(held, { nowMs: parts.clock.now(), uuid: randomUUID }));
      timed('intent', () => events.intent({ ...eventOf(authorized), kind: 'intent', timeMs: parts.clock.now(), outcome: undefined }));
      isIntended = true;
      return await timed('upstream', () => send(prepared, outbound, dialPolicy));
    } catch (thrown) {
      fault = asFault(thrown);
      if (fault.decision) progress = { ...progress, decision: fault.decision };
      respond(accepted.sink, fault, accepted);
    } finally {
      progress.body?.release?.();
      conclude(parts, progress, fault, isIntended);
    }
  };
};

const isToTarget = (routed: Routed): routed is RoutedToTarget => routed.route.kind === 'target';

const passed: Decision = { verdict: 'pass', policy: '', policyVersion: '', rule: '', reason: 'no target names this destination' };

/** The record of how it ended: one event, one line in the log for what went wrong, the metrics. */
const conclude = (parts: PipelineParts, progress: Progress, fault: Fault | undefined, isIntended: boolean): void => {
  const { events, metrics, clock, log } = parts;
  const { sink, acceptedAtMonotonic } = progress;
  const durationMs = clock.monotonic() - acceptedAtMonotonic;
  const status = sink.status();
  const requestBytes = progress.upgrade === undefined ? (progress.body?.bytes() ?? 0) : sink.upgradedBytes();
  const isPass = progress.route?.kind === 'pass';
  const kind: EventKind = isIntended ? 'outcome' : isPass && (!fault || wasSent(fault)) ? 'pass' : 'refusal';
  const decision = progress.decision ?? (isPass ? passed : undefined);
  const base = eventOf({ ...progress, ...(decision ? { decision } : {}) });
  events.record({
    ...base,
    // Held is not used: only a request that was sent on has used its credentials.
    credentials: isIntended ? base.credentials : [],
    kind,
    timeMs: clock.now(),
    outcome: {
      status,
      fault: fault?.code ?? '',
      requestBodyBytes: requestBytes,
      responseBodyBytes: sink.bytes(),
      durationMs,
      timeToFirstByteMs: sink.firstByteAt() === 0 ? 0 : sink.firstByteAt() - acceptedAtMonotonic,
      echoes: 0,
    },
  });
  const decided = fault && !isIntended ? (fault.row.blame === 'policy' ? 'deny' : 'fault') : isPass ? 'pass' : 'allow';
  metrics.add('outrider_proxy_requests_total', {
    target: base.target,
    decision: decided,
    code_class: `${Math.floor((status || 499) / 100)}xx`,
  });
  metrics.observe('outrider_proxy_stage_duration_seconds', { stage: 'total' }, durationMs / 1000);
  if (requestBytes > 0) metrics.add('outrider_proxy_body_bytes_total', { direction: 'request' }, requestBytes);
  if (sink.bytes() > 0) metrics.add('outrider_proxy_body_bytes_total', { direction: 'response' }, sink.bytes());
  if (isIntended && progress.grant?.credentials.some(({ providerKind }) => providerKind === 'static_file')) {
    metrics.add('outrider_proxy_static_credential_requests_total', { target: base.target });
  }
  if (fault)
    reportFault(metrics, fault, { requestId: progress.id, target: base.target, destination: base.destination, method: base.method, log });
};

/** Whether an exchange that ended in this fault was under way rather than refused. */
const wasSent = (fault: Fault): boolean => fault.row.blame === 'target' || fault.row.blame === 'client';

export interface FaultContext {
  readonly requestId?: string;
  readonly target?: string;
  readonly destination?: string;
  readonly method?: string;
  readonly log: Log;
}

/** One line and one count for what went wrong. */
export const reportFault = (metrics: Metrics, fault: Fault, { log, ...context }: FaultContext): void => {
  metrics.add('outrider_proxy_faults_total', { code: fault.code });
  const write = fault.code === 'internal' ? log.error : fault.row.blame === 'client' ? log.debug : log.warn;
  write({ ...context, code: fault.code, detail: fault.detail, error: fault }, fault.row.title);
};

type Timed = <T>(stage: string, run: () => T) => T;

/** Times a stage, synchronous or not, whether it succeeds or throws. */
const stageTimer =
  ({ metrics, clock }: PipelineParts): Timed =>
  (stage, run) => {
    const startedAt = clock.monotonic();
    const stop = (): void => metrics.observe('outrider_proxy_stage_duration_seconds', { stage }, (clock.monotonic() - startedAt) / 1000);
    let result: ReturnType<typeof run>;
    try {
      result = run();
    } catch (thrown) {
      stop();
      throw thrown;
    }
    if (result instanceof Promise) return result.finally(stop) as typeof result;
    stop();
    return result;
  };
