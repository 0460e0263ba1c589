/**
 * Carries queued events to the collector: batches in order, dropped from the queue only when acknowledged. A new stream begins
 * with what is unacknowledged. Stands behind event.ts; it decides nothing about which events are kept.
 *
 * Streams end (restart, network, refusal), and are opened anew after doubled, jittered pauses; a new SVID opens a new one at once
 * while the old one finishes. The collector is not believed blindly: an acknowledgement for another boot id, or beyond what was
 * sent, changes nothing.
 */
import type { AccessEvent } from '../../core/access-event.ts';
import { asFault, Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log, LogFields } from '../../ops/log.ts';
import type { Metrics } from '../../ops/metrics.ts';
import type { EventChannel, EventListener, openEvents, Peer } from '../../rpc/client.ts';
import { retryPauseMs } from '../../rpc/renewal.ts';
import type { SvidSource } from '../../rpc/svid-source.ts';
import type { EventQueue } from './queue.ts';

export interface Sender {
  /** Events were appended: send them soon. Cheap. */
  wake(): void;
  /** Send what there is now, without waiting for a fuller batch or the end of a pause. */
  hurry(): void;
  close(): void;
}

export interface SenderOptions {
  readonly queue: EventQueue;
  readonly bootId: string;
  readonly collector: Peer;
  readonly svids: Pick<SvidSource, 'current' | 'onChange' | 'renew'>;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
  readonly open: typeof openEvents;
  /** The queue became shorter. */
  readonly onStored: () => void;
}

/** rpc names what happens to a connection after the broker, whoever the peer is; here it is the collector. */
const reasonOf = (fault: Fault): LogFields =>
  fault.code.startsWith('broker_')
    ? { reason: fault.code.slice('broker_'.length), error: fault.cause }
    : { reason: fault.code, error: fault };

