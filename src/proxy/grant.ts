/**
 * grant: the broker's answer for this workload and target, from the cache when it is warm. The cache's key is every input of the
 * decision (invariant I7): who asks, what for, under which configuration.
 */
import type { Grant } from '../core/grant.ts';
import type { Granted, Identified } from './exchange.ts';

export interface GrantKey {
  readonly workload: string;
  readonly target: string;
  readonly configurationVersion: string;
}

export interface GrantSource {
  /** A warm grant at once, else a promise of one; throws or rejects with the Fault that stands in the way. */
  readonly get: (key: GrantKey) => Grant | Promise<Grant>;
  /**
   * The target has refused this grant's credential. Undefined at once: there is no other, or it was asked for just now. Resolves with one
   * whose credential is another, or undefined; rejects with the Fault that stands in the way.
   */
  readonly renew?: (key: GrantKey, rejected: Grant) => Promise<Grant | undefined> | undefined;
}

export const keyOf = ({ identity, route }: Identified): GrantKey => ({
  workload: identity.spiffeId,
  target: route.target.name,
  configurationVersion: route.configurationVersion,
});

export const grantFor = (identified: Identified, source: GrantSource): Granted | Promise<Granted> => {
  const found = source.get(keyOf(identified));
  return found instanceof Promise ? found.then((grant) => ({ ...identified, grant })) : { ...identified, grant: found };
};
