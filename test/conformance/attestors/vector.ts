/** Faulty tokens for the attestors' conformance suite, and how to write one down. */
import type { FaultCode } from '../../../src/core/fault.ts';
import type { Attesting } from '../../fakes/attestors.ts';
import type { Json, TokenParts } from '../../fakes/cluster-issuer.ts';

/** A token with one thing wrong, the code it must get, and the same token without it. */
export interface Vector {
  readonly name: string;
  readonly code: FaultCode;
  readonly bad: (on: Attesting) => string;
  readonly good: (on: Attesting) => string;
}

export const plainToken = ({ issuer }: Attesting): string => issuer.token();
export const seconds = ({ clock }: Attesting): number => Math.floor(clock.now() / 1000);
export const bound = (on: Attesting, changes: Json): Json => ({
  'kubernetes.io': { ...(on.issuer.claims()['kubernetes.io'] as Json), ...changes },
});

export const vector = (
  name: string,
  code: FaultCode,
  bad: (on: Attesting) => string,
  good: (on: Attesting) => string = plainToken,
): Vector => ({
  name,
  code,
  bad,
  good,
});
/** Differs in claims alone. */
export const claims = (name: string, code: FaultCode, bad: (on: Attesting) => Json, good: (on: Attesting) => Json = () => ({})): Vector =>
  vector(
    name,
    code,
    (on) => on.issuer.token({ claims: bad(on) }),
    (on) => on.issuer.token({ claims: good(on) }),
  );
export const parts = (
  name: string,
  code: FaultCode,
  bad: (on: Attesting) => TokenParts,
  good: (on: Attesting) => TokenParts = () => ({}),
): Vector =>
  vector(
    name,
    code,
    (on) => on.issuer.token(bad(on)),
    (on) => on.issuer.token(good(on)),
  );
/** A header that must be refused though the signature is the issuer's own. */
export const header = (name: string, bad: Json, good: Json = {}): Vector =>
  parts(
    name,
    'evidence_invalid',
    () => ({ header: bad }),
    () => ({ header: good }),
  );
