/**
 * One token for all workloads of a provider: fetched once however many wait for it, and ahead of its expiry.
 *
 *   0 % … 70 %  handed out
 *  70 % … 90 %  handed out while a new one is fetched behind it, so nobody waits for a slow endpoint
 *  90 % … 100 % the new one is waited for; should that fail, this one still serves
 *
 * One that a target refused is replaced at once, unless it is younger than `limits.grantRejectedIntervalMs`: then another would be refused too.
 * Knows nothing of OAuth. Counts by the monotonic clock: the wall clock may jump.
 */
import { asFault, type Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import type { Obtained } from './credential.ts';

const refreshAt = 0.7;
const waitAt = 0.9;

interface Held {
  readonly obtained: Obtained;
  readonly sinceMs: number;
  readonly refreshFromMs: number;
  readonly waitFromMs: number;
  readonly endsAtMs: number;
}

export interface SharedTokenDeps {
  readonly name: string;
  readonly clock: Clock;
  readonly log: Log;
}

export type SharedToken = (asked: { readonly fresh?: boolean }) => Promise<Obtained>;

export const sharedToken = (fetchToken: () => Promise<Obtained>, { name, clock, log }: SharedTokenDeps): SharedToken => {
  let held: Held | undefined;
  let failed: { readonly fault: Fault; readonly untilMs: number } | undefined;
  let flight: Promise<Obtained> | undefined;

  const fetchOnce = async (): Promise<Obtained> => {
    const startedMs = clock.monotonic();
    try {
      const obtained = await fetchToken();
      const lifeMs = obtained.expiresAtMs - clock.now();
      const nowMs = clock.monotonic();
      held = {
        obtained,
        sinceMs: nowMs,
        refreshFromMs: nowMs + lifeMs * refreshAt,
        waitFromMs: nowMs + lifeMs * waitAt,
        endsAtMs: nowMs + lifeMs,
      };
      failed = undefined;
      log.debug({ provider: name, seconds: (nowMs - startedMs) / 1000 }, 'token obtained');
      return obtained;
    } catch (thrown) {
      const fault = asFault(thrown, 'credential_unavailable');
      failed = { fault, untilMs: clock.monotonic() + limits.tokenFailedCacheMs };
      throw fault;
    } finally {
      flight = undefined;
    }
  };
  const fetchJoined = (): Promise<Obtained> => {
    if (failed && clock.monotonic() < failed.untilMs) return Promise.reject(failed.fault);
    flight ??= fetchOnce();
    return flight;
  };

  return async ({ fresh = false }) => {
    const nowMs = clock.monotonic();
    const isRefused = fresh && held !== undefined && nowMs - held.sinceMs >= limits.grantRejectedIntervalMs;
    if (held && !isRefused && nowMs < held.refreshFromMs) return held.obtained;
    if (held && !isRefused && nowMs < held.waitFromMs) {
      if (flight === undefined)
        fetchJoined().catch((error: unknown) =>
          log.warn({ provider: name, error }, 'token could not be refreshed; the one at hand serves on'),
        );
      return held.obtained;
    }
    try {
      return await fetchJoined();
    } catch (fault) {
      if (held && clock.monotonic() < held.endsAtMs) return held.obtained;
      throw fault;
    }
  };
};
