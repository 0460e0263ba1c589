/**
 * The record of one request or connection. Never a credential, a query string or a body. The JSON form (one object a line in
 * the collector's store and from `outrider events`) has exactly these names.
 */
import type { Decision } from './policy.ts';

export type EventKind = 'intent' | 'outcome' | 'refusal' | 'pass' | 'loss';

export interface CredentialUse {
  readonly providerKind: string;
  readonly provider: string;
  readonly placement: string;
  readonly fingerprint: string;
}

export interface Outcome {
  /** What the program saw; 0 when no response was written. Of an attempt that was followed by another: what the target said. */
  readonly status: number;
  /** A fault code, or '' when the exchange ended well. */
  readonly fault: string;
  readonly requestBodyBytes: number;
  readonly responseBodyBytes: number;
  readonly durationMs: number;
  readonly timeToFirstByteMs: number;
  /** Places where the target's answer repeated the credential. */
  readonly echoes: number;
}

/** An event before the log has numbered it. */
export interface AccessEventDraft {
  readonly kind: EventKind;
  readonly timeMs: number;
  readonly requestId: string;
  readonly workload: string;
  readonly attestationId: string;
  readonly target: string;
  /** Canonical host:port. */
  readonly destination: string;
  readonly scheme: string;
  readonly method: string;
  /** Canonical path without the query string. */
  readonly path: string;
  readonly decision: Decision | undefined;
  readonly grantId: string;
  readonly credentials: readonly CredentialUse[];
  readonly outcome: Outcome | undefined;
  readonly traceId: string;
  readonly lostCount: number;
  /** From 1: a request that is repeated with a fresh credential has an intent and an outcome for each. */
  readonly attempt: number;
}

export interface AccessEvent extends AccessEventDraft {
  /** From 1 within a boot id, without gaps. */
  readonly sequence: number;
}
