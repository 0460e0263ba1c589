/**
 * A bound on calls that cost somebody else something. Who finds none waits in line for a while: forgeries are answered as fast as honest
 * tokens, so that a line moves, where a refusal would shut out whoever comes while forgeries have all the places.
 */
import type { Clock } from '../../ops/clock.ts';

export interface SemaphoreOptions {
  readonly holdersMax: number;
  readonly waitingMax: number;
  readonly waitMs: number;
  readonly clock: Clock;
}

export interface Semaphore {
  /** false: none came free in time, or too many wait already. Whoever has one gives it back. */
  readonly acquire: () => Promise<boolean>;
  readonly release: () => void;
}

export const createSemaphore = ({ holdersMax, waitingMax, waitMs, clock }: SemaphoreOptions): Semaphore => {
  const line = new Set<() => void>();
  let taken = 0;
  return {
    acquire: () =>
      new Promise((resolve) => {
        if (taken < holdersMax) {
          taken += 1;
          return resolve(true);
        }
        if (line.size >= waitingMax) return resolve(false);
        const enter = (): void => {
          cancel();
          resolve(true);
        };
        const cancel = clock.after(waitMs, () => {
          line.delete(enter);
          resolve(false);
        });
        line.add(enter);
      }),
    release: () => {
      const [next] = line;
      if (next === undefined) taken -= 1;
      else {
        line.delete(next);
        next();
      }
    },
  };
};
