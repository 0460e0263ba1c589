/**
 * authorize: judges this request by the rules that came with the grant. Local, pure, deny by default; and a grant is good only
 * for the destination it was made for.
 */
import { Fault } from '../core/fault.ts';
import { decide } from '../core/policy.ts';
import type { Authorized, Granted } from './exchange.ts';

/** Throws policy_denied with the decision, target_unknown when the grant is for another destination. */
export const authorize = (granted: Granted): Authorized => {
  const { grant, destination, method, path } = granted;
  const isBound =
    grant.binding.hosts.includes(destination.host) &&
    grant.binding.ports.includes(destination.port) &&
    (destination.scheme === 'https' || grant.binding.cleartextAllowed);
  if (!isBound) throw new Fault('target_unknown', { detail: 'The target has just been changed.' });
  const decision = decide(grant.rules, { method, path: path.path, ambiguity: path.ambiguity });
  if (decision.verdict !== 'allow') throw new Fault('policy_denied', { decision });
  return { ...granted, decision };
};
