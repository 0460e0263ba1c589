/**
 * How the broker proves itself to a token endpoint: client_secret_basic and client_secret_post (RFC 6749 section 2.3.1),
 * private_key_jwt (RFC 7523 section 2.2). Secrets and keys are read anew for every request. One of the files that call reveal().
 */
import { createPrivateKey } from 'node:crypto';
import { type ClientAuth, ClientSecretBasic, ClientSecretPost, modifyAssertion, PrivateKeyJwt } from 'oauth4webapi';
import { Fault } from '../../core/fault.ts';
import type { Secret } from '../../core/secret.ts';
import type { OAuth2ProviderSettings } from '../../settings/broker.ts';
import { readSecret, sourceName } from './secret-source.ts';

const keyAlgorithms = {
  ES256: { name: 'ECDSA', namedCurve: 'P-256' },
  RS256: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  PS256: { name: 'RSA-PSS', hash: 'SHA-256' },
} as const;

type Authentication = OAuth2ProviderSettings['clientAuthentication'];
type PrivateKeyAuthentication = Extract<Authentication, { method: 'private_key_jwt' }>;

/** Throws Fault credential_unavailable when the secret or key cannot be read or is not what its method needs. */
export const clientAuthentication = async (
  { name, clientAuthentication: wanted }: OAuth2ProviderSettings,
  env: Readonly<Record<string, string | undefined>>,
): Promise<ClientAuth> => {
  if (wanted.method === 'private_key_jwt') return assertion(name, wanted, await readSecret(name, 'client key', wanted.key, env));
  const secret = (await readSecret(name, 'client secret', wanted.secret, env)).reveal();
  return wanted.method === 'client_secret_basic' ? ClientSecretBasic(secret) : ClientSecretPost(secret);
};

const assertion = (provider: string, { key: source, keyId, algorithm }: PrivateKeyAuthentication, pem: Secret): ClientAuth => {
  try {
    const key = createPrivateKey({ key: pem.reveal(), format: 'pem' }).toCryptoKey(keyAlgorithms[algorithm], false, ['sign']);
    return PrivateKeyJwt(keyId === undefined ? key : { key, kid: keyId }, {
      // RFC 7519 section 5.1 recommends it, and some servers ask for it.
      [modifyAssertion]: (header) => {
        header['typ'] = 'JWT';
      },
    });
  } catch (error) {
    throw new Fault('credential_unavailable', {
      detail: `The client key of provider ${provider} is not a private key for ${algorithm}.`,
      cause: new Error(`${sourceName(source)} does not hold a PKCS #8 PEM key for ${algorithm}`, { cause: error }),
    });
  }
};