export const createSender = (options: SenderOptions): Sender => {
  const { queue, bootId, collector, svids, metrics, clock, log } = options;
  let channel: EventChannel | undefined;
  /** Counts streams, so that a late word from an earlier one is told apart. */
  let generation = 0;
  let isWritable = false;
  let isClosed = false;
  /** Up to here written to the current stream, and to any stream. */
  let sentThrough = 0;
  let everSentThrough = 0;
  let acknowledgedThrough = 0;
  let failures = 0;
  let isBogusLogged = false;
  let isTurnPending = false;
  let cancelDelay: (() => void) | undefined;
  let cancelPause: (() => void) | undefined;
  let cancelPatience: (() => void) | undefined;

  const stopTimers = (): void => {
    cancelDelay?.();
    cancelPause?.();
    cancelPatience?.();
    cancelDelay = cancelPause = cancelPatience = undefined;
  };

  const connect = (): void => {
    cancelPause?.();
    cancelPause = undefined;
    const svid = svids.current();
    if (isClosed || svid === undefined) return; // onChange connects.
    generation += 1;
    const mine = generation;
    const on: EventListener = {
      // Also from a stream that a new one has replaced: what it says of events is as true.
      stored: (boot, through) => {
        if (mine === generation) metrics.set('outrider_proxy_collector_connected', {}, 1);
        acknowledged(boot, through);
      },
      drained: () => {
        if (mine !== generation) return;
        isWritable = true;
        pump();
      },
      ended: (fault) => {
        if (mine === generation) broke(fault);
      },
    };
    try {
      const opened = options.open({ collector, svid, on });
      if (mine !== generation) return opened.close(); // It ended while opening.
      channel = opened;
    } catch (error) {
      return broke(asFault(error));
    }
    isWritable = true;
    sentThrough = acknowledgedThrough;
    // A batch without events asks what is stored: the answer says that the stream is open, and spares repeats.
    write([]);
    pump();
  };

  const broke = (fault: Fault): void => {
    generation += 1;
    channel = undefined;
    cancelPatience?.();
    cancelPatience = undefined;
    metrics.set('outrider_proxy_collector_connected', {}, 0);
    failures += 1;
    const pauseMs = retryPauseMs(failures, options.random());
    log[failures === 1 ? 'warn' : 'debug'](
      { ...reasonOf(fault), waiting: queue.size(), pauseMs },
      'the event stream to the collector ended',
    );
    if (fault.code === 'identity_refused' || fault.code === 'identity_expired') svids.renew();
    cancelPause = clock.after(pauseMs, connect);
  };

  const acknowledged = (boot: string, through: number): void => {
    if (boot !== bootId || !(through <= everSentThrough)) {
      const fields = { bootId: boot.slice(0, 100), through, sentThrough: everSentThrough };
      if (!isBogusLogged) log.error(fields, 'the collector acknowledged what was never sent; ignored');
      isBogusLogged = true;
      return;
    }
    const count = queue.drop(through);
    // Only progress ends an outage: a stream that opens and breaks at the first event must not be retried at once.
    if (count > 0 || queue.size() === 0) recovered();
    if (count === 0) return;
    acknowledgedThrough = through;
    sentThrough = Math.max(sentThrough, through);
    metrics.add('outrider_proxy_events_acknowledged_total', {}, count);
    expectProgress();
    options.onStored();
    metrics.set('outrider_proxy_events_queued', {}, queue.size());
  };

  const recovered = (): void => {
    if (failures > 0) log.info({ waiting: queue.size() }, 'the collector stores events again');
    failures = 0;
  };

  /** (Re)starts the wait for the next acknowledgement, or ends it when nothing is out. */
  const expectProgress = (): void => {
    cancelPatience?.();
    cancelPatience = undefined;
    if (channel === undefined || sentThrough <= acknowledgedThrough) return;
    cancelPatience = clock.after(limits.eventAcknowledgeTimeoutMs, () => {
      channel?.close();
      broke(new Fault('broker_timeout', { detail: 'The collector acknowledged nothing.' }));
    });
  };

  const write = (events: readonly AccessEvent[]): void => {
    try {
      if (channel?.write(bootId, events) === false) isWritable = false;
    } catch (error) {
      // An event that cannot be encoded is a bug (see entry.ts). Dropping it would hide what happened: keep trying, loudly.
      log.error({ error, firstSequence: events[0]?.sequence }, 'a batch of events could not be written');
      channel?.close();
      broke(asFault(error));
    }
  };

  /** Sends what is unsent, one batch a turn, so that a long queue does not hold up requests. */
  const pump = (): void => {
    if (channel === undefined || !isWritable || isTurnPending) return;
    const unsent = queue.peek(sentThrough, limits.eventBatchMax + 1);
    const batch = unsent.slice(0, limits.eventBatchMax);
    const last = batch.at(-1);
    if (last === undefined) return;
    const isFirstOut = sentThrough <= acknowledgedThrough;
    sentThrough = last.sequence;
    everSentThrough = Math.max(everSentThrough, sentThrough);
    metrics.add('outrider_proxy_events_sent_total', {}, batch.length);
    write(batch);
    if (isFirstOut) expectProgress();
    if (batch.length === unsent.length) return;
    isTurnPending = true;
    setImmediate(() => {
      isTurnPending = false;
      pump();
    });
  };

  const tick = (): void => {
    cancelDelay?.();
    cancelDelay = undefined;
    metrics.set('outrider_proxy_events_queued', {}, queue.size());
    pump();
  };

  const replaced = (): void => {
    const old = channel;
    channel = undefined;
    connect();
    old?.close();
  };

  const stopListening = svids.onChange(replaced);
  connect();

  return {
    wake: () => {
      if (cancelDelay === undefined && !isClosed) cancelDelay = clock.after(limits.eventBatchDelayMs, tick);
    },
    hurry: () => {
      if (channel === undefined) connect();
      tick();
    },
    close: () => {
      isClosed = true;
      generation += 1; // Nothing that comes later is heard, but acknowledgements.
      stopListening();
      stopTimers();
      channel?.close();
      channel = undefined;
      metrics.set('outrider_proxy_collector_connected', {}, 0);
    },
  };
};
