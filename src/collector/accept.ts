/**
 * Whether a batch may be recorded for its sender: value in, reason out. A batch is taken whole or not at all, because a proxy
 * sends in order and deletes by number.
 *
 * Decided: an event speaks for its sender alone, so `workload` is the SPIFFE ID of the certificate it came under. A refusal, a
 * passed connection or a loss may have none: they happen before the proxy has its first identity. `reporter` is stamped from
 * the certificate in any case (event-json.ts).
 */
import type { AccessEvent } from '../core/access-event.ts';
import { limits } from '../core/limits.ts';

export interface Refusal {
  /** Metric label. */
  readonly reason: 'boot_id' | 'sequence' | 'workload' | 'field';
  /** Safe to show: nothing of the event but its number. */
  readonly detail: string;
}

const bootIdPattern = /^[A-Za-z0-9._-]{1,64}$/;

export const refusalOf = (caller: string, bootId: string, events: readonly AccessEvent[]): Refusal | undefined => {
  if (!bootIdPattern.test(bootId)) return { reason: 'boot_id', detail: 'The boot id must be 1 to 64 letters, digits, ".", "_" or "-".' };
  let previous = 0;
  for (const event of events) {
    const { sequence } = event;
    if (!Number.isSafeInteger(sequence) || sequence <= previous) {
      return { reason: 'sequence', detail: 'Sequence numbers must rise from 1.' };
    }
    previous = sequence;
    if (!speaksFor(event, caller)) return { reason: 'workload', detail: `Event ${sequence} names a workload that is not its sender.` };
    const field = badField(event);
    if (field !== undefined) return { reason: 'field', detail: `Event ${sequence}: ${field}.` };
  }
  return undefined;
};

const speaksFor = ({ workload, kind }: AccessEvent, caller: string): boolean =>
  workload === caller || (workload === '' && kind !== 'intent' && kind !== 'outcome');

/** What the proxy never writes: over-long texts, and a path with a query string or fragment, which could hold a secret. */
const badField = (event: AccessEvent): string | undefined => {
  if (/[?#]/.test(event.path)) return 'the path has a query string';
  if (event.credentials.length > limits.eventCredentialsMax) return 'it names too many credentials';
  if (textsOf(event).some((text) => text.length > limits.eventFieldBytesMax)) return 'a field is too long';
  return undefined;
};

const textsOf = (event: AccessEvent): readonly string[] => [
  event.requestId,
  event.attestationId,
  event.target,
  event.destination,
  event.scheme,
  event.method,
  event.path,
  event.grantId,
  event.traceId,
  event.outcome?.fault ?? '',
  ...(event.decision ? [event.decision.policy, event.decision.policyVersion, event.decision.rule, event.decision.reason] : []),
  ...event.credentials.flatMap((c) => [c.providerKind, c.provider, c.placement, c.fingerprint]),
];
