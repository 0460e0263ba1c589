/**
 * Faults across gRPC. A fault travels as its row's status with its code in a trailer, and its detail and decision beside it; nothing
 * else does: a cause stays in the log of the side where it happened. What is no fault becomes broker_error, without a word.
 */
import { Metadata, status as grpcStatus } from '@grpc/grpc-js';
import { asFault, Fault, type FaultCode, faults, isFaultCode } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import type { Decision } from '../core/policy.ts';

const trailers = { code: 'outrider-fault', detail: 'outrider-detail', decision: 'outrider-decision' } as const;

export interface WireStatus {
  readonly code: grpcStatus;
  readonly details: string;
  readonly metadata: Metadata;
}

export const statusOf = (thrown: unknown): WireStatus => {
  const { code, detail, decision } = asFault(thrown, 'broker_error');
  const metadata = new Metadata();
  metadata.set(trailers.code, code);
  if (detail !== '') metadata.set(trailers.detail, encoded(detail));
  if (decision !== undefined) metadata.set(trailers.decision, encoded(JSON.stringify(bounded(decision))));
  return { code: grpcStatus[faults[code].grpc], details: faults[code].title, metadata };
};

/** Trailers are printable ASCII (gRPC over HTTP/2, "Custom-Metadata"). */
const encoded = (text: string): string => encodeURIComponent(text.slice(0, limits.faultDetailCharsMax).toWellFormed());

const bounded = (decision: Decision): Decision => {
  const { verdict, policy, policyVersion, rule, reason } = decision;
  const [p, v, r] = [policy, policyVersion, rule].map((name) => name.slice(0, 200)) as [string, string, string];
  return { verdict, policy: p, policyVersion: v, rule: r, reason: reason.slice(0, 1000) };
};

/** As grpc-js reports the end of a call. */
export interface CallEnd {
  readonly code: grpcStatus;
  readonly details: string;
  readonly metadata: Metadata;
}

/**
 * The fault of a call that failed: the one that the peer sent, or what became of the connection. `untrusted` is why the peer's
 * certificate was last refused, if it ever was; it counts when this call failed by it.
 */
export const faultOf = ({ code, details, metadata }: CallEnd, untrusted?: Error): Fault => {
  const sent = first(metadata, trailers.code);
  if (sent !== undefined && isFaultCode(sent)) return sentFault(sent, metadata);
  const cause = new Error(`${grpcStatus[code]}: ${details}`, untrusted === undefined ? {} : { cause: untrusted });
  switch (code) {
    case grpcStatus.DEADLINE_EXCEEDED:
      return new Fault('broker_timeout', { cause });
    case grpcStatus.UNAVAILABLE:
    case grpcStatus.CANCELLED:
      return new Fault(untrusted !== undefined && details.includes(untrusted.message) ? 'broker_untrusted' : 'broker_unavailable', {
        cause,
      });
    default:
      return new Fault('broker_error', { cause });
  }
};

const sentFault = (code: FaultCode, metadata: Metadata): Fault => {
  const detail = decoded(first(metadata, trailers.detail) ?? '') ?? '';
  const decision = decisionOf(decoded(first(metadata, trailers.decision) ?? ''));
  return new Fault(code, { detail, ...(decision === undefined ? {} : { decision }), cause: new Error('as the peer says') });
};

const first = (metadata: Metadata, key: string): string | undefined => {
  const value = metadata.get(key)[0];
  return typeof value === 'string' ? value : undefined;
};

const decoded = (value: string): string | undefined => {
  try {
    return decodeURIComponent(value);
  } catch {
    return undefined;
  }
};

const decisionOf = (json: string | undefined): Decision | undefined => {
  if (json === undefined || json === '') return undefined;
  try {
    const { verdict, policy, policyVersion, rule, reason } = JSON.parse(json) as Record<string, unknown>;
    if (verdict !== 'allow' && verdict !== 'deny' && verdict !== 'pass') return undefined;
    const [p, v, r, why] = [policy, policyVersion, rule, reason].map((value) => (typeof value === 'string' ? value : '')) as [
      string,
      string,
      string,
      string,
    ];
    return { verdict, policy: p, policyVersion: v, rule: r, reason: why };
  } catch {
    return undefined;
  }
};
