/**
 * OAuth 2.0 client credentials (RFC 6749 section 4.4): one access token for all workloads of the provider, shared and renewed
 * by provider/shared-token.ts; and one that is bound to a key of its own (RFC 9449) where a placement wants that. Owns oauth4webapi together with client-authentication.ts: the library writes the request, we
 * read the answer (token-response.ts says why).
 */
import { readFile } from 'node:fs/promises';
import { allowInsecureRequests, clientCredentialsGrantRequest, clockSkew, customFetch, DPoP, type DPoPHandle } from 'oauth4webapi';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { Secret } from '../../core/secret.ts';
import { OutboundError, type OutboundFetch, type OutboundReason, outboundFetch } from '../../net/fetch.ts';
import { createKeyPair, type KeyPair } from '../../pki/key.ts';
import type { OAuth2ProviderSettings } from '../../settings/broker.ts';
import type { Obtain, ProviderDeps } from '../provider.ts';
import { clientAuthentication } from './client-authentication.ts';
import { boundCredential, checkedText, type Obtained } from './credential.ts';
import { sharedToken } from './shared-token.ts';
import { asksForNonce, readTokenResponse } from './token-response.ts';

export const oauth2ClientCredentials = (settings: OAuth2ProviderSettings, deps: ProviderDeps): Obtain => {
  const shared = { name: settings.name, ...deps };
  const bearer = sharedToken(() => obtainToken(settings, deps, undefined), shared);
  // A key for each token: it ends with it.
  const bound = sharedToken(() => obtainToken(settings, deps, createKeyPair()), shared);
  return (options) => (options.form === 'bound_token' ? bound : bearer)(options);
};

const obtainToken = async (settings: OAuth2ProviderSettings, deps: ProviderDeps, key: KeyPair | undefined): Promise<Obtained> => {
  const { name } = settings;
  const requestedAtMs = deps.clock.now();
  const received = await requestToken(settings, deps, await fetchFor(settings), key);
  const answer = readTokenResponse({ ...received, requestedAtMs, tokenType: key ? 'DPoP' : 'Bearer' });
  if ('problem' in answer)
    throw new Fault('credential_unavailable', { detail: `The token endpoint of provider ${name} ${answer.problem}.` });
  const token: Secret = checkedText(name, answer.value);
  return { ...answer, value: key ? boundCredential(token, key.privateKey) : token };
};

type Received = { readonly status: number; readonly body: string };

const ecdsa = { name: 'ECDSA', namedCurve: 'P-256' } as const;

/** Signs the proofs and keeps the endpoint's nonce for the next one. */
const proofsBy = ({ privateKey, publicKey }: KeyPair, client: { readonly [clockSkew]: number }): DPoPHandle =>
  DPoP(client, { privateKey: privateKey.toCryptoKey(ecdsa, false, ['sign']), publicKey: publicKey.toCryptoKey(ecdsa, true, ['verify']) });

const requestToken = async (
  settings: OAuth2ProviderSettings,
  { clock, env }: ProviderDeps,
  fetch: OutboundFetch,
  key: KeyPair | undefined,
): Promise<Received> => {
  const { name, tokenUrl, clientId, clientAuthentication: wanted, scopes, parameters } = settings;
  const authentication = await clientAuthentication(settings, env);
  // The library takes an assertion's audience from `issuer`.
  const audience = (wanted.method === 'private_key_jwt' ? wanted.audience : undefined) ?? tokenUrl;
  const form = new URLSearchParams(parameters);
  if (scopes.length > 0) form.set('scope', scopes.join(' '));
  // Assertions and proofs are dated by our clock, not by the process'.
  const client = { client_id: clientId, [clockSkew]: Math.round((clock.now() - Date.now()) / 1000) };
  const proofs = key && proofsBy(key, client);
  const request = async (): Promise<Received> => {
    const response = await clientCredentialsGrantRequest(
      { issuer: audience, token_endpoint: tokenUrl },
      client,
      authentication,
      form,
      // Which schemes and hosts may be called is decided in one place: net/fetch.ts.
      { [customFetch]: fetch, [allowInsecureRequests]: true, ...(proofs && { DPoP: proofs }) },
    );
    return { status: response.status, body: await response.text() };
  };
  try {
    const received = await request();
    return proofs && asksForNonce(received) ? await request() : received;
  } catch (error) {
    throw new Fault('credential_unavailable', { detail: `The token endpoint of provider ${name} ${unanswered(error)}.`, cause: error });
  }
};

/** The trust bundle is read for every request, so a changed one counts from the next. */
const fetchFor = async ({ name, caFile }: OAuth2ProviderSettings): Promise<OutboundFetch> => {
  try {
    const caPem = caFile === undefined ? undefined : await readFile(caFile, 'utf8');
    return outboundFetch({ caPem, timeoutMs: limits.tokenRequestTimeoutMs, bodyBytesMax: limits.outboundBodyBytesMax });
  } catch (error) {
    throw new Fault('credential_unavailable', { detail: `The trust bundle of provider ${name} cannot be read.`, cause: error });
  }
};

const whyUnanswered = {
  url_refused: 'may not be called',
  timeout: 'did not answer in time',
  aborted: 'did not answer in time',
  unreachable: 'cannot be reached',
  untrusted: 'has a certificate that is not trusted',
  too_large: 'answered with more than is read',
  malformed: 'answered with something that is not HTTP',
} as const satisfies Record<OutboundReason, string>;

const unanswered = (error: unknown): string => (error instanceof OutboundError ? whyUnanswered[error.reason] : 'could not be asked');
