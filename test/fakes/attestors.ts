/** Every kind of attestor with what it verifies by, started: one row a form for the conformance suite, reused by the units. */
import { join } from 'node:path';
import type { Test } from 'tap';
import { type Attestation, createAttestation } from '../../src/broker/attest.ts';
import type { Attested } from '../../src/core/evidence.ts';
import { Fault, type FaultCode } from '../../src/core/fault.ts';
import { Secret } from '../../src/core/secret.ts';
import { createLog } from '../../src/ops/log.ts';
import type { AttestorSettings, ProjectedTokenAttestorSettings, TokenReviewAttestorSettings } from '../../src/settings/broker.ts';
import { type ApiServer, startApiServer } from './api-server.ts';
import { createFakeClock, type FakeClock } from './clock.ts';
import { type ClusterIssuer, type ClusterIssuerOptions, startClusterIssuer } from './cluster-issuer.ts';

export interface Attesting {
  readonly attestation: Attestation;
  readonly issuer: ClusterIssuer;
  readonly clock: FakeClock;
  /** Log lines so far. */
  readonly lines: string[];
  /** `attestor result`, one for each attempt. */
  readonly attempts: string[];
  readonly attest: (token: string) => Promise<Attested>;
  /** 'ok', or the fault's code. */
  readonly result: (token: string) => Promise<'ok' | FaultCode>;
  readonly fault: (token: string) => Promise<Fault | undefined>;
  readonly directory: string;
}

/** Claims count in seconds: bounds are met exactly from here. */
const wholeSecond = (): number => Math.floor(Date.now() / 1000) * 1000;

export const attestWith = (
  clock: FakeClock,
  issuer: ClusterIssuer,
  directory: string,
  settings: readonly AttestorSettings[],
): Attesting => {
  const lines: string[] = [];
  const attempts: string[] = [];
  const log = createLog({ role: 'broker', level: 'debug', write: (line) => void lines.push(line) });
  const attestation = createAttestation(settings, { clock, log, onAttempt: (attestor, result) => attempts.push(`${attestor} ${result}`) });
  const attest = (token: string): Promise<Attested> => attestation.attest({ kind: 'projected_token', token: new Secret(token) });
  const fault = async (token: string): Promise<Fault | undefined> => {
    try {
      await attest(token);
      return undefined;
    } catch (error) {
      if (error instanceof Fault) return error;
      throw error;
    }
  };
  return {
    attestation,
    issuer,
    clock,
    lines,
    attempts,
    attest,
    fault,
    result: async (token) => (await fault(token))?.code ?? 'ok',
    directory,
  };
};

export const startProjectedToken = async (
  t: Test,
  changes: Partial<ProjectedTokenAttestorSettings> = {},
  o: ClusterIssuerOptions = {},
): Promise<Attesting> => {
  const clock = createFakeClock(wholeSecond());
  const issuer = await startClusterIssuer(t, { now: clock.now, ...o });
  const directory = t.testdir({ 'ca.pem': issuer.caPem });
  const settings: ProjectedTokenAttestorSettings = {
    kind: 'projected_token',
    name: 'cluster',
    issuer: issuer.url,
    audience: 'outrider',
    caFile: join(directory, 'ca.pem'),
    authorizationTokenFile: undefined,
    ...changes,
  };
  return attestWith(clock, issuer, directory, [settings]);
};

export const startTokenReview = async (
  t: Test,
  changes: Partial<TokenReviewAttestorSettings> = {},
): Promise<Attesting & { readonly apiServer: ApiServer }> => {
  const clock = createFakeClock(wholeSecond());
  const issuer = await startClusterIssuer(t, { now: clock.now });
  const apiServer = await startApiServer(t, { issuer, now: clock.now });
  apiServer.callers.set('broker-token', true);
  const directory = t.testdir({ 'ca.pem': apiServer.caPem, token: 'broker-token\n' });
  const settings: TokenReviewAttestorSettings = {
    kind: 'token_review',
    name: 'cluster',
    issuer: issuer.url,
    audience: 'outrider',
    // As operators may write it, too.
    apiServer: `${apiServer.url}/`,
    caFile: join(directory, 'ca.pem'),
    authorizationTokenFile: join(directory, 'token'),
    ...changes,
  };
  return { ...attestWith(clock, issuer, directory, [settings]), apiServer };
};
