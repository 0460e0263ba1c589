/**
 * The second half of Attest: a verified identity becomes an SVID for the key that asked, if it is a workload that the
 * configuration knows. What was verified goes into the SVID, for whichever broker is asked for grants (attested.ts).
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import type { Attested } from '../../core/evidence.ts';
import { Fault } from '../../core/fault.ts';
import { spiffeId } from '../../core/spiffe-id.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import { readCertificateRequest } from '../../pki/certificate-request.ts';
import { issueSvid } from '../../pki/svid.ts';
import type { Attestation as AttestAnswer } from '../../rpc/server.ts';
import type { TrustDomain } from '../authority.ts';
import { sortableId } from '../lease.ts';
import type { Registry } from '../registry.ts';
import { attestedText } from './attested.ts';

export interface AdmissionDeps {
  readonly trustDomain: TrustDomain;
  readonly clock: Clock;
  readonly log: Log;
}

/** Throws Fault certificate_request_invalid or workload_unknown. */
export const admit = (
  attested: Attested,
  certificateRequest: Buffer,
  { registry, svidLifetimeMs }: { readonly registry: Registry; readonly svidLifetimeMs: number },
  { trustDomain, clock, log }: AdmissionDeps,
): AttestAnswer => {
  const { attestor, attributes, spiffeSegments } = attested;
  // The broker itself is spiffe://<trust domain>/outrider/broker: no evidence may name anyone below that.
  assert.notEqual(spiffeSegments[0], 'outrider', `attestor ${attestor} names one of our own`);
  const nowMs = clock.now();
  const publicKey = readCertificateRequest(certificateRequest);
  const { workloads } = registry.match(attested, nowMs);
  if (workloads.length === 0) throw unknownWorkload(attested);

  // The life of an SVID is not cut to what remains of its evidence: that depends on when the kubelet last rotated the token (it
  // does at 80 % of its life), so a cap would give SVIDs of seconds now and then and bunch up renewals. The evidence proves who
  // asks at this moment; how long that stands is the operator's choice, `svidLifetime`.
  const id = spiffeId(trustDomain.name, ...spiffeSegments);
  const attestationId = sortableId(nowMs, randomBytes);
  const text = attestedText(attestationId, { attestor, attributes });
  const svid = issueSvid(trustDomain.authority(), { spiffeId: id, publicKey, attested: text, nowMs, lifetimeMs: svidLifetimeMs });
  const expiresAtMs = svid.notAfterMs;
  log.info({ workload: id, attestation: attestationId, attestor, attributes, matched: workloads, expiresAtMs }, 'workload attested');
  return { certificateChain: [svid.der], trustBundle: trustDomain.bundle(), spiffeId: id, expiresAtMs, attestationId };
};

/** The client is told the two names an operator looks for; all that was attested is in the log. */
export const unknownWorkload = ({ attributes }: Pick<Attested, 'attributes'>): Fault => {
  const [namespace, account] = [attributes['kubernetes.namespace'], attributes['kubernetes.service_account']];
  const isNamed = namespace !== undefined && account !== undefined;
  return new Fault('workload_unknown', isNamed ? { detail: `Nothing matches namespace ${namespace}, service account ${account}.` } : {});
};
