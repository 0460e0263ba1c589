/**
 * How close this process is to its memory ceiling, and how busy its one thread is. Looks a few times a second, and says "high" only of
 * what stays after garbage was collected: V8 collects late when the machine has memory to spare, and a sidecar is measured by what is
 * resident. Decides nothing: who turns requests away asks here.
 */
import { performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export interface PressureOptions {
  /** Resident bytes above which garbage is collected: early, so that what comes next is seldom needed. */
  readonly collectBytes: number;
  /** What is still above this is pressure. */
  readonly highBytes: number;
  /** Pressure ends below this. */
  readonly lowBytes: number;
  readonly sampleMs: number;
  /** Between two collections: each stops the process for some tens of milliseconds. */
  readonly collectEveryMs: number;
  /** Each look while memory is high: time to let go of something. */
  readonly onHigh: () => void;
  /** Each look: whether memory is high, and the share of the time since the last look in which the thread was busy (0 to 1). */
  readonly onSample: (isHigh: boolean, utilization: number) => void;
  readonly residentBytes?: () => number;
  /** Returns memory to the system. */
  readonly collect?: () => void;
}

export interface Pressure {
  readonly isHigh: () => boolean;
  /** Looks now; the timer does it otherwise. */
  readonly look: () => void;
  readonly close: () => void;
}

export const watchPressure = (options: PressureOptions): Pressure => {
  const { collectBytes, highBytes, lowBytes, sampleMs, collectEveryMs, onHigh, onSample } = options;
  const { residentBytes = () => process.memoryUsage.rss(), collect = collector() } = options;
  let isHigh = false;
  let untilCollection = 0;
  let loop = performance.eventLoopUtilization();
  const look = (): void => {
    untilCollection -= sampleMs;
    let resident = residentBytes();
    if (resident > collectBytes && untilCollection <= 0) {
      untilCollection = collectEveryMs;
      collect();
      resident = residentBytes();
    }
    isHigh = resident > (isHigh ? lowBytes : highBytes);
    const now = performance.eventLoopUtilization();
    onSample(isHigh, performance.eventLoopUtilization(now, loop).utilization);
    loop = now;
    if (isHigh) onHigh();
  };
  const timer = setInterval(look, sampleMs).unref();
  return { isHigh: () => isHigh, look, close: () => clearInterval(timer) };
};

/** V8's own collection of everything, its caches too; made when it is first needed, and no code is compiled from strings for it but its name. */
const collector = (): (() => void) => {
  let collectAll: ((options: object) => void) | undefined;
  return () => {
    if (!collectAll) {
      setFlagsFromString('--expose-gc');
      collectAll = runInNewContext('gc') as (options: object) => void;
    }
    collectAll({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  };
};
