/** Who a role is and whom it trusts: what proxy and collector are told alike. */
import { peerAddress } from './address.ts';
import { keys } from './grammar.ts';
import { filePath, spiffeIdText } from './text.ts';

export interface PeerSettings {
  /** host:port of a gRPC server. */
  readonly address: string;
  /** The SPIFFE ID its certificate must have; checked instead of the host name. */
  readonly spiffeId: string;
}

export interface IdentitySettings {
  readonly broker: PeerSettings;
  /** PEM of the trust domain's authorities, to recognise the broker by before the first attestation. Re-read on use. */
  readonly brokerCaFile: string;
  /** The projected service-account token. Re-read on use. */
  readonly tokenFile: string;
}

export const peer = keys(
  { address: peerAddress, spiffeId: spiffeIdText },
  '{address: broker.outrider.svc:15002, spiffeId: spiffe://outrider.test/ns/outrider/sa/broker}',
).transform((written): PeerSettings => written);

export const identity = keys(
  { broker: peer, brokerCaFile: filePath('/etc/outrider/broker-ca.pem'), tokenFile: filePath('/var/run/secrets/outrider/token') },
  'a mapping with broker, brokerCaFile and tokenFile',
).transform((written): IdentitySettings => written);
