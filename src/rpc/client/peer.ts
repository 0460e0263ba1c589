/** Who is called, and as whom. */
import type { Svid } from '../svid.ts';
import type { PeerTrust } from './peer-credentials.ts';

export interface Peer {
  /** host:port */
  readonly address: string;
  /** The SPIFFE ID its certificate must have; checked in place of the host name. */
  readonly spiffeId: string;
}

export const trustOf = (peer: Peer, svid: Svid): PeerTrust => ({
  ...peer,
  trustBundlePem: svid.trustBundlePem,
  identity: {
    certificateChainPem: svid.certificateChainPem,
    privateKeyPem: svid.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
  },
});
