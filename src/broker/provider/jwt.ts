/**
 * A token of the broker's own issuer: for targets and clouds that trust it by discovery. Made anew for every grant, and so is the key that
 * a bound one is bound to; no secret is stored.
 */
import { limits } from '../../core/limits.ts';
import { createKeyPair } from '../../pki/key.ts';
import type { JwtProviderSettings } from '../../settings/broker.ts';
import type { Obtain, ProviderDeps } from '../provider.ts';
import { boundCredential } from './credential.ts';

export const jwt =
  ({ audience, lifetimeMs }: JwtProviderSettings, { issuer }: ProviderDeps): Obtain =>
  async ({ workload, form }) => {
    const key = form === 'bound_token' ? createKeyPair() : undefined;
    const { token, expiresAtMs } = await issuer.mint({
      audience,
      subject: workload,
      lifetimeMs: Math.min(lifetimeMs, limits.mintedTokenLifetimeMaxMs),
      ...(key && { boundTo: key.publicKey }),
    });
    return { value: key ? boundCredential(token, key.privateKey) : token, expiresAtMs };
  };
