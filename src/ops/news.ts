/** What anyone may cause again and again is said in the log once in a while: each thing for itself, and of so many things. */
import { limits } from '../core/limits.ts';
import type { Clock } from './clock.ts';

/** Whether it is time to say `what`. */
export const createNews = (clock: Clock): ((what: string) => boolean) => {
  const saidAtMs = new Map<string, number>();
  return (what) => {
    const nowMs = clock.monotonic();
    if (nowMs - (saidAtMs.get(what) ?? Number.NEGATIVE_INFINITY) < limits.refusalLogIntervalMs) return false;
    saidAtMs.delete(what);
    if (saidAtMs.size >= limits.labelValuesMax) saidAtMs.delete(saidAtMs.keys().next().value as string);
    saidAtMs.set(what, nowMs);
    return true;
  };
};
