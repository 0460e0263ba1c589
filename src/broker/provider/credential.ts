/**
 * What every provider yields, and the gate that every value passes when it is received: before it is cached, granted or
 * written anywhere (THREATS E-10).
 */
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { Secret } from '../../core/secret.ts';

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

/** The value itself, or Fault credential_invalid saying in what way it is not one; never what it is. */
export const checkedCredential = (provider: string, value: Secret): Secret => {
  const revealed = value.reveal();
  const problem =
    revealed === ''
      ? 'is empty'
      : revealed.length > limits.credentialBytesMax
        ? `is longer than ${limits.credentialBytesMax} bytes`
        : writable.test(revealed)
          ? undefined
          : 'has a character other than visible ASCII, or a space at an end';
  if (problem !== undefined) throw new Fault('credential_invalid', { detail: `The value of provider ${provider} ${problem}.` });
  return value;
};
