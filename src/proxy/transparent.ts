/**
 * A connection that steering rules brought here: served like a CONNECT when its first bytes name a target, else passed to where the
 * program sent it, untouched, or refused, as configured. The address it was sent to never decides about a credential: that goes where
 * the target's name resolves to now, and to nobody who cannot prove that name (THREATS E-5).
 */
import { type Destination, hostPort } from '../core/destination.ts';
import { asFault, Fault } from '../core/fault.ts';
import type { Target } from '../core/target.ts';
import { dialProblem } from '../net/guard.ts';
import type { SteeredConnection } from './listener/transparent.ts';
import type { RoutingTable } from './route.ts';
import { conclude, type Concluded, tlsTermsFor, type TunnelParts } from './tunnel.ts';
import { dialPolicyOf } from './upstream.ts';

export const createSteeredHandler =
  (parts: TunnelParts) =>
  async (connection: SteeredConnection): Promise<void> => {
    const { id, acceptedAtMonotonic, original } = connection;
    let destination: Destination = { scheme: 'https', host: original.address, port: original.port };
    const conclusion: Concluded = { id, acceptedAtMonotonic, traceId: '', method: '' };
    try {
      const found = await look(connection, parts.table());
      if (found.name !== undefined) destination = { ...destination, host: found.name };
      if (found.kind === 'target') {
        const { target } = found;
        return connection.serve({ connect: hostPort(destination), schemes, tls: tlsTermsFor(target, destination, parts.interception) });
      }
      const policy = dialPolicyOf({ kind: 'pass' }, parts.unmatchedPrivateAllowed);
      const problem = dialProblem(original.address, policy);
      // The program could not name it to a forward proxy either, and may be kept from it by its user id, which is not ours.
      if (problem !== undefined) throw new Fault('destination_prohibited', { detail: problem });
      if (found.kind === 'requests') return connection.serve({ connect: undefined, schemes, tls: undefined });
      if (parts.routePolicy.onUnmatched === 'refuse') throw new Fault('destination_unmatched');
      const { socket } = await parts.dialer.open(destination, policy, undefined, original);
      const { fromClientBytes, fromTargetBytes } = await connection.splice(socket);
      return conclude(parts, conclusion, destination, undefined, fromClientBytes, fromTargetBytes);
    } catch (thrown) {
      const fault = asFault(thrown);
      connection.refuse(fault);
      return conclude(parts, conclusion, destination, fault, 0, 0);
    }
  };

const schemes = { tls: 'https', clear: 'http' } as const;

type Found =
  | { readonly kind: 'target'; readonly name: string | undefined; readonly target: Target }
  /** Only its requests say where they go. */
  | { readonly kind: 'requests'; readonly name: undefined }
  | { readonly kind: 'elsewhere'; readonly name: string | undefined };

/** What the connection is for. On a port that no target names nothing is looked at, so that no protocol waits for another's first byte. */
const look = async ({ original, look }: SteeredConnection, { ports, byDestination }: RoutingTable): Promise<Found> => {
  const terms = ports.get(original.port);
  if (!terms) return { kind: 'elsewhere', name: undefined };
  const seen = await look();
  if (seen.kind === 'h2' && terms.cleartextAllowed) return { kind: 'requests', name: undefined };
  if (seen.kind === 'h2' || seen.kind === 'other') return { kind: 'elsewhere', name: undefined };
  // A target that is named by its address is meant when nothing else is: then that address is the identity that is verified.
  const target = byDestination.get(hostPort({ host: seen.name ?? original.address, port: original.port }));
  return target ? { kind: 'target', name: seen.name, target } : { kind: 'elsewhere', name: seen.name };
};
