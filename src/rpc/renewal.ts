/** When to attest again: arithmetic only. */
import { limits } from '../core/limits.ts';

/** Half of the SVID's life, give or take a tenth of it, so that proxies which started together do not come back together. */
const jitter = 0.1;

/**
 * From now until the renewal of an SVID: never negative, and before expiry whenever that is still possible. `random` is in [0, 1).
 */
export const renewalDelayMs = (o: {
  readonly issuedAtMs: number;
  readonly expiresAtMs: number;
  readonly nowMs: number;
  readonly random: number;
}): number => {
  const lifeMs = Math.max(0, o.expiresAtMs - o.issuedAtMs);
  const renewAtMs = o.issuedAtMs + lifeMs * (0.5 + jitter * (2 * o.random - 1));
  return Math.max(0, Math.min(Math.floor(renewAtMs), o.expiresAtMs - 1) - o.nowMs);
};

/** The pause after the n-th failure in a row, from 1: doubled each time, spread over its upper half, within the limits. */
export const retryPauseMs = (failures: number, random: number): number => {
  const { reconnectPauseMinMs: min, reconnectPauseMaxMs: max } = limits;
  const full = Math.min(max, min * 2 ** Math.min(failures, 30));
  return Math.max(min, Math.floor(full * (0.5 + random / 2)));
};
