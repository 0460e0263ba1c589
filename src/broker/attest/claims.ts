/**
 * The claims of a projected service-account token. `checkStandardClaims` refuses by claims that are not verified yet: it
 * spares a call and names what is wrong. `readKubernetesClaims` makes attributes, so it is called on verified claims only.
 * Shape: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
 */
import type { Attested, Attributes } from '../../core/evidence.ts';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { isJsonObject, type JsonObject } from '../../core/json.ts';

export interface ExpectedClaims {
  readonly issuer: string;
  readonly audience: string;
}

const invalid = (detail: string): Fault => new Fault('evidence_invalid', { detail });

/** A claim's value as it may be shown to its sender and in a log line: short, printable, quoted. */
export const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? 'nothing';
  const printable = text.replace(/[^\x20-\x7e]/g, '?');
  return printable.length > 200 ? `${printable.slice(0, 200)}…` : printable;
};

/** NumericDate (RFC 7519 section 2) in ms; undefined when absent. */
const numericDate = (claims: JsonObject, name: 'exp' | 'nbf' | 'iat'): number | undefined => {
  const value = claims[name];
  if (value === undefined) return undefined;
  // Up to the year 9999: beyond it, dates cannot be written, and sums with ms lose their meaning.
  if (typeof value !== 'number' || !(value >= 0 && value <= 253_402_300_799)) throw invalid(`The claim "${name}" is not a time.`);
  return value * 1000;
};

/** Issuer, audience and times. Returns when the token ends. Throws evidence_issuer, _audience, _expired, _not_yet_valid, _invalid. */
export const checkStandardClaims = (claims: JsonObject, expected: ExpectedClaims, nowMs: number): { readonly expiresAtMs: number } => {
  if (claims['iss'] !== expected.issuer) {
    throw new Fault('evidence_issuer', { detail: `iss is ${shown(claims['iss'])}, expected ${shown(expected.issuer)}.` });
  }
  if (!audiencesOf(claims).includes(expected.audience)) {
    throw new Fault('evidence_audience', { detail: `aud is ${shown(claims['aud'])}, expected ${shown(expected.audience)}.` });
  }
  const expiresAtMs = numericDate(claims, 'exp');
  const notBeforeMs = numericDate(claims, 'nbf');
  const issuedAtMs = numericDate(claims, 'iat');
  if (expiresAtMs === undefined) throw invalid('The claim "exp" is missing.');
  if (expiresAtMs + limits.clockSkewMs <= nowMs) throw new Fault('evidence_expired', { detail: `exp is ${isoTime(expiresAtMs)}.` });
  if ((notBeforeMs ?? 0) - limits.clockSkewMs > nowMs) {
    throw new Fault('evidence_not_yet_valid', { detail: `nbf is ${isoTime(notBeforeMs ?? 0)}.` });
  }
  if ((issuedAtMs ?? 0) - limits.clockSkewMs > nowMs) {
    throw new Fault('evidence_not_yet_valid', { detail: `iat is ${isoTime(issuedAtMs ?? 0)}.` });
  }
  return { expiresAtMs };
};

const isoTime = (ms: number): string => new Date(ms).toISOString();

/** `aud` as a list (RFC 7519 section 4.1.3); empty when it is neither a string nor a list of strings. */
export const audiencesOf = (claims: JsonObject): readonly string[] => {
  const { aud } = claims as { aud?: unknown };
  if (typeof aud === 'string') return [aud];
  return Array.isArray(aud) && aud.every((one) => typeof one === 'string') ? aud : [];
};

export interface KubernetesIdentity {
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly serviceAccountUid: string;
  readonly pod: string;
  readonly podUid: string;
  readonly node: string | undefined;
  readonly nodeUid: string | undefined;
}

