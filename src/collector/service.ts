/**
 * The collector's work: check → deduplicate → store → acknowledge, in that order on the page. Nothing is acknowledged that is not
 * durable; what cannot be stored ends the stream with a fault, and the proxy keeps it and comes again.
 */
import type { AccessEvent } from '../core/access-event.ts';
import { Fault } from '../core/fault.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import { refusalOf } from './accept.ts';
import { eventLine } from './event-json.ts';
import type { Ledger } from './ledger.ts';
import { isStored, markStored, storedThrough } from './marks.ts';
import type { EventStore } from './store.ts';

/** Records a batch for `caller`; resolves with the sequence up to which everything is stored. Faults event_refused, event_store_failed. */
export type RecordEvents = (caller: { readonly spiffeId: string }, bootId: string, events: readonly AccessEvent[]) => Promise<number>;

export interface RecorderOptions {
  readonly store: Pick<EventStore, 'append'>;
  readonly ledger: Ledger;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

export const createRecorder = ({ store, ledger, metrics, clock, log }: RecorderOptions): RecordEvents => {
  const append = async (lines: readonly string[]): Promise<void> => {
    const startedAt = clock.monotonic();
    try {
      await store.append(lines);
    } catch (error) {
      metrics.add('outrider_collector_store_failures_total', {});
      throw error;
    }
    metrics.observe('outrider_collector_store_duration_seconds', {}, (clock.monotonic() - startedAt) / 1000);
  };

  const count = (event: AccessEvent, reporter: string, bootId: string): void => {
    metrics.add('outrider_collector_events_stored_total', { kind: event.kind });
    if (event.kind !== 'loss') return;
    metrics.add('outrider_collector_events_lost_total', {}, event.lostCount);
    log.warn({ reporter, bootId, sequence: event.sequence, lost: event.lostCount }, 'a proxy reports events it could not keep');
  };

  return async ({ spiffeId: reporter }, bootId, events) => {
    const refusal = refusalOf(reporter, bootId, events);
    if (refusal !== undefined) {
      metrics.add('outrider_collector_events_refused_total', { reason: refusal.reason }, Math.max(1, events.length));
      log.warn({ reporter, reason: refusal.reason, detail: refusal.detail }, 'events refused');
      throw new Fault('event_refused', { detail: refusal.detail });
    }
    const run = { reporter, bootId };
    const first = events[0];
    if (first === undefined) return ledger.storedThrough(run);
    return ledger.exclusively(run, first.sequence, async (marks) => {
      const fresh = events.filter(({ sequence }) => !isStored(marks, sequence));
      if (fresh.length < events.length) metrics.add('outrider_collector_events_duplicate_total', {}, events.length - fresh.length);
      if (fresh.length > 0) {
        const receipt = { reporter, bootId, receivedAtMs: clock.now() };
        await append(fresh.map((event) => eventLine(event, receipt)));
      }
      for (const event of fresh) {
        markStored(marks, event.sequence);
        count(event, reporter, bootId);
      }
      return storedThrough(marks);
    });
  };
};
