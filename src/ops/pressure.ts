/**
 * How close this process is to its memory ceiling, and how busy its one thread is. Looks a few times a second, and says "high" only of
 * what stays after garbage was collected: V8 collects late when the machine has memory to spare, and a sidecar is measured by what is
 * resident. No timer runs while thousands of streams arrive at once, so whoever asks makes it look, too. Decides nothing: who turns
 * requests away asks here.
 */
import { performance } from 'node:perf_hooks';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

export interface PressureOptions {
  /** Resident bytes above which garbage is collected: early, so that what comes next is seldom needed. */
  readonly collectBytes: number;
  /** Above this, what has grown by `growthBytes` since the last collection is worth one at once: a crowd that comes and goes leaves a lot. */
  readonly soonBytes: number;
  readonly growthBytes: number;
  /** What is still above this is pressure. */
  readonly highBytes: number;
  /** Pressure ends below this. */
  readonly lowBytes: number;
  readonly sampleMs: number;
  /** Between two collections: each stops the process for some tens of milliseconds. Above `highBytes` each look is worth one. */
  readonly collectEveryMs: number;
  /** Each look while memory is high: time to let go of something. */
  readonly onHigh: () => void;
  /** Each look: whether memory is high, and the share of the time since the last look in which the thread was busy (0 to 1). */
  readonly onSample: (isHigh: boolean, utilization: number) => void;
  readonly residentBytes?: () => number;
  /** Monotonic ms. */
  readonly now?: () => number;
  /** Returns memory to the system: what it costs little to find, or all that can be done without, compiled code too. */
  readonly collect?: (all: boolean) => void;
}

export interface Pressure {
  /** As of a look not much longer ago than `sampleMs`. */
  readonly isHigh: () => boolean;
  /** Looks now; the timer does it otherwise. */
  readonly look: () => void;
  readonly close: () => void;
}

export const watchPressure = (options: PressureOptions): Pressure => {
  const { collectBytes, soonBytes, growthBytes, highBytes, lowBytes, sampleMs, collectEveryMs, onHigh, onSample } = options;
  const { residentBytes = () => process.memoryUsage.rss(), collect = collector(), now = () => performance.now() } = options;
  const utilizationNow = loopUtilization();
  let isHigh = false;
  let lookedAt = now();
  let collectedAt = Number.NEGATIVE_INFINITY;
  /** Resident after the last collection. */
  let leftBytes = 0;
  const look = (): void => {
    let resident = residentBytes();
    const isUrgent = resident > highBytes || (resident > soonBytes && resident - leftBytes >= growthBytes);
    if (resident > collectBytes && now() - collectedAt >= (isUrgent ? sampleMs : collectEveryMs)) {
      collect(isUrgent);
      collectedAt = now();
      resident = residentBytes();
      leftBytes = resident;
    }
    lookedAt = now();
    isHigh = resident > (isHigh ? lowBytes : highBytes);
    onSample(isHigh, utilizationNow());
    if (isHigh) onHigh();
  };
  const timer = setInterval(look, sampleMs).unref();
  const asked = (): boolean => {
    if (now() - lookedAt > sampleMs * 2) look();
    return isHigh;
  };
  return { isHigh: asked, look, close: () => clearInterval(timer) };
};

const loopUtilization = (): (() => number) => {
  let last = performance.eventLoopUtilization();
  return () => {
    const next = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(next, last);
    last = next;
    return utilization;
  };
};

/** V8's own collection; made when it is first needed, and no code is compiled from strings for it but its name. */
const collector = (): ((all: boolean) => void) => {
  let collectNow: ((options: object) => void) | undefined;
  return (all) => {
    if (!collectNow) {
      setFlagsFromString('--expose-gc');
      collectNow = runInNewContext('gc') as (options: object) => void;
    }
    collectNow({ type: 'major', execution: 'sync', flavor: all ? 'last-resort' : 'regular' });
  };
};
