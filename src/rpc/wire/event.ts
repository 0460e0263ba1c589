/** Access events as messages: the collector reads what the proxy writes (event-bytes.ts), and the acknowledgements go both ways. */
import { strict as assert } from 'node:assert';
import type { AccessEvent, CredentialUse, Outcome } from '../../core/access-event.ts';
import type { Decision } from '../../core/policy.ts';
import {
  type AccessEvent as EventMessage,
  type CredentialUse as CredentialUseMessage,
  type Decision as DecisionMessage,
  type Outcome as OutcomeMessage,
  RecordRequestSchema,
  RecordResponseSchema,
} from '../../proto/gen/outrider/v1/events_pb.js';
import { kinds, verdicts } from './event-bytes.ts';
import { count, decode, durationMs, encode, list, someText, text, timestampMs, WireError } from './field.ts';

export { eventBatchBytes } from './event-bytes.ts';

export interface EventBatch {
  readonly bootId: string;
  readonly events: readonly AccessEvent[];
}

const keyOf = <K extends string>(table: Readonly<Record<K, number>>, value: number, what: string): K => {
  for (const key in table) if (table[key] === value) return key;
  throw new WireError(`${what} is not one of this version`);
};

/** Whole and not negative, or it is a bug of the event log. */
const whole = (value: number): bigint => {
  assert(Number.isSafeInteger(value) && value >= 0, 'a count is a whole number');
  return BigInt(value);
};

export const eventBatchOf = (bytes: Uint8Array): EventBatch => {
  const { bootId, events } = decode(RecordRequestSchema, bytes);
  return { bootId: someText(bootId, 'boot_id'), events: list(events, 'events').map(eventOf) };
};

const eventOf = (message: EventMessage): AccessEvent => {
  const sequence = count(message.sequence, 'sequence');
  if (sequence < 1) throw new WireError('sequence is missing');
  return {
    sequence,
    kind: keyOf(kinds, message.kind, 'kind'),
    timeMs: timestampMs(message.time, 'time'),
    requestId: text(message.requestId, 'request_id'),
    workload: text(message.workload, 'workload'),
    attestationId: text(message.attestationId, 'attestation_id'),
    target: text(message.target, 'target'),
    destination: text(message.destination, 'destination'),
    scheme: text(message.scheme, 'scheme'),
    method: text(message.method, 'method'),
    path: text(message.path, 'path'),
    decision: message.decision === undefined ? undefined : decisionOf(message.decision),
    grantId: text(message.grantId, 'grant_id'),
    credentials: list(message.credentials, 'credentials').map(credentialUseOf),
    outcome: message.outcome === undefined ? undefined : outcomeOf(message.outcome),
    traceId: text(message.traceId, 'trace_id'),
    lostCount: count(message.lostCount, 'lost_count'),
    // Proxies that know of no attempts make one.
    attempt: Math.max(1, message.attempt),
  };
};

const decisionOf = (message: DecisionMessage): Decision => ({
  verdict: keyOf(verdicts, message.verdict, 'verdict'),
  policy: text(message.policy, 'policy'),
  policyVersion: text(message.policyVersion, 'policy_version'),
  rule: text(message.rule, 'rule'),
  reason: text(message.reason, 'reason'),
});

const credentialUseOf = (message: CredentialUseMessage): CredentialUse => ({
  providerKind: text(message.providerKind, 'provider_kind'),
  provider: text(message.provider, 'provider'),
  placement: text(message.placement, 'placement'),
  fingerprint: text(message.fingerprint, 'fingerprint'),
});

const outcomeOf = (message: OutcomeMessage): Outcome => {
  if (message.status > 999) throw new WireError('status is not one');
  return {
    status: message.status,
    fault: text(message.fault, 'fault'),
    requestBodyBytes: count(message.requestBodyBytes, 'request_body_bytes'),
    responseBodyBytes: count(message.responseBodyBytes, 'response_body_bytes'),
    durationMs: durationMs(message.duration, 'duration'),
    timeToFirstByteMs: durationMs(message.timeToFirstByte, 'time_to_first_byte'),
    echoes: message.echoes,
  };
};

// And back ----------------------------------------------------------------------------------------------------------

export interface Acknowledgement {
  readonly bootId: string;
  /** Every event up to and including this one is stored. */
  readonly through: number;
}

export const acknowledgementBytes = ({ bootId, through }: Acknowledgement): Buffer =>
  encode(RecordResponseSchema, { bootId, storedThrough: whole(through) });

export const acknowledgementOf = (bytes: Uint8Array): Acknowledgement => {
  const { bootId, storedThrough } = decode(RecordResponseSchema, bytes);
  return { bootId: someText(bootId, 'boot_id'), through: count(storedThrough, 'stored_through') };
};
