/**
 * The published JSON form of an access event: one object on one line of the store, as `outrider events` prints it.
 *
 * | field | type | meaning |
 * | --- | --- | --- |
 * | `time` | RFC 3339, UTC, ms | when it happened, by the proxy's clock |
 * | `kind` | `intent`, `outcome`, `refusal`, `pass`, `loss` | see the README |
 * | `requestId` | UUID | joins the intent and the outcome of one request; also the instance of its problem document |
 * | `traceId` | hex | W3C trace id, when the program sent one |
 * | `workload` | SPIFFE ID | who asked; absent when the proxy had no identity yet |
 * | `attestationId` | text | the attestation that the identity came from |
 * | `target` | text | name of the target; absent for passed traffic |
 * | `destination` | `host:port` | canonical |
 * | `scheme`, `method`, `path` | text | the path is canonical and without its query string |
 * | `decision` | `{verdict, policy, policyVersion, rule, reason}` | verdict is `allow`, `deny` or `pass` |
 * | `grantId` | text | the grant that was used |
 * | `credentials` | `[{providerKind, provider, placement, fingerprint}]` | which were written; the fingerprint is a keyed hash |
 * | `outcome` | `{status, fault, requestBodyBytes, responseBodyBytes, durationMs, timeToFirstByteMs, echoes}` | how it ended; echoes: places where the answer repeated the credential, absent for none |
 * | `lostCount` | number | kind `loss`: how many events were discarded before this one |
 * | `attempt` | number from 2 | the request was repeated with a fresh credential; absent for the first attempt |
 * | `reporter` | SPIFFE ID | who sent the event, by its certificate |
 * | `bootId`, `sequence` | text, number from 1 | names the event: one run of one proxy, without gaps |
 * | `receivedAt` | RFC 3339, UTC, ms | by the collector's clock |
 *
 * Fields keep this order; empty texts, empty lists and absent parts are left out (numbers in `outcome` always stand). Characters
 * that could change what a terminal or log viewer shows (control, bidirectional, invisible) are written as \u escapes: the
 * line parses to the same values and cannot be broken or disguised by them (THREATS R-5).
 */
import type { AccessEvent } from '../core/access-event.ts';
import type { Decision } from '../core/policy.ts';

export interface Receipt {
  /** SPIFFE ID of the sender, by its certificate. */
  readonly reporter: string;
  readonly bootId: string;
  readonly receivedAtMs: number;
}

/** One line, without its line feed. */
export const eventLine = (event: AccessEvent, { reporter, bootId, receivedAtMs }: Receipt): string =>
  escapeUnprintable(
    JSON.stringify({
      time: timestamp(event.timeMs),
      kind: event.kind,
      requestId: text(event.requestId),
      traceId: text(event.traceId),
      workload: text(event.workload),
      attestationId: text(event.attestationId),
      target: text(event.target),
      destination: text(event.destination),
      scheme: text(event.scheme),
      method: text(event.method),
      path: text(event.path),
      decision: event.decision && decisionJson(event.decision),
      grantId: text(event.grantId),
      credentials: event.credentials.length === 0 ? undefined : event.credentials.map(credentialJson),
      outcome: event.outcome && outcomeJson(event.outcome),
      lostCount: event.lostCount === 0 ? undefined : event.lostCount,
      attempt: event.attempt === 1 ? undefined : event.attempt,
      reporter,
      bootId,
      sequence: event.sequence,
      receivedAt: timestamp(receivedAtMs),
    }),
  );

/** JSON.stringify leaves a property out whose value is undefined. */
const text = (value: string): string | undefined => (value === '' ? undefined : value);

const decisionJson = ({ verdict, policy, policyVersion, rule, reason }: Decision) => ({
  verdict,
  policy: text(policy),
  policyVersion: text(policyVersion),
  rule: text(rule),
  reason: text(reason),
});

const credentialJson = ({ providerKind, provider, placement, fingerprint }: AccessEvent['credentials'][number]) => ({
  providerKind: text(providerKind),
  provider: text(provider),
  placement: text(placement),
  fingerprint: text(fingerprint),
});

const outcomeJson = (outcome: NonNullable<AccessEvent['outcome']>) => ({
  status: outcome.status,
  fault: text(outcome.fault),
  requestBodyBytes: outcome.requestBodyBytes,
  responseBodyBytes: outcome.responseBodyBytes,
  durationMs: outcome.durationMs,
  timeToFirstByteMs: outcome.timeToFirstByteMs,
  echoes: outcome.echoes === 0 ? undefined : outcome.echoes,
});

/** The longest span of time that RFC 3339 has years for; other numbers become its ends. */
const timeMsMax = Date.UTC(9999, 11, 31, 23, 59, 59, 999);
const timestamp = (ms: number): string => new Date(ms >= 0 ? Math.min(ms, timeMsMax) : 0).toISOString();

const printableAscii = /^[\x20-\x7e]*$/;
/** Unicode's control, format, line and paragraph separator characters, and invisible fillers that are letters by category. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u115f\u1160\u3164\uffa0]/gu;

/** A JSON text on one line whose strings show nothing that is not there; it parses to the same value. */
export const escapeUnprintable = (json: string): string =>
  printableAscii.test(json)
    ? json
    : json.replace(unprintable, (char) => Array.from({ length: char.length }, (_, i) => unicodeEscape(char.charCodeAt(i))).join(''));

const unicodeEscape = (unit: number): string => `\\u${unit.toString(16).padStart(4, '0')}`;
