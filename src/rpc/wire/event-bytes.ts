/**
 * Writes access events as protobuf (proto/outrider/v1/events.proto): every request has two, so this is on its path, and the generated
 * code, which builds a message of messages first, took a tenth of it. What requests have in common (who, where, under which grant) is
 * written once and copied. rpc/wire/event.ts reads the same bytes by the schema; test/rpc/event-bytes.test.ts holds the two together.
 */
import { strict as assert } from 'node:assert';
import type { AccessEvent, EventKind, Outcome } from '../../core/access-event.ts';
import type { Decision } from '../../core/policy.ts';
import { EventKind as KindMessage, Verdict } from '../../proto/gen/outrider/v1/events_pb.js';

export const kinds: Readonly<Record<EventKind, KindMessage>> = {
  intent: KindMessage.INTENT,
  outcome: KindMessage.OUTCOME,
  refusal: KindMessage.REFUSAL,
  pass: KindMessage.PASS,
  loss: KindMessage.LOSS,
};
export const verdicts: Readonly<Record<Decision['verdict'], Verdict>> = { allow: Verdict.ALLOW, deny: Verdict.DENY, pass: Verdict.PASS };

/** What is written, and where it goes on. Grows; what is kept of it is copied. */
let bytes = Buffer.allocUnsafeSlow(64 * 1024);
let at = 0;

const room = (more: number): void => {
  if (at + more <= bytes.length) return;
  const larger = Buffer.allocUnsafeSlow(Math.max(bytes.length * 2, at + more));
  bytes.copy(larger, 0, 0, at);
  bytes = larger;
};

/** Wire types 0 and 2 of https://protobuf.dev/programming-guides/encoding/. */
const varint = 0;
const delimited = 2;

/** Whole and not negative, or it is a bug of the event log. There is room for ten bytes. */
const putVarint = (value: number): void => {
  let rest = value;
  while (rest >= 0x80) {
    bytes[at] = (rest % 0x80) | 0x80;
    at += 1;
    rest = Math.floor(rest / 0x80);
  }
  bytes[at] = rest;
  at += 1;
};

const putTag = (field: number, type: number): void => putVarint(field * 8 + type);

const putCount = (field: number, value: number): void => {
  assert(Number.isSafeInteger(value) && value >= 0, 'a count is a whole number');
  if (value === 0) return;
  room(20);
  putTag(field, varint);
  putVarint(value);
};

const varintBytes = (value: number): number => {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size += 1;
  return size;
};

/** Puts the length of what was written from `start` on before it, where `reserved` bytes were left for that. */
const putLengthBefore = (start: number, reserved: number): void => {
  const length = at - start;
  const needed = varintBytes(length);
  if (needed !== reserved) {
    room(needed);
    bytes.copyWithin(start - reserved + needed, start, at);
    at += needed - reserved;
  }
  const end = at;
  at = start - reserved;
  putVarint(length);
  at = end;
};

/** Up to this many characters are written one by one, which is as fast as a call out of JavaScript. */
const shortText = 48;

/** UTF-8; a lone surrogate becomes U+FFFD. */
const putText = (field: number, value: string): void => {
  if (value === '') return;
  const { length } = value;
  room(length * 3 + 20);
  putTag(field, delimited);
  const reserved = varintBytes(length);
  at += reserved;
  const start = at;
  if (length <= shortText) {
    let i = 0;
    for (; i < length; i += 1) {
      const code = value.charCodeAt(i);
      if (code >= 0x80) break;
      bytes[at + i] = code;
    }
    if (i === length) {
      at += length;
      return putLengthBefore(start, reserved);
    }
  }
  at += bytes.write(value, start, 'utf8');
  return putLengthBefore(start, reserved);
};

const putBytes = (block: Uint8Array): void => {
  room(block.length);
  bytes.set(block, at);
  at += block.length;
};

/** A Timestamp or Duration, in whole microseconds; `ms` is not negative. */
const putTime = (field: number, ms: number): void => {
  let seconds = Math.floor(ms / 1000);
  let micros = Math.round((ms - seconds * 1000) * 1000);
  if (micros >= 1_000_000) {
    seconds += 1;
    micros = 0;
  }
  room(32);
  putTag(field, delimited);
  at += 1;
  const start = at;
  putCount(1, seconds);
  putCount(2, micros * 1000);
  putLengthBefore(start, 1);
};

