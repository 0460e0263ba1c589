/** What a workload holds once attested: an X.509-SVID, its key, and whom to trust. The key stays in memory. */
import type { KeyObject } from 'node:crypto';

export interface Svid {
  readonly spiffeId: string;
  /** Names the attestation in access events. */
  readonly attestationId: string;
  /** The SVID and its intermediates, leaf first. */
  readonly certificateChainPem: string;
  readonly privateKey: KeyObject;
  /** The trust domain's authorities. */
  readonly trustBundlePem: string;
  /** Wall clock. */
  readonly expiresAtMs: number;
  readonly issuedAtMs: number;
}
