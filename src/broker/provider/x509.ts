/**
 * A client certificate of the trust domain, with the workload's SPIFFE ID in it: for targets that trust the bundle. Made anew for
 * every grant, key and all; no secret is stored. It is good for clients alone, and at the broker it proves nothing: only what
 * was attested does.
 */
import assert from 'node:assert/strict';
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import { parseSpiffeId, type SpiffeId } from '../../core/spiffe-id.ts';
import { clientCertificatePem } from '../../pki/client-certificate.ts';
import { createKeyPair } from '../../pki/key.ts';
import { issueSvid } from '../../pki/svid.ts';
import type { X509ProviderSettings } from '../../settings/broker.ts';
import type { Obtain, ProviderDeps } from '../provider.ts';

export const x509 =
  ({ lifetimeMs }: X509ProviderSettings, { authority, clock }: ProviderDeps): Obtain =>
  async ({ workload }) => {
    assert(parseSpiffeId(workload), 'a workload has a SPIFFE ID');
    const key = createKeyPair();
    const { pem, notAfterMs } = issueSvid(authority(), {
      spiffeId: workload as SpiffeId,
      publicKey: key.publicKey,
      usages: ['clientAuth'],
      nowMs: clock.now(),
      lifetimeMs: Math.min(lifetimeMs, limits.clientCertificateLifetimeMaxMs),
    });
    return { value: new Secret(clientCertificatePem(pem, key)), expiresAtMs: notAfterMs };
  };
