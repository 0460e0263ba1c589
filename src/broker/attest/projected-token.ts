/**
 * Verifies a projected service-account token by its issuer's published keys. Works without an API server at hand and without a
 * call per token; it does not notice that a pod was deleted before its token expired (attest/token-review.ts does).
 */
import type { KeyObject } from 'node:crypto';
import { compactVerify } from 'jose';
import { Fault } from '../../core/fault.ts';
import type { ProjectedTokenAttestorSettings } from '../../settings/broker.ts';
import type { Attestor, AttestorDeps } from './attestor.ts';
import { attestedAs, checkStandardClaims, checkSubject, readKubernetesClaims } from './claims.ts';
import type { UnverifiedToken } from './compact-token.ts';
import { createKeySource } from './key-source.ts';

export const createProjectedTokenAttestor = (settings: ProjectedTokenAttestorSettings, deps: AttestorDeps): Attestor => {
  const keys = createKeySource(settings, deps);
  const { name, issuer, audience } = settings;
  return {
    name,
    issuer,
    audience,
    verify: async (token) => {
      const { expiresAtMs } = checkStandardClaims(token.claims, { issuer, audience }, deps.clock.now());
      await checkSignature(token, await keys.keyFor(token.keyId, token.algorithm));
      // From here on the claims are verified: they were read from the very bytes that the signature covers.
      const identity = readKubernetesClaims(token.claims);
      checkSubject(token.claims['sub'], identity);
      return attestedAs(name, issuer, identity, expiresAtMs);
    },
  };
};

const checkSignature = async (token: UnverifiedToken, key: KeyObject): Promise<void> => {
  try {
    await compactVerify(token.compact.reveal(), key, { algorithms: [token.algorithm] });
  } catch {
    throw new Fault('evidence_invalid', { detail: "The signature is not that of the issuer's key." });
  }
};
