/**
 * An access token that is bound to a key, with a proof by that key for this one request (RFC 9449): who reads the token off the wire or out
 * of a log cannot use it. Written with node:crypto alone.
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { readBoundToken } from '../../core/bound-token.ts';
import { hostField } from '../../core/destination.ts';
import { Fault } from '../../core/fault.ts';
import { type HeaderList, valuesOf } from '../../core/headers.ts';
import type { Placer } from '../inject.ts';

interface BoundKey {
  readonly accessToken: string;
  readonly key: KeyObject;
  /** The proof's header, encoded: the same for every proof. */
  readonly header: string;
  /** Section 4.2: hash of the access token. */
  readonly ath: string;
}

const encoded = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Throws credential_invalid. */
const readBoundKey = (text: string): BoundKey => {
  const token = readBoundToken(text);
  if (token === undefined) throw new Fault('credential_invalid', { detail: 'It is not an access token with its key.' });
  const { accessToken, privateKeyPem } = token;
  const key = privateKeyOf(privateKeyPem);
  const { kty, crv, x, y } = createPublicKey(key).export({ format: 'jwk' });
  if (kty !== 'EC' || crv !== 'P-256') throw new Fault('credential_invalid', { detail: 'Its key is not a P-256 key.' });
  return {
    accessToken,
    key,
    header: encoded({ typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y } }),
    ath: createHash('sha256').update(accessToken).digest('base64url'),
  };
};

const privateKeyOf = (pem: string): KeyObject => {
  try {
    return createPrivateKey(pem);
  } catch {
    // The cause might quote the key.
    throw new Fault('credential_invalid', { detail: 'Its key is not a private key.' });
  }
};

export const dpop: Placer<{ readonly kind: 'dpop' }, BoundKey> = {
  read: readBoundKey,
  shown: ({ accessToken }) => [accessToken],
  fields: () => ['authorization', 'dpop'],
  // The proof names the path as it is sent.
  isSignature: true,
  place: (draft, _placement, { accessToken, key, header, ath }, { nowMs, uuid, nonce }) => {
    const { scheme } = draft.destination;
    const payload = encoded({
      jti: uuid(),
      htm: draft.method,
      htu: `${scheme}://${hostField(draft.destination)}${draft.path}`,
      iat: Math.floor(nowMs / 1000),
      ath,
      ...(nonce === undefined || nonce === '' ? {} : { nonce }),
    });
    const signature = sign('sha256', Buffer.from(`${header}.${payload}`), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url');
    const proof = `${header}.${payload}.${signature}`;
    return { ...draft, headers: [...draft.headers, ['authorization', `DPoP ${accessToken}`], ['dpop', proof]] };
  },
};

/** NQCHAR of RFC 6749 appendix A, and no longer than a proof can carry. */
const noncePattern = /^[\x21\x23-\x5b\x5d-\x7e]{1,512}$/;

/** The nonce that a target wants in the next proof (RFC 9449 section 8.2), or undefined: for none, for several, and for what is none. */
export const nonceOf = (headers: HeaderList): string | undefined => {
  const [nonce, ...others] = valuesOf(headers, 'dpop-nonce');
  return nonce !== undefined && others.length === 0 && noncePattern.test(nonce) ? nonce : undefined;
};

/** Whether a 401 says that only the nonce was missing (section 9), so that the request may be repeated with the same token. */
export const asksForNonce = (headers: HeaderList): boolean =>
  nonceOf(headers) !== undefined &&
  valuesOf(headers, 'www-authenticate').some(
    (challenge) => /\bDPoP\b/i.test(challenge) && /\berror\s*=\s*"?use_dpop_nonce\b/i.test(challenge),
  );
