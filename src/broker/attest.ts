/**
 * Evidence in, attributes out. The attestor is chosen by the token's issuer, unverified at that point; nothing else of an
 * unverified token is used but to refuse it.
 */
import type { Attested, Evidence } from '../core/evidence.ts';
import { asFault, Fault, type FaultCode } from '../core/fault.ts';
import type { AttestorSettings } from '../settings/broker.ts';
import type { Attestor, AttestorDeps } from './attest/attestor.ts';
import { audiencesOf, shown } from './attest/claims.ts';
import { readCompactToken, type UnverifiedToken } from './attest/compact-token.ts';
import { createProjectedTokenAttestor } from './attest/projected-token.ts';
import { createTokenReviewAttestor } from './attest/token-review.ts';

export interface Attestation {
  /** Throws Fault evidence_missing, _expired, _not_yet_valid, _audience, _issuer, _invalid or _unverifiable. */
  readonly attest: (evidence: Evidence) => Promise<Attested>;
}

export interface AttestationDeps extends AttestorDeps {
  /** Told of every attempt; `attestor` is '' when none was chosen. */
  readonly onAttempt?: (attestor: string, result: 'ok' | FaultCode) => void;
}

/** Holds the issuers' keys: keep it over a reload that does not change the attestors. */
export const createAttestation = (settings: readonly AttestorSettings[], deps: AttestationDeps): Attestation => {
  const attestors = settings.map((one) => createAttestor(one, deps));
  const { onAttempt = () => {} } = deps;
  return {
    attest: async (evidence) => {
      let chosen: Attestor | undefined;
      try {
        const token = readCompactToken(evidence.token);
        chosen = choose(attestors, token);
        const attested = await chosen.verify(token);
        onAttempt(chosen.name, 'ok');
        return attested;
      } catch (error) {
        const fault = asFault(error);
        onAttempt(chosen?.name ?? '', fault.code);
        throw fault;
      }
    },
  };
};

const createAttestor = (settings: AttestorSettings, deps: AttestorDeps): Attestor => {
  switch (settings.kind) {
    case 'projected_token':
      return createProjectedTokenAttestor(settings, deps);
    case 'token_review':
      return createTokenReviewAttestor(settings, deps);
  }
};

/** One cluster may have attestors for several audiences: among those of the issuer, the one the token is for. */
const choose = (attestors: readonly Attestor[], token: UnverifiedToken): Attestor => {
  const ofIssuer = attestors.filter(({ issuer }) => issuer === token.claims['iss']);
  const audiences = audiencesOf(token.claims);
  const chosen = ofIssuer.find(({ audience }) => audiences.includes(audience)) ?? ofIssuer[0];
  if (chosen === undefined) throw new Fault('evidence_issuer', { detail: `No attestor is for iss ${shown(token.claims['iss'])}.` });
  return chosen;
};
