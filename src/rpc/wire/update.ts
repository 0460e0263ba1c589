/** What a watch carries, as messages: snapshots of targets, and revocations. */
import { limits } from '../../core/limits.ts';
import type { Target, TargetSnapshot } from '../../core/target.ts';
import { type Target as TargetMessage, WatchRequestSchema, WatchResponseSchema } from '../../proto/gen/outrider/v1/broker_pb.js';
import { hostsOf, portsOf } from './destination.ts';
import { decode, encode, list, someText, WireError } from './field.ts';

/** Grants that must not be used any more. */
export interface Revocation {
  readonly target: string;
  /** Empty: every grant for the target. */
  readonly grantIds: readonly string[];
}

export type Update =
  | { readonly kind: 'snapshot'; readonly snapshot: TargetSnapshot }
  | { readonly kind: 'revocation'; readonly revocation: Revocation };

export const watchRequestBytes = (): Buffer => encode(WatchRequestSchema, {});
export const checkWatchRequest = (bytes: Uint8Array): void => void decode(WatchRequestSchema, bytes);

export const snapshotBytes = ({ configurationVersion, targets }: TargetSnapshot): Buffer =>
  encode(WatchResponseSchema, {
    update: {
      case: 'snapshot',
      value: {
        configurationVersion,
        targets: targets.map((target) => ({ ...target, hosts: [...target.hosts], ports: [...target.ports] })),
      },
    },
  });

export const revocationBytes = ({ target, grantIds }: Revocation): Buffer =>
  encode(WatchResponseSchema, { update: { case: 'revocation', value: { target, grantIds: [...grantIds] } } });

export const updateOf = (bytes: Uint8Array): Update => {
  const { update } = decode(WatchResponseSchema, bytes);
  switch (update.case) {
    case 'snapshot': {
      const configurationVersion = someText(update.value.configurationVersion, 'configuration_version');
      return { kind: 'snapshot', snapshot: { configurationVersion, targets: list(update.value.targets, 'targets').map(targetOf) } };
    }
    case 'revocation': {
      const grantIds = list(update.value.grantIds, 'grant_ids').map((id) => someText(id, 'grant_id'));
      return { kind: 'revocation', revocation: { target: someText(update.value.target, 'target'), grantIds } };
    }
    case undefined:
      throw new WireError('update is missing or of a later version');
  }
};

const targetOf = (message: TargetMessage): Target => {
  if (message.trustBundlePem.length > limits.messageBytesMax) throw new WireError('trust_bundle_pem is too long');
  return {
    name: someText(message.name, 'name'),
    hosts: hostsOf(message.hosts),
    ports: portsOf(message.ports),
    cleartextAllowed: message.cleartextAllowed,
    trustBundlePem: message.trustBundlePem,
  };
};
