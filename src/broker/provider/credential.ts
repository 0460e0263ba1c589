/**
 * What every provider yields, and the gate that every value passes when it is received: before it is cached, granted or
 * written anywhere (THREATS E-10).
 */
import { createPrivateKey, type KeyObject } from 'node:crypto';
import { awsKeysText, readAwsKeys } from '../../core/aws-keys.ts';
import { boundTokenText, readBoundToken } from '../../core/bound-token.ts';
import { Fault } from '../../core/fault.ts';
import type { CredentialForm } from '../../core/grant.ts';
import { limits } from '../../core/limits.ts';
import { Secret } from '../../core/secret.ts';
import { ClientCertificateError, readClientCertificate } from '../../pki/client-certificate.ts';

export interface Obtained {
  readonly value: Secret;
  /** Wall clock. */
  readonly expiresAtMs: number;
}

/**
 * Visible ASCII, spaces only inside: what a field value may hold without being read differently anywhere (RFC 9110 section
 * 5.5, without obs-text and tabs). Everything else could end the field, be trimmed, or be re-encoded on the way.
 */
const writable = /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/;

/** Text for a field or a parameter: the value itself, or Fault credential_invalid saying in what way it is not one; never what it is. */
export const checkedText = (provider: string, value: Secret): Secret => {
  if (!writable.test(bounded(provider, value))) throw invalid(provider, 'has a character other than visible ASCII, or a space at an end');
  return value;
};

/** A certificate chain with its key, and nothing else that stood beside them. It ends with its leaf, whatever the provider says. */
const checkedCertificate = (provider: string, { value, expiresAtMs }: Obtained, nowMs: number): Obtained => {
  try {
    const { pem, notBeforeMs, notAfterMs } = readClientCertificate(bounded(provider, value));
    if (notBeforeMs > nowMs) throw untimely(provider, 'a certificate that is not valid yet');
    const reduced = new Secret(pem);
    // Another form of key may have made it longer.
    bounded(provider, reduced);
    return { value: reduced, expiresAtMs: Math.min(expiresAtMs, notAfterMs) };
  } catch (error) {
    throw error instanceof ClientCertificateError ? invalid(provider, error.message, error) : error;
  }
};

/** Nothing but the keys is granted; they end when they say, whatever the provider says. */
const checkedAwsKeys = (provider: string, { value, expiresAtMs }: Obtained): Obtained => {
  const keys = readAwsKeys(bounded(provider, value));
  if (keys === undefined)
    throw invalid(provider, 'is not JSON with AccessKeyId and SecretAccessKey, and with SessionToken and Expiration where there are any');
  return { value: new Secret(awsKeysText(keys)), expiresAtMs: Math.min(expiresAtMs, keys.expiresAtMs ?? expiresAtMs) };
};

/** As a credential's text; see checkedBoundToken for what it must be. */
export const boundCredential = (token: Secret, privateKey: KeyObject): Secret =>
  new Secret(
    boundTokenText({ accessToken: token.reveal(), privateKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }),
  );

const checkedBoundToken = (provider: string, { value, expiresAtMs }: Obtained): Obtained => {
  const token = readBoundToken(bounded(provider, value));
  if (token === undefined) throw invalid(provider, 'is not an access token with its key');
  if (!isP256(token.privateKeyPem)) throw invalid(provider, 'is bound to something other than a P-256 key');
  return { value: new Secret(boundTokenText(token)), expiresAtMs };
};

const isP256 = (pem: string): boolean => {
  try {
    const { asymmetricKeyType, asymmetricKeyDetails } = createPrivateKey(pem);
    return asymmetricKeyType === 'ec' && asymmetricKeyDetails?.namedCurve === 'prime256v1';
  } catch {
    return false;
  }
};

/** What makes it this credential and no other: equal for equal ones, whatever stands beside it. */
export const identifyingText = (form: CredentialForm, text: string): string => {
  if (form === 'bound_token') return readBoundToken(text)?.accessToken ?? text;
  const keys = form === 'aws_keys' ? readAwsKeys(text) : undefined;
  return keys ? JSON.stringify([keys.accessKeyId, keys.secretAccessKey]) : text;
};

export interface CheckOptions {
  readonly provider: string;
  readonly form: CredentialForm;
  readonly nowMs: number;
}

const checks: Readonly<Record<CredentialForm, (provider: string, obtained: Obtained, nowMs: number) => Obtained>> = {
  text: (provider, { value, expiresAtMs }) => ({ value: checkedText(provider, value), expiresAtMs }),
  certificate: checkedCertificate,
  aws_keys: checkedAwsKeys,
  bound_token: checkedBoundToken,
};

/** As it may be granted; or Fault credential_invalid, or credential_unavailable when this is not its time. */
export const checkedCredential = (obtained: Obtained, { provider, form, nowMs }: CheckOptions): Obtained => {
  const checked = checks[form](provider, obtained, nowMs);
  if (!(checked.expiresAtMs > nowMs)) throw untimely(provider, 'a credential that has expired');
  return checked;
};

const bounded = (provider: string, value: Secret): string => {
  const revealed = value.reveal();
  if (revealed === '') throw invalid(provider, 'is empty');
  if (revealed.length > limits.credentialBytesMax) throw invalid(provider, `is longer than ${limits.credentialBytesMax} bytes`);
  return revealed;
};

const invalid = (provider: string, problem: string, cause?: unknown): Fault =>
  new Fault('credential_invalid', { detail: `The value of provider ${provider} ${problem}.`, cause });

const untimely = (provider: string, what: string): Fault =>
  new Fault('credential_unavailable', { detail: `Provider ${provider} gave ${what}.` });
