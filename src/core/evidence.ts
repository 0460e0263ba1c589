/** What a workload can show, and what is known once an attestor has verified it. */
import type { Secret } from './secret.ts';

/** A new kind: a member here, a field in broker.proto, a file in broker/attest/. */
export type Evidence = { readonly kind: 'projected_token'; readonly token: Secret };

/**
 * Names and values that policy matches workloads by. Kubernetes attestors give `kubernetes.namespace`,
 * `kubernetes.service_account`, `kubernetes.service_account_uid`, `kubernetes.pod`, `kubernetes.pod_uid`,
 * `kubernetes.node`, `kubernetes.node_uid`, and `token.issuer`, `token.subject`.
 */
export type Attributes = Readonly<Record<string, string>>;

export interface Attested {
  readonly attestor: string;
  readonly attributes: Attributes;
  /** The path segments of the workload's SPIFFE ID: `ns/<namespace>/sa/<service account>` in Kubernetes. */
  readonly spiffeSegments: readonly string[];
  /** When the evidence itself ends (wall clock). */
  readonly evidenceExpiresAtMs: number;
}
