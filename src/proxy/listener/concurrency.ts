/**
 * How many requests run at a time: of all programs together, of connections that ask for several things at once beyond the first of each,
 * and while memory is short. Knows neither sockets nor HTTP.
 */
import { limits } from '../../core/limits.ts';

/** Why one more may not run. */
export type Excess = 'requests' | 'memory';

export interface Concurrency {
  /** `isFurther`: its connection has one under way already. When the request is over, `leave` is called, once. */
  readonly enter: (isFurther: boolean) => { readonly leave: () => void } | { readonly excess: Excess };
  /** Whether memory is so short that nothing new is begun. */
  readonly isFull: () => boolean;
}

export const createConcurrency = (isMemoryShort: () => boolean): Concurrency => {
  const running = { all: 0, further: 0, short: 0 };
  const isFull = (): boolean => isMemoryShort() && running.short >= limits.memoryShortRequestsMax;
  return {
    isFull,
    enter: (isFurther) => {
      // Asked first: refusing takes memory, too.
      const isShort = isMemoryShort();
      if (running.all >= limits.clientRequestsMax) return { excess: 'requests' };
      if (isFurther && running.further >= limits.clientFurtherRequestsMax) return { excess: 'requests' };
      if (isShort && running.short >= limits.memoryShortRequestsMax) return { excess: 'memory' };
      const count = (one: 1 | -1): void => {
        running.all += one;
        if (isFurther) running.further += one;
        if (isShort) running.short += one;
      };
      count(1);
      return { leave: () => count(-1) };
    },
  };
};
