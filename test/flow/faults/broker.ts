/** A sound broker, identities that are not, and a proxy's ends that talk to whatever stands at the switchboard. */
import type { Test } from 'tap';
import { Fault } from '../../../src/core/fault.ts';
import type { Grant } from '../../../src/core/grant.ts';
import type { TargetSnapshot } from '../../../src/core/target.ts';
import { createLog } from '../../../src/ops/log.ts';
import { createMetrics } from '../../../src/ops/metrics.ts';
import { startBrokerLink, type BrokerLink } from '../../../src/proxy/broker-link.ts';
import { createKeyPair } from '../../../src/pki/key.ts';
import { issueLeaf } from '../../../src/pki/leaf.ts';
import type { Svid } from '../../../src/rpc/svid.ts';
import type { SvidSource } from '../../../src/rpc/svid-source.ts';
import type { FakeClock } from '../../fakes/clock.ts';
import { brokerId, createDomain, type Domain, hourMs, peerOf, workloadId } from '../../rpc/trust-domain.ts';
import type { Identities } from './peers.ts';

export const domain = createDomain();
const stranger = createDomain();
const elsewhere = createDomain('elsewhere.test');
const nowMs = Date.now();

export const identitiesOf = (
  id: Parameters<Domain['identity']>[0] extends infer O ? (NonNullable<O> extends { id?: infer I } ? NonNullable<I> : never) : never,
): Identities => {
  const key = createKeyPair();
  const named = issueLeaf(domain.authority, { host: 'localhost', publicKey: key.publicKey, nowMs, lifetimeMs: hourMs }).pem;
  return {
    sound: domain.identity({ id }),
    wrong: {
      "another authority's": stranger.identity({ id }),
      'for another SPIFFE ID': domain.identity({ id: workloadId }),
      expired: domain.identity({ id, nowMs: nowMs - 3 * hourMs }),
      'not valid yet': domain.identity({ id, nowMs: nowMs + 3 * hourMs }),
      "another trust domain's": elsewhere.identity({ id }),
      'for a host name': { certificateChainPem: named, privateKey: key.privateKey, clientCaPem: domain.authority.certificatePem },
    },
  };
};

export const svids = (svid: Svid = domain.svid()): SvidSource & { readonly renewals: () => number } => {
  let renewals = 0;
  return {
    current: () => svid,
    fault: () => undefined,
    onChange: () => () => undefined,
    ready: async () => svid,
    renew: () => void (renewals += 1),
    close: () => undefined,
    renewals: () => renewals,
  };
};

export interface Linked {
  readonly link: BrokerLink;
  readonly snapshots: TargetSnapshot[];
  readonly lines: string[];
  readonly renewals: () => number;
  readonly getGrant: (target?: string) => Promise<Grant | Fault>;
}

export const linkTo = (t: Test, address: { readonly port: number }, clock: FakeClock): Linked => {
  const snapshots: TargetSnapshot[] = [];
  const lines: string[] = [];
  const source = svids();
  const link = startBrokerLink({
    broker: peerOf({ address }, brokerId),
    svids: source,
    onSnapshot: (one) => void snapshots.push(one),
    onRevocation: () => undefined,
    clock,
    random: () => 0.5,
    metrics: createMetrics('proxy'),
    log: createLog({ role: 'proxy', level: 'debug', write: (line) => lines.push(line) }),
  });
  t.teardown(() => link.close());
  return {
    link,
    snapshots,
    lines,
    renewals: source.renewals,
    getGrant: (target = 'echo') => link.getGrant(target, 'v1').catch((fault: unknown) => fault as Fault),
  };
};
