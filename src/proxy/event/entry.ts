/**
 * A draft becomes a queued event: numbered, its fields bounded, its values such that no encoder refuses them (an event that
 * cannot be encoded would stop all behind it). On the request path: the usual draft costs a few comparisons and one object.
 */
import type { AccessEvent, AccessEventDraft, CredentialUse, Outcome } from '../../core/access-event.ts';
import { limits } from '../../core/limits.ts';
import type { Decision } from '../../core/policy.ts';
import { boundedField } from './field.ts';

const { eventFieldBytesMax } = limits;

/** No UTF-16 unit takes more than 3 bytes: nearly every value is short enough not to be measured. */
const isShort = (value: string): boolean => value.length * 3 <= eventFieldBytesMax;
const field = (value: string): string => (isShort(value) ? value : boundedField(value, eventFieldBytesMax));

/** SPIFFE-ID specification section 2.3: never cut, or the collector would take it for another workload's. */
const spiffeIdBytesMax = 2048;

/**
 * The path alone, in memory of its own: a slice of a request target would keep the query string alive for as long as the
 * event waits. Concatenation and slicing copy a short text. That the path has no query and no fragment is the router's promise,
 * kept here too: the collector refuses such an event, and a refused one would hold up all behind it.
 */
const pathOnly = (path: string): string => {
  const mark = path.includes('?') || path.includes('#') ? path.search(/[?#]/) : -1;
  return field(` ${mark < 0 ? path : path.slice(0, mark)}`.slice(1));
};

const decisionOf = (decision: Decision): Decision => {
  const { verdict, policy, policyVersion, rule, reason } = decision;
  if (isShort(policy) && isShort(policyVersion) && isShort(rule) && isShort(reason)) return decision;
  return { verdict, policy: field(policy), policyVersion: field(policyVersion), rule: field(rule), reason: field(reason) };
};

const credentialOf = ({ providerKind, provider, placement, fingerprint }: CredentialUse): CredentialUse => ({
  providerKind: field(providerKind),
  provider: field(provider),
  placement: field(placement),
  fingerprint: field(fingerprint),
});

const isShortUse = ({ providerKind, provider, placement, fingerprint }: CredentialUse): boolean =>
  isShort(providerKind) && isShort(provider) && isShort(placement) && isShort(fingerprint);

/** The list itself where it needs no bound: events of one grant share it. */
const credentialsOf = (uses: readonly CredentialUse[]): readonly CredentialUse[] =>
  uses.length <= limits.eventCredentialsMax && uses.every(isShortUse) ? uses : uses.slice(0, limits.eventCredentialsMax).map(credentialOf);

/** Numbers that every encoder takes; what is none of them becomes 0. */
const counted = (value: number, max: number = Number.MAX_SAFE_INTEGER): number => (value >= 0 && value <= max ? Math.trunc(value) : 0);
const duration = (ms: number): number => (ms >= 0 && ms <= durationMsMax ? ms : 0);
/** A hundred years: anything longer is a mistake of arithmetic. */
const durationMsMax = 100 * 365 * 86_400_000;
/** The last instant of RFC 3339 and of a protobuf Timestamp. */
const timeMsMax = Date.UTC(9999, 11, 31, 23, 59, 59, 999);
const statusMax = 999;
const uint32Max = 2 ** 32 - 1;

const outcomeOf = (outcome: Outcome): Outcome => ({
  status: counted(outcome.status, statusMax),
  fault: field(outcome.fault),
  requestBodyBytes: counted(outcome.requestBodyBytes),
  responseBodyBytes: counted(outcome.responseBodyBytes),
  durationMs: duration(outcome.durationMs),
  timeToFirstByteMs: duration(outcome.timeToFirstByteMs),
  echoes: counted(outcome.echoes, uint32Max),
});

export const numbered = (draft: AccessEventDraft, sequence: number): AccessEvent => ({
  sequence,
  kind: draft.kind,
  timeMs: counted(draft.timeMs, timeMsMax),
  requestId: field(draft.requestId),
  workload: boundedField(draft.workload, spiffeIdBytesMax),
  attestationId: field(draft.attestationId),
  target: field(draft.target),
  destination: field(draft.destination),
  scheme: field(draft.scheme),
  method: field(draft.method),
  path: pathOnly(draft.path),
  decision: draft.decision && decisionOf(draft.decision),
  grantId: field(draft.grantId),
  credentials: credentialsOf(draft.credentials),
  outcome: draft.outcome && outcomeOf(draft.outcome),
  traceId: field(draft.traceId),
  lostCount: counted(draft.lostCount),
  attempt: counted(draft.attempt, uint32Max) || 1,
});