/** The identity in verified claims. Throws evidence_invalid for a token that is not bound to a pod, among others. */
export const readKubernetesClaims = (claims: JsonObject): KubernetesIdentity => {
  const all = claims['kubernetes.io'];
  if (!isJsonObject(all)) throw invalid('The claim "kubernetes.io" is missing: this is not a projected service-account token.');
  const part = (name: string): JsonObject | undefined => {
    const value = all[name];
    if (value !== undefined && !isJsonObject(value)) throw invalid(`The claim "kubernetes.io" has a "${name}" that is not an object.`);
    return value;
  };
  if (part('pod') === undefined) throw invalid('The token is not bound to a pod.');
  return checkIdentity({
    namespace: all['namespace'],
    serviceAccount: part('serviceaccount')?.['name'],
    serviceAccountUid: part('serviceaccount')?.['uid'],
    pod: part('pod')?.['name'],
    podUid: part('pod')?.['uid'],
    node: part('node')?.['name'],
    nodeUid: part('node')?.['uid'],
  });
};

/** RFC 1123 label and subdomain, as Kubernetes names are; both within the grammar of a SPIFFE ID's segment. */
const label = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
const subdomain = /^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/;
const uid = /^[A-Za-z0-9-]{1,128}$/;

const grammar: { readonly [K in keyof KubernetesIdentity]: readonly [pattern: RegExp, isRequired: boolean] } = {
  namespace: [label, true],
  serviceAccount: [subdomain, true],
  serviceAccountUid: [uid, true],
  pod: [subdomain, true],
  podUid: [uid, true],
  node: [subdomain, false],
  nodeUid: [uid, false],
};

/** Whether every name and UID is there and well formed; throws evidence_invalid and names the one that is not. */
export const checkIdentity = (raw: { readonly [K in keyof KubernetesIdentity]: unknown }): KubernetesIdentity => {
  for (const [name, [pattern, isRequired]] of Object.entries(grammar)) {
    const value = raw[name as keyof KubernetesIdentity];
    if (value === undefined && !isRequired) continue;
    if (value === undefined) throw invalid(`The token does not say its ${wordsOf(name)}.`);
    if (typeof value !== 'string' || !pattern.test(value))
      throw invalid(`The token's ${wordsOf(name)} is not a valid name: ${shown(value)}.`);
  }
  return raw as KubernetesIdentity;
};

const wordsOf = (name: string): string => name.replace(/[A-Z]/g, (capital) => ` ${capital.toLowerCase()}`);

const subjectOf = ({ namespace, serviceAccount }: KubernetesIdentity): string => `system:serviceaccount:${namespace}:${serviceAccount}`;

/** Throws evidence_invalid unless `subject` is that of the identity. */
export const checkSubject = (subject: unknown, identity: KubernetesIdentity): void => {
  if (subject !== subjectOf(identity)) throw invalid(`sub is ${shown(subject)}, expected ${shown(subjectOf(identity))}.`);
};

/** As documented in core/evidence.ts; what the token does not say is absent. */
const attributesOf = (identity: KubernetesIdentity, issuer: string): Attributes => ({
  'kubernetes.namespace': identity.namespace,
  'kubernetes.service_account': identity.serviceAccount,
  'kubernetes.service_account_uid': identity.serviceAccountUid,
  'kubernetes.pod': identity.pod,
  'kubernetes.pod_uid': identity.podUid,
  ...(identity.node === undefined ? {} : { 'kubernetes.node': identity.node }),
  ...(identity.nodeUid === undefined ? {} : { 'kubernetes.node_uid': identity.nodeUid }),
  'token.issuer': issuer,
  'token.subject': subjectOf(identity),
});

/** What both forms of attestor yield for a verified identity. `issuer` is the configured one. */
export const attestedAs = (attestor: string, issuer: string, identity: KubernetesIdentity, evidenceExpiresAtMs: number): Attested => ({
  attestor,
  attributes: attributesOf(identity, issuer),
  spiffeSegments: ['ns', identity.namespace, 'sa', identity.serviceAccount],
  evidenceExpiresAtMs,
});
