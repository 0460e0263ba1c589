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
  | { readonly kind: 'cookie'; readonly name: string }
  /** `segment` counts from 1; the segment that stands there must fit `template` (`{credential}` exactly once, e.g. `bot{credential}`). */
  | { readonly kind: 'path_segment'; readonly segment: number; readonly template: string }
  /** `field`: a JSON pointer (RFC 6901), or the name of a form field (application/x-www-form-urlencoded). */
  | { readonly kind: 'body_field'; readonly format: 'json' | 'form'; readonly field: string }
  | HmacPlacement
  | AwsPlacement
  /** `Authorization: DPoP` and the proof (RFC 9449). */
  | { readonly kind: 'dpop' }
  /** Shown in the TLS handshake; nothing is written into the request. */
  | { readonly kind: 'client_certificate' };

/** The credential is the key; what is sent is a signature over parts of the request. */
export interface HmacPlacement {
  readonly kind: 'hmac';
  readonly algorithm: 'sha256' | 'sha512';
  /** What is signed: text with any of {method} {host} {path} {query} {timestamp} {nonce} {body} {body_sha256}; at least one of them. */
  readonly message: string;
  readonly encoding: 'hex' | 'base64';
  /** The field that takes the signature, and its template with `{signature}` exactly once, besides {timestamp} and {nonce}. */
  readonly name: string;
  readonly template: string;
  /** Fields that repeat the timestamp (Unix seconds) and the nonce (UUID); '' for none. */
  readonly timestampName: string;
  readonly nonceName: string;
}

/** AWS Signature Version 4 or 4a; '' for a service or region that the host says. */
export interface AwsPlacement {
  readonly kind: 'aws_sigv4';
  readonly algorithm: 'sigv4' | 'sigv4a';
  readonly service: string;
  /** For sigv4a: the region set, such as `*` or `us-east-1,eu-west-1`. */
  readonly region: string;
}

export type PlacementKind = Placement['kind'];

/**
 * What a credential is: text for a field or a parameter; a certificate chain with its private key, PEM; AWS access keys
 * (core/aws-keys.ts); or an access token with the key it is bound to (core/bound-token.ts).
 */
export type CredentialForm = 'text' | 'certificate' | 'aws_keys' | 'bound_token';

export const formOf = ({ kind }: Placement): CredentialForm => {
  if (kind === 'client_certificate') return 'certificate';
  if (kind === 'aws_sigv4') return 'aws_keys';
  return kind === 'dpop' ? 'bound_token' : 'text';
};

export const providerKinds = ['jwt', 'oauth2_client_credentials', 'static_file', 'x509'] as const;
export type ProviderKind = (typeof providerKinds)[number];

/** What a provider can give. */
export const providerForms: { readonly [K in ProviderKind]: readonly CredentialForm[] } = {
  jwt: ['text', 'bound_token'],
  oauth2_client_credentials: ['text', 'bound_token'],
  static_file: ['text', 'certificate', 'aws_keys'],
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
