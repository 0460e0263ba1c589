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
}

export const grantFor = (identified: Identified, source: GrantSource): Granted | Promise<Granted> => {
  const { identity, route } = identified;
  const found = source.get({ workload: identity.spiffeId, target: route.target.name, configurationVersion: route.configurationVersion });
  return found instanceof Promise ? found.then((grant) => ({ ...identified, grant })) : { ...identified, grant: found };
};
