/** Time as an argument: everything that decides by time takes a Clock, so that tests move it. */
export interface Clock {
  /** Wall clock, ms since the epoch: for certificates, tokens and events. */
  readonly now: () => number;
  /** Monotonic ms: for durations and cache lifetimes. */
  readonly monotonic: () => number;
  /** Calls back after `ms` of this clock's time; the returned function cancels. Never keeps the process alive. */
  readonly after: (ms: number, callback: () => void) => () => void;
}

/** setTimeout's longest delay; longer ones would fire at once. */
const timerMsMax = 2_147_483_647;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after: (ms, callback) => {
    const timer = setTimeout(callback, Math.min(Math.max(ms, 0), timerMsMax));
    timer.unref();
    return () => clearTimeout(timer);
  },
};
