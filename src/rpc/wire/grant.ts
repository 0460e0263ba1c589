/** Grants as messages. A placement or effect that this version does not know is refused, never guessed: credentials fail closed. */
import { readAwsKeys } from '../../core/aws-keys.ts';
import { readBoundToken } from '../../core/bound-token.ts';
import { Fault } from '../../core/fault.ts';
import { type CredentialForm, formOf, type Grant, type PlacedCredential } from '../../core/grant.ts';
import { limits } from '../../core/limits.ts';
import type { Rule } from '../../core/policy.ts';
import { Secret } from '../../core/secret.ts';
import {
  type Credential as CredentialMessage,
  Effect,
  GetGrantRequestSchema,
  GetGrantResponseSchema,
  type Rule as RuleMessage,
} from '../../proto/gen/outrider/v1/broker_pb.js';
import { ClientCertificateError, readClientCertificate } from '../../pki/client-certificate.ts';
import { hostsOf, portsOf } from './destination.ts';
import { decode, durationMs, durationOf, encode, list, need, someText, text, timestampMs, timestampOf, WireError } from './field.ts';
import { placementMessage, placementOf } from './placement.ts';

export interface GrantRequest {
  readonly target: string;
  readonly configurationVersion: string;
  /** A grant whose credential the target refused; '' for none. */
  readonly rejectedGrantId: string;
}

export const grantRequestBytes = (target: string, configurationVersion: string, rejectedGrantId = ''): Buffer =>
  encode(GetGrantRequestSchema, { target, configurationVersion, rejectedGrantId });

export const grantRequestOf = (bytes: Uint8Array): GrantRequest => {
  const { target, configurationVersion, rejectedGrantId } = decode(GetGrantRequestSchema, bytes);
  return {
    target: someText(target, 'target'),
    configurationVersion: text(configurationVersion, 'configuration_version'),
    rejectedGrantId: text(rejectedGrantId, 'rejected_grant_id'),
  };
};

export const grantBytes = (grant: Grant): Buffer =>
  encode(GetGrantResponseSchema, {
    grantId: grant.id,
    target: grant.target,
    binding: { hosts: [...grant.binding.hosts], ports: [...grant.binding.ports], cleartextAllowed: grant.binding.cleartextAllowed },
    configurationVersion: grant.configurationVersion,
    expiresAt: timestampOf(grant.expiresAtMs),
    lifetime: durationOf(grant.lifetimeMs),
    credentials: grant.credentials.map((credential) => ({
      placement: placementMessage(credential.placement),
      value: Buffer.from(credential.value.reveal()),
      providerKind: credential.providerKind,
      provider: credential.provider,
      fingerprint: credential.fingerprint,
      expiresAt: timestampOf(credential.expiresAtMs),
    })),
    rules: grant.rules.map(({ effect, ...rule }) => ({
      ...rule,
      effect: effect === 'allow' ? Effect.ALLOW : Effect.DENY,
      methods: [...rule.methods],
      paths: [...rule.paths],
    })),
  });

/** Faults: credential_invalid for a credential that cannot be placed; WireError for the rest. */
export const grantOf = (bytes: Uint8Array): Grant => {
  const message = decode(GetGrantResponseSchema, bytes);
  const lifetimeMs = durationMs(message.lifetime, 'lifetime');
  if (lifetimeMs <= 0 || lifetimeMs > limits.grantLifetimeMaxMs) throw new WireError('lifetime is not one that a grant may have');
  const binding = need(message.binding, 'binding');
  return {
    id: someText(message.grantId, 'grant_id'),
    target: someText(message.target, 'target'),
    binding: { hosts: hostsOf(binding.hosts), ports: portsOf(binding.ports), cleartextAllowed: binding.cleartextAllowed },
    configurationVersion: someText(message.configurationVersion, 'configuration_version'),
    expiresAtMs: timestampMs(message.expiresAt, 'expires_at'),
    lifetimeMs,
    credentials: list(message.credentials, 'credentials').map(credentialOf),
    rules: list(message.rules, 'rules').map(ruleOf),
  };
};

// Credentials -------------------------------------------------------------------------------------------------------

const unusable = (detail: string): Fault => new Fault('credential_invalid', { detail });

const credentialOf = (message: CredentialMessage): PlacedCredential => {
  // First of all, so that no error after this holds the bytes.
  const value = valueOf(message.value);
  const placement = placementOf(need(message.placement, 'placement'));
  if (placement === undefined) throw unusable('The broker places it in a way that this proxy does not know.');
  return {
    value: readers[formOf(placement)](value),
    placement,
    providerKind: someText(message.providerKind, 'provider_kind'),
    provider: someText(message.provider, 'provider'),
    fingerprint: someText(message.fingerprint, 'fingerprint'),
    expiresAtMs: timestampMs(message.expiresAt, 'expires_at'),
  };
};

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** What may be written into a request is for the placement to say (proxy/inject/); here it is only text of bearable length. */
const valueOf = (bytes: Uint8Array): Secret => {
  if (bytes.length === 0 || bytes.length > limits.credentialBytesMax) throw unusable('It is empty or too long.');
  try {
    return new Secret(utf8.decode(bytes));
  } catch {
    throw unusable('It is not text.');
  }
};

/** What is none of its form is refused here, where it is known what it should be. */
const readers: Readonly<Record<CredentialForm, (value: Secret) => Secret>> = {
  text: (value) => value,
  certificate: (value) => certificateOf(value),
  aws_keys: (value) => {
    if (readAwsKeys(value.reveal()) === undefined) throw unusable('It is not a pair of AWS access keys.');
    return value;
  },
  bound_token: (value) => {
    if (readBoundToken(value.reveal()) === undefined) throw unusable('It is not an access token with its key.');
    return value;
  },
};

/** No handshake would say as plainly what is wrong with it. */
const certificateOf = (value: Secret): Secret => {
  try {
    return new Secret(readClientCertificate(value.reveal()).pem);
  } catch (error) {
    throw error instanceof ClientCertificateError ? unusable(`It ${error.message}.`) : error;
  }
};

// Rules -------------------------------------------------------------------------------------------------------------

const ruleOf = (message: RuleMessage): Rule => ({
  policy: someText(message.policy, 'policy'),
  policyVersion: someText(message.policyVersion, 'policy_version'),
  name: someText(message.name, 'rule'),
  effect: effectOf(message.effect),
  methods: list(message.methods, 'methods').map((method) => someText(method, 'method')),
  paths: list(message.paths, 'paths').map((path) => someText(path, 'path')),
  condition: text(message.condition, 'condition'),
});

const effectOf = (effect: Effect): Rule['effect'] => {
  if (effect === Effect.ALLOW) return 'allow';
  if (effect === Effect.DENY) return 'deny';
  throw new WireError('effect is not one of this version');
};
