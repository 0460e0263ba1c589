/** A token of the broker's own issuer: for targets and clouds that trust it by discovery. Made anew for every grant; no secret is stored. */
import { limits } from '../../core/limits.ts';
import type { JwtProviderSettings } from '../../settings/broker.ts';
import type { Obtain, ProviderDeps } from '../provider.ts';

export const jwt =
  ({ audience, lifetimeMs }: JwtProviderSettings, { issuer }: ProviderDeps): Obtain =>
  async ({ workload }) => {
    const { token, expiresAtMs } = await issuer.mint({
      audience,
      subject: workload,
      lifetimeMs: Math.min(lifetimeMs, limits.mintedTokenLifetimeMaxMs),
    });
    return { value: token, expiresAtMs };
  };