/** What was written by `write`, taken out again. */
const taken = (write: () => void): Uint8Array => {
  const start = at;
  write();
  const block = Uint8Array.prototype.slice.call(bytes, start, at);
  at = start;
  return block;
};

/** The fields that requests under one grant have in common, and those of the decision's, written. */
interface Common {
  readonly of: AccessEvent;
  readonly block: Uint8Array;
  decision: { readonly of: Decision; readonly block: Uint8Array } | undefined;
}

/** Grants and destinations in use at a time; past it all are written anew. */
const commonsMax = 512;
const commons = new Map<string, Common>();

const isCommon = (a: AccessEvent, b: AccessEvent): boolean =>
  a.grantId === b.grantId &&
  a.destination === b.destination &&
  a.target === b.target &&
  a.scheme === b.scheme &&
  a.workload === b.workload &&
  a.attestationId === b.attestationId &&
  (a.credentials === b.credentials || (a.credentials.length === 0 && b.credentials.length === 0));

const putCommon = ({ workload, attestationId, target, destination, scheme, grantId, credentials }: AccessEvent): void => {
  putText(5, workload);
  putText(6, attestationId);
  putText(7, target);
  putText(8, destination);
  putText(9, scheme);
  putText(13, grantId);
  for (const { providerKind, provider, placement, fingerprint } of credentials) {
    room(20);
    putTag(14, delimited);
    at += 2;
    const start = at;
    putText(1, providerKind);
    putText(2, provider);
    putText(3, placement);
    putText(4, fingerprint);
    putLengthBefore(start, 2);
  }
};

const commonOf = (event: AccessEvent): Common => {
  const key = event.grantId === '' ? event.destination : event.grantId;
  const known = commons.get(key);
  if (known && isCommon(known.of, event)) return known;
  if (commons.size >= commonsMax) commons.clear();
  const made: Common = { of: event, block: taken(() => putCommon(event)), decision: undefined };
  commons.set(key, made);
  return made;
};

const putDecision = (decision: Decision, common: Common): void => {
  const { verdict, policy, policyVersion, rule, reason } = decision;
  const last = common.decision?.of;
  if (last?.verdict !== verdict || last.policy !== policy || last.policyVersion !== policyVersion || last.rule !== rule) {
    const block = taken(() => {
      putCount(1, verdicts[verdict]);
      putText(2, policy);
      putText(3, policyVersion);
      putText(4, rule);
    });
    common.decision = { of: decision, block };
  }
  room(20);
  putTag(12, delimited);
  at += 2;
  const start = at;
  putBytes((common.decision as { block: Uint8Array }).block);
  putText(5, reason);
  putLengthBefore(start, 2);
};

const putOutcome = (outcome: Outcome): void => {
  room(20);
  putTag(15, delimited);
  at += 1;
  const start = at;
  putCount(1, outcome.status);
  putText(2, outcome.fault);
  putCount(3, outcome.requestBodyBytes);
  putCount(4, outcome.responseBodyBytes);
  putTime(5, outcome.durationMs);
  putTime(6, outcome.timeToFirstByteMs);
  putCount(7, outcome.echoes);
  putLengthBefore(start, 1);
};

const putEvent = (event: AccessEvent): void => {
  const common = commonOf(event);
  room(20);
  putTag(2, delimited);
  at += 2;
  const start = at;
  putCount(1, event.sequence);
  putCount(2, kinds[event.kind]);
  putTime(3, event.timeMs);
  putText(4, event.requestId);
  putBytes(common.block);
  putText(10, event.method);
  putText(11, event.path);
  if (event.decision !== undefined) putDecision(event.decision, common);
  if (event.outcome !== undefined) putOutcome(event.outcome);
  putText(16, event.traceId);
  putCount(17, event.lostCount);
  putCount(18, event.attempt);
  putLengthBefore(start, 2);
};

/** A RecordRequest. */
export const eventBatchBytes = ({ bootId, events }: { readonly bootId: string; readonly events: readonly AccessEvent[] }): Buffer => {
  at = 0;
  putText(1, bootId);
  for (const event of events) putEvent(event);
  return Buffer.from(bytes.subarray(0, at));
};
