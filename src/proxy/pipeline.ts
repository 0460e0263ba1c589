/**
 * A request's life, in order: route → identity → grant → authorize → hold → inject → (intent) → upstream → event. Only this file knows the
 * order. What was held is granted and authorized once more, for it took its time. One catch answers the program, one finally records what
 * happened. What the target answers 401 is tried once more (retry.ts), from authorize on and with an intent and an outcome of its own.
 */
import { randomUUID } from 'node:crypto';
import type { Budget } from '../core/budget.ts';
import { asFault, Fault } from '../core/fault.ts';
import type { Outbound } from '../net/outbound.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import { authorize } from './authorize.ts';
import { Course, type CourseParts } from './course.ts';
import type { EventLog } from './event.ts';
import type { Accepted, Authorized, Routed, RoutedToTarget } from './exchange.ts';
import { type GrantSource, grantFor } from './grant.ts';
import { type IdentityState, identify } from './identity.ts';
import { hold } from './hold.ts';
import { inject, needsWholeBody, pass } from './inject.ts';
import { respond } from './respond.ts';
import { createRetries } from './retry.ts';
import { type RoutePolicy, type RoutingTable, route } from './route.ts';
import { dialPolicyOf, send, type Way } from './upstream.ts';

export { type FaultContext, reportFault } from './course.ts';

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
  const { routePolicy, grants, outbound, buffers } = parts;
  const timed = stageTimer(parts);
  const retryOf = createRetries(parts);
  const courseParts: CourseParts = { ...parts, echoesTold: new Map() };

  return async (accepted) => {
    const course = new Course(accepted, courseParts);
    let fault: Fault | undefined;
    try {
      const routed = course.at(timed('route', () => route(accepted, parts.table(), routePolicy)));
      const dialPolicy = dialPolicyOf(routed.route, parts.unmatchedPrivateAllowed);
      const way: Way = { outbound, dialPolicy, buffers, notice: course };
      if (!isToTarget(routed)) return await timed('upstream', () => send(pass(routed), way));
      const identified = course.at(identify(routed, parts.identity()));
      let granted = course.at(await timed('grant', () => grantFor(identified, grants)));
      for (;;) {
        let authorized = course.at(timed('authorize', () => authorize(granted)));
        if (needsHold(authorized)) {
          const held = course.at(await timed('hold', () => hold(authorized, buffers)));
          // A program takes its time over a body: what it was granted before that must still be so.
          granted = course.at(await timed('grant', () => grantFor(held, grants)));
          authorized = course.at(timed('authorize', () => authorize(granted)));
        }
        const retry = retryOf(authorized, course.attempt);
        const { nonce } = retry;
        const request = course.at(retry.request);
        const prepared = timed('inject', () => inject(request, { nowMs: parts.clock.now(), uuid: randomUUID, buffers, nonce }));
        timed('intent', () => course.intend());
        const instead = await timed('upstream', () => send(prepared, way, retry));
        if (instead === undefined) return;
        course.again(identified);
        if (instead instanceof Fault) throw instead;
        granted = course.at(instead);
      }
    } catch (thrown) {
      fault = asFault(thrown);
      respond(accepted.sink, fault, accepted);
    } finally {
      course.conclude(fault);
    }
  };
};

const isToTarget = (routed: Routed): routed is RoutedToTarget => routed.route.kind === 'target';

/** A body that is repeated is whole already. */
const needsHold = (authorized: Authorized): boolean => authorized.body?.held === undefined && needsWholeBody(authorized);

type Stage = 'route' | 'grant' | 'authorize' | 'hold' | 'inject' | 'intent' | 'upstream';
type Timed = <T>(stage: Stage, run: () => T) => T;

/** Times a stage, synchronous or not, whether it succeeds or throws. */
const stageTimer = ({ metrics, clock }: PipelineParts): Timed => {
  const observer = (stage: string) => metrics.observer('outrider_proxy_stage_duration_seconds', { stage });
  const observers: Readonly<Record<Stage, (seconds: number) => void>> = {
    route: observer('route'),
    grant: observer('grant'),
    authorize: observer('authorize'),
    hold: observer('hold'),
    inject: observer('inject'),
    intent: observer('intent'),
    upstream: observer('upstream'),
  };
  return (stage, run) => {
    const startedAt = clock.monotonic();
    const stop = (): void => observers[stage]((clock.monotonic() - startedAt) / 1000);
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
};
