/**
 * Wakes whoever rotates keys when something is due, again soon when that failed, and, where others change the same keys, now and then
 * to see what they did.
 */
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';

export interface Rotating {
  readonly rotate: () => Promise<void>;
  /** Wall clock. */
  readonly nextRotationMs: () => number;
}

export interface RotationOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** At least this often, give or take a fifth, so that replicas that started together do not stay together. */
  readonly pollMs?: number;
  /** In [0, 1). */
  readonly random?: () => number;
}

export interface Rotation {
  /** Settles when what is under way has ended. */
  readonly close: () => Promise<void>;
}

export const startRotation = (
  { rotate, nextRotationMs }: Rotating,
  { clock, log, pollMs = Number.POSITIVE_INFINITY, random = Math.random }: RotationOptions,
): Rotation => {
  let isClosed = false;
  let cancel = (): void => undefined;
  let waking = Promise.resolve();
  const schedule = (waitMs: number): void => {
    if (!isClosed) cancel = clock.after(waitMs, () => void (waking = wake()));
  };
  const next = (): void => schedule(Math.max(Math.min(nextRotationMs() - clock.now(), pollMs * (0.8 + 0.4 * random())), 0));
  const wake = async (): Promise<void> => {
    try {
      await rotate();
      next();
    } catch (error) {
      log.error({ error }, 'keys could not be rotated; what there is goes on, and it is tried again');
      schedule(limits.reconnectPauseMaxMs);
    }
  };
  next();
  return {
    close: () => {
      isClosed = true;
      cancel();
      return waking;
    },
  };
};
