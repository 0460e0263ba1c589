/**
 * One exchange's course: how far it came, and the record of how it ended: one event for each attempt, one line in the log for what went
 * wrong, the metrics. Of the pipeline; knows no order of stages.
 */
import type { EventKind, Outcome } from '../core/access-event.ts';
import type { Fault } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import type { Decision } from '../core/policy.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import type { EventLog } from './event.ts';
import { type Accepted, eventOf, type Progress } from './exchange.ts';
import type { EchoNotice } from './upstream.ts';

export interface CourseParts {
  readonly events: EventLog;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
  /** When the log last told of a target that repeats credentials, monotonic ms. */
  readonly echoesTold: Map<string, number>;
}

const passed: Decision = { verdict: 'pass', policy: '', policyVersion: '', rule: '', reason: 'no target names this destination' };

export class Course implements EchoNotice {
  readonly #parts: CourseParts;
  #progress: Progress;
  #attempt = 1;
  #isIntended = false;
  #echoes = 0;

  constructor(accepted: Accepted, parts: CourseParts) {
    this.#progress = accepted;
    this.#parts = parts;
  }

  get attempt(): number {
    return this.#attempt;
  }

  /** It came this far. */
  at<P extends Progress>(progress: P): P {
    this.#progress = progress;
    return progress;
  }

  /** Before the first upstream byte. Throws event_backlog. */
  intend(): void {
    const { events, clock } = this.#parts;
    events.intent({ ...eventOf(this.#progress), kind: 'intent', timeMs: clock.now(), outcome: undefined, attempt: this.#attempt });
    this.#isIntended = true;
  }

  /** The target answered 401, nobody saw it, and the request is tried again from here. */
  again(progress: Progress): void {
    const { events, clock } = this.#parts;
    const outcome = { ...this.#outcome(''), status: 401 };
    events.record({ ...eventOf(this.#progress), kind: 'outcome', timeMs: clock.now(), outcome, attempt: this.#attempt });
    this.#progress = progress;
    this.#attempt += 1;
    this.#isIntended = false;
    this.#echoes = 0;
  }

  echoed(action: 'redacted' | 'refused', count: number): void {
    const { metrics, clock, log, echoesTold } = this.#parts;
    const target = this.#target();
    this.#echoes += count;
    metrics.add('outrider_proxy_echoes_total', { target, action }, count);
    const now = clock.monotonic();
    if (now - (echoesTold.get(target) ?? Number.NEGATIVE_INFINITY) < limits.echoLogIntervalMs) return;
    echoesTold.delete(target);
    if (echoesTold.size >= limits.labelValuesMax) echoesTold.delete(echoesTold.keys().next().value as string);
    echoesTold.set(target, now);
    log.warn({ requestId: this.#progress.id, target, action }, 'a target answers with the credential that it was sent');
  }

  unsearched(reason: string): void {
    this.#parts.metrics.add('outrider_proxy_answers_unsearched_total', { target: this.#target(), reason });
  }

  conclude(fault: Fault | undefined): void {
    const progress = fault?.decision ? { ...this.#progress, decision: fault.decision } : this.#progress;
    progress.body?.release?.();
    const { events, metrics, clock } = this.#parts;
    const { sink } = progress;
    const isPass = progress.route?.kind === 'pass';
    const kind: EventKind = this.#isIntended ? 'outcome' : isPass && (!fault || wasSent(fault)) ? 'pass' : 'refusal';
    const decision = progress.decision ?? (isPass ? passed : undefined);
    const base = eventOf({ ...progress, ...(decision ? { decision } : {}) });
    const outcome = this.#outcome(fault?.code ?? '');
    events.record({
      ...base,
      // Held is not used: only a request that was sent on has used its credentials.
      credentials: this.#isIntended ? base.credentials : [],
      kind,
      timeMs: clock.now(),
      outcome,
      attempt: this.#attempt,
    });
    const decided = fault && !this.#isIntended ? (fault.row.blame === 'policy' ? 'deny' : 'fault') : isPass ? 'pass' : 'allow';
    metrics.add('outrider_proxy_requests_total', {
      target: base.target,
      decision: decided,
      code_class: `${Math.floor((outcome.status || 499) / 100)}xx`,
    });
    metrics.observe('outrider_proxy_stage_duration_seconds', { stage: 'total' }, outcome.durationMs / 1000);
    if (outcome.requestBodyBytes > 0) metrics.add('outrider_proxy_body_bytes_total', { direction: 'request' }, outcome.requestBodyBytes);
    if (sink.bytes() > 0) metrics.add('outrider_proxy_body_bytes_total', { direction: 'response' }, sink.bytes());
    if (this.#isIntended && progress.grant?.credentials.some(({ providerKind }) => providerKind === 'static_file')) {
      metrics.add('outrider_proxy_static_credential_requests_total', { target: base.target });
    }
    if (this.#attempt > 1 && this.#isIntended) {
      const result = fault ? 'failed' : outcome.status === 401 ? 'rejected' : 'accepted';
      metrics.add('outrider_proxy_credential_retries_total', { target: base.target, result });
    }
    if (fault) {
      const { requestId, target, destination, method } = base;
      reportFault(metrics, fault, { requestId, target, destination, method, log: this.#parts.log });
    }
  }

  #outcome(fault: Outcome['fault']): Outcome {
    const { sink, upgrade, body, acceptedAtMonotonic } = this.#progress;
    return {
      status: sink.status(),
      fault,
      requestBodyBytes: upgrade === undefined ? (body?.bytes() ?? 0) : sink.upgradedBytes(),
      responseBodyBytes: sink.bytes(),
      durationMs: this.#parts.clock.monotonic() - acceptedAtMonotonic,
      timeToFirstByteMs: sink.firstByteAt() === 0 ? 0 : sink.firstByteAt() - acceptedAtMonotonic,
      echoes: this.#echoes,
    };
  }

  #target(): string {
    const { route } = this.#progress;
    return route?.kind === 'target' ? route.target.name : '';
  }
}

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
