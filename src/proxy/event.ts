/**
 * The proxy's event log: what the pipeline calls before the first upstream byte (`intent`) and at the end of everything
 * (`record`). It decides which events are kept, numbers them and counts what is lost; event/sender.ts carries them to the
 * collector. It is on the request path: appending builds one object and nothing else; no JSON, no protobuf, no I/O here.
 *
 * Decided: an event is accepted under `audit: required` when it is queued in memory. A crash of the proxy loses what the
 * collector has not acknowledged; the crash-safe log on disk takes the place of event/queue.ts behind `EventQueue`.
 *
 * Places. Of `queueMax` places, `reserved` are closed to intents, refusals and passes. Each admitted intent also holds one
 * place for its outcome, so that an outcome is never lost whose intent was kept. What does not fit is counted, and
 * one `loss` event says how many, as soon as two places are free outside the reserve. Lost events take no sequence number:
 * a gap in the numbers is never explained by a full queue.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { AccessEventDraft, EventKind } from '../core/access-event.ts';
import { Fault } from '../core/fault.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import { openEvents, type Peer } from '../rpc/client.ts';
import type { SvidSource } from '../rpc/svid-source.ts';
import { numbered } from './event/entry.ts';
import { createMemoryQueue } from './event/queue.ts';
import { createSender } from './event/sender.ts';

export interface EventLog {
  /** A credentialed request is about to be sent. Throws Fault event_backlog under `audit: required` when it cannot be kept. */
  intent(draft: AccessEventDraft): void;
  /** An outcome, refusal or pass. Never throws; what does not fit is counted. */
  record(draft: AccessEventDraft): void;
  /** Events kept that the collector has not acknowledged. */
  waiting(): number;
  /** Sends at once and waits until everything is stored, at most `timeoutMs`; how many events were not stored. */
  flush(timeoutMs: number): Promise<number>;
  /** Ends the stream and all timers; what is still queued is gone. */
  close(): void;
}

export interface EventLogOptions {
  readonly audit: 'required' | 'best_effort';
  /** All places; at least 4. */
  readonly queueMax: number;
  /** Of these, kept for outcomes and loss records; at most half of `queueMax` is used so. */
  readonly reserved: number;
  readonly collector: Peer;
  readonly svids: Pick<SvidSource, 'current' | 'onChange' | 'renew'>;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
  /** One run of one proxy; random unless told. */
  readonly bootId?: string;
  /** 0 ≤ r < 1, for jitter. */
  readonly random?: () => number;
  /** How a stream is opened; rpc's way unless told. */
  readonly open?: typeof openEvents;
}

export const createEventLog = (options: EventLogOptions): EventLog => {
  const { audit, queueMax, svids, metrics, clock } = options;
  assert(queueMax >= 4, 'queueMax of at least 4');
  const reserve = Math.max(1, Math.min(options.reserved, Math.floor(queueMax / 2)));
  const queue = createMemoryQueue(queueMax);
  /** Request ids of admitted intents whose outcome has not come: each holds one place. */
  const open = new Set<string>();
  let sequence = 0;
  let lost = 0;
  let flushing: (() => void)[] = [];

  const sender = createSender({
    queue,
    bootId: options.bootId ?? randomUUID(),
    collector: options.collector,
    svids,
    metrics,
    clock,
    log: options.log,
    random: options.random ?? Math.random,
    open: options.open ?? openEvents,
    onStored: () => {
      if (lost > 0 && fits(1, 0)) reportLoss();
      if (queue.size() > 0) return;
      for (const resolve of flushing) resolve();
      flushing = [];
    },
  });

  /** Whether `events` more and `holds` more outcomes have places outside the reserve. */
  const fits = (events: number, holds: number): boolean => queueMax - queue.size() - events >= Math.max(reserve, open.size + holds);

  const append = (draft: AccessEventDraft): void => {
    sequence += 1;
    queue.append(numbered(draft, sequence));
    sender.wake();
  };

  const reportLoss = (): void => {
    const lostCount = lost;
    lost = 0;
    append(lossOf(lostCount, clock.now(), svids.current()?.spiffeId ?? ''));
  };

  const lose = (kind: EventKind): void => {
    lost += 1;
    metrics.add('outrider_proxy_events_lost_total', { kind });
  };

  /** Appends outside the reserve, a pending loss record first; false when there is no place. */
  const appendIfFits = (draft: AccessEventDraft, holds: number): boolean => {
    if (!fits(lost > 0 ? 2 : 1, holds)) return false;
    if (lost > 0) reportLoss();
    append(draft);
    return true;
  };

  return {
    intent: (draft) => {
      if (appendIfFits(draft, 1)) open.add(draft.requestId);
      else if (audit === 'required') throw new Fault('event_backlog');
      else lose(draft.kind);
    },
    record: (draft) => {
      if (draft.kind === 'outcome' && open.delete(draft.requestId)) {
        if (lost > 0 && fits(2, 0)) reportLoss();
        append(draft);
      } else if (!appendIfFits(draft, 0)) lose(draft.kind);
    },
    waiting: () => queue.size(),
    flush: async (timeoutMs) => {
      if (lost > 0 && queueMax - queue.size() > open.size) reportLoss();
      if (queue.size() > 0) {
        await new Promise<void>((resolve) => {
          const cancel = clock.after(timeoutMs, resolve);
          flushing.push(() => {
            cancel();
            resolve();
          });
          sender.hurry();
        });
      }
      return queue.size() + lost;
    },
    close: () => sender.close(),
  };
};

const lossOf = (lostCount: number, timeMs: number, workload: string): AccessEventDraft => ({
  kind: 'loss',
  timeMs,
  requestId: '',
  workload,
  attestationId: '',
  target: '',
  destination: '',
  scheme: '',
  method: '',
  path: '',
  decision: undefined,
  grantId: '',
  credentials: [],
  outcome: undefined,
  traceId: '',
  lostCount,
  attempt: 1,
});
