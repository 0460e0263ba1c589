/** The broker's answer for one (workload, target), as both roles speak of it. */
import type { Rule } from './policy.ts';
import type { Secret } from './secret.ts';

/** Where a credential goes. A new kind: a member here, a message in broker.proto, a file in proxy/inject/, a vector. */
export type Placement =
  | { readonly kind: 'bearer' }
  | { readonly kind: 'basic'; readonly username: string }
  /** `template` has `{credential}` exactly once. */
  | { readonly kind: 'header'; readonly name: string; readonly template: string }
  | { readonly kind: 'query'; readonly name: string }
  /** Shown in the TLS handshake; nothing is written into the request. */
  | { readonly kind: 'client_certificate' };

export type PlacementKind = Placement['kind'];

/** What a credential is: text for a field or a parameter, or a certificate chain with its private key, PEM. */
export type CredentialForm = 'text' | 'certificate';

export const formOf = (placement: Placement): CredentialForm => (placement.kind === 'client_certificate' ? 'certificate' : 'text');

export const providerKinds = ['jwt', 'oauth2_client_credentials', 'static_file', 'x509'] as const;
export type ProviderKind = (typeof providerKinds)[number];

/** What a provider can give. */
export const providerForms: { readonly [K in ProviderKind]: readonly CredentialForm[] } = {
  jwt: ['text'],
  oauth2_client_credentials: ['text'],
  static_file: ['text', 'certificate'],
  x509: ['certificate'],
};

export interface PlacedCredential {
  readonly placement: Placement;
  readonly value: Secret;
  readonly providerKind: string;
  readonly provider: string;
  /** Keyed hash of the value, hex. */
  readonly fingerprint: string;
  readonly expiresAtMs: number;
}

/** The only destinations a grant's credentials may be sent to: checked by the proxy, asserted by the broker. */
export interface GrantBinding {
  readonly hosts: readonly string[];
  readonly ports: readonly number[];
  readonly cleartextAllowed: boolean;
}

export interface Grant {
  readonly id: string;
  readonly target: string;
  readonly binding: GrantBinding;
  readonly configurationVersion: string;
  /** Wall clock, for evidence and metrics. */
  readonly expiresAtMs: number;
  /** From the moment of making, for counting by a monotonic clock. */
  readonly lifetimeMs: number;
  readonly credentials: readonly PlacedCredential[];
  readonly rules: readonly Rule[];
}
