/** identity: who the workload is, by the SVID of this moment. Pure: the renewal runs elsewhere (rpc/svid-source.ts). */
import { Fault } from '../core/fault.ts';
import type { Identified, Identity, RoutedToTarget } from './exchange.ts';

export interface IdentityState {
  readonly identity: Identity | undefined;
  /** Why there is none. */
  readonly fault: Fault | undefined;
}

/** Throws the attestation's own fault, or not_ready before the first attempt has ended. */
export const identify = (routed: RoutedToTarget, { identity, fault }: IdentityState): Identified => {
  if (!identity) throw fault ?? new Fault('not_ready');
  return { ...routed, identity };
};
