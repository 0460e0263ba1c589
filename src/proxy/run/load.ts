/** What the proxy does when there is more than it can do: bounds that depend on the machine, the watch over memory, and their metrics. */
import { type Budget, createBudget } from '../../core/budget.ts';
import { limits } from '../../core/limits.ts';
import type { Log } from '../../ops/log.ts';
import type { Metrics } from '../../ops/metrics.ts';
import { watchPressure } from '../../ops/pressure.ts';
import { processLimits } from '../../ops/process-limits.ts';
import type { Overload } from '../listener.ts';

export interface Load {
  readonly connectionsMax: number;
  readonly isMemoryShort: () => boolean;
  readonly onOverload: (reason: Overload) => void;
  /** For what is held of bodies and answers. */
  readonly buffers: Budget;
  readonly close: () => void;
}

/** `makeRoom` closes some connections that have kept us waiting. */
export const watchLoad = (metrics: Metrics, log: Log, makeRoom: () => void): Load => {
  const connectionsMax = connectionsFor(processLimits()?.openFiles ?? Number.POSITIVE_INFINITY);
  if (connectionsMax < limits.clientConnectionsMax)
    log.warn({ connectionsMax }, 'few open files are allowed, so fewer connections are taken: raise the limit (ulimit -n)');
  metrics.set('outrider_proxy_connections_max', {}, connectionsMax);
  const onOverload = (reason: Overload | 'held_bytes'): void => metrics.add('outrider_proxy_overload_total', { reason });
  const buffers = createBudget(limits.heldBytesTotalMax);
  let wasShort = false;
  const pressure = watchPressure({
    collectBytes: limits.memoryCollectBytes,
    soonBytes: limits.memoryCollectSoonBytes,
    growthBytes: limits.memoryCollectGrowthBytes,
    highBytes: limits.memoryHighBytes,
    lowBytes: limits.memoryLowBytes,
    sampleMs: limits.memorySampleMs,
    collectEveryMs: limits.memoryCollectEveryMs,
    onHigh: makeRoom,
    onSample: (isShort, utilization) => {
      metrics.set('outrider_proxy_event_loop_utilization_ratio', {}, utilization);
      metrics.set('outrider_proxy_held_bytes', {}, buffers.used());
      metrics.set('outrider_proxy_memory_short', {}, isShort ? 1 : 0);
      if (isShort !== wasShort) log.warn({}, isShort ? 'memory is short: only a few requests run at a time' : 'memory is no longer short');
      wasShort = isShort;
    },
  });
  return {
    connectionsMax,
    isMemoryShort: pressure.isHigh,
    onOverload,
    buffers: {
      ...buffers,
      take: (amount) => {
        const isTaken = buffers.take(amount);
        if (!isTaken) onOverload('held_bytes');
        return isTaken;
      },
    },
    close: pressure.close,
  };
};

/** Each connection may need one to its target. */
export const connectionsFor = (openFiles: number): number =>
  Math.max(1, Math.min(limits.clientConnectionsMax, Math.floor((openFiles - limits.reservedDescriptors) / 2)));
