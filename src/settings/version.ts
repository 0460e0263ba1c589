/** What a configuration and its policies are called by: equal content has an equal version (core/version.ts). */
import { versionOf } from '../core/version.ts';
import type { BrokerSettings, PolicySettings } from './broker.ts';

/** Of the whole file. Grants name the version of what one workload sees instead (broker/registry/view.ts). */
export const configurationVersionOf = (settings: BrokerSettings): string => versionOf(settings);

/** As decisions and events name it. */
export const policyVersionOf = (policy: PolicySettings): string => versionOf(policy);
