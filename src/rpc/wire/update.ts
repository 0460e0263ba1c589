/** What a watch carries, as messages: snapshots of targets, and revocations. */
import { limits } from '../../core/limits.ts';
import type { EchoTreatment, PathReading, Target, TargetProtocol, TargetSnapshot, TlsVersion } from '../../core/target.ts';
import {
  EchoTreatment as EchoMessage,
  PathReading as PathReadingMessage,
  type Target as TargetMessage,
  TargetProtocol as ProtocolMessage,
  TlsVersion as TlsVersionMessage,
  WatchRequestSchema,
  WatchResponseSchema,
} from '../../proto/gen/outrider/v1/broker_pb.js';
import { hostsOf, portsOf } from './destination.ts';
import { decode, encode, list, someText, text, WireError } from './field.ts';

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
        targets: targets.map(({ protocol, tlsVersionMin, echo, paths, ...target }) => ({
          ...target,
          hosts: [...target.hosts],
          ports: [...target.ports],
          protocol: protocolMessages[protocol],
          tlsVersionMin: tlsVersionMessages[tlsVersionMin],
          echo: echoMessages[echo],
          paths: pathsMessages[paths],
        })),
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
    protocol: protocolOf(message.protocol),
    tlsVersionMin: tlsVersionOf(message.tlsVersionMin),
    echo: echoOf(message.echo),
    paths: message.paths === PathReadingMessage.VERBATIM ? 'verbatim' : 'canonical',
    placeholder: text(message.placeholder, 'placeholder'),
  };
};

// A snapshot is taken whole or not at all: one target of a later version must not take the others with it, so that what is not known
// here is read as what comes nearest.

const protocolMessages: Readonly<Record<TargetProtocol, ProtocolMessage>> = {
  auto: ProtocolMessage.AUTO,
  http1: ProtocolMessage.HTTP1,
  h2: ProtocolMessage.H2,
};

const protocolOf = (message: ProtocolMessage): TargetProtocol => {
  if (message === ProtocolMessage.HTTP1) return 'http1';
  return message === ProtocolMessage.H2 ? 'h2' : 'auto';
};

const tlsVersionMessages: Readonly<Record<TlsVersion, TlsVersionMessage>> = {
  'TLSv1.2': TlsVersionMessage.V1_2,
  'TLSv1.3': TlsVersionMessage.V1_3,
};

/** A broker that does not say has no higher floor than ours; one that asks for more than we know gets the most we have. */
const tlsVersionOf = (message: TlsVersionMessage): TlsVersion =>
  message === TlsVersionMessage.UNSPECIFIED || message === TlsVersionMessage.V1_2 ? 'TLSv1.2' : 'TLSv1.3';

const echoMessages: Readonly<Record<EchoTreatment, EchoMessage>> = {
  redact: EchoMessage.REDACT,
  refuse: EchoMessage.REFUSE,
  pass: EchoMessage.PASS,
};

/** A broker that does not say knows of no other; what is not known here is taken for the strictest. */
const echoOf = (message: EchoMessage): EchoTreatment => {
  if (message === EchoMessage.UNSPECIFIED || message === EchoMessage.REDACT) return 'redact';
  return message === EchoMessage.PASS ? 'pass' : 'refuse';
};

const pathsMessages: Readonly<Record<PathReading, PathReadingMessage>> = {
  canonical: PathReadingMessage.CANONICAL,
  verbatim: PathReadingMessage.VERBATIM,
};
