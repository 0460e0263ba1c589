/** Tokens that are bound to a key (RFC 9449): from the broker's own issuer, from a real authorization server, from hostile endpoints. */
import { createPublicKey, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { calculateJwkThumbprint, decodeJwt, EmbeddedJWK, exportJWK, jwtVerify, SignJWT } from 'jose';
import AuthorizationServer from 'oidc-provider';
import t, { type Test } from 'tap';
import { createProviders, type Provider, type ProviderDeps } from '../../src/broker/provider.ts';
import { checkedCredential } from '../../src/broker/provider/credential.ts';
import { boundTokenText, readBoundToken } from '../../src/core/bound-token.ts';
import type { PlacedCredential } from '../../src/core/grant.ts';
import { Secret } from '../../src/core/secret.ts';
import { createLog } from '../../src/ops/log.ts';
import { systemClock } from '../../src/ops/clock.ts';
import type { ProviderSettings } from '../../src/settings/broker.ts';
import { createSpiffeAuthority, createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { credential, injected } from '../support/injection.ts';

const use = { workload: 'spiffe://outrider.test/ns/demo/sa/demo-app', target: 'payments', form: 'bound_token' } as const;
const clientSecret = 'canary-client';
const authority = createTestAuthority();

const providerOf = (settings: ProviderSettings, rest: Partial<ProviderDeps> = {}): Provider =>
  createProviders([settings], {
    issuer: { mint: () => Promise.reject(new Error('not for this kind')) },
    authority: () => createSpiffeAuthority(),
    clock: systemClock,
    log: createLog({ role: 'broker', level: 'silent' }),
    env: { SECRET: clientSecret },
    ...rest,
  }).get(settings.name) as Provider;

const oauth2 = (tokenUrl: string, caFile?: string): ProviderSettings => ({
  kind: 'oauth2_client_credentials',
  name: 'it',
  tokenUrl,
  clientId: 'outrider',
  clientAuthentication: { method: 'client_secret_basic', secret: { env: 'SECRET' } },
  scopes: [],
  parameters: {},
  caFile,
});

const bound = async (provider: Provider) => {
  const { value, expiresAtMs } = await provider.obtain(use);
  const read = readBoundToken(value.reveal());
  if (read === undefined) throw new Error('it is no bound token');
  return { ...read, value, expiresAtMs };
};

const thumbprintOf = async (pem: string): Promise<string> => calculateJwkThumbprint(await exportJWK(createPublicKey(pem)));

t.test('jwt: each grant has a key of its own, and its token is bound to it', async (t) => {
  const asked: { boundTo?: unknown }[] = [];
  const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  const issuer: ProviderDeps['issuer'] = {
    mint: async (options) => {
      asked.push(options);
      const cnf = options.boundTo && { jkt: await calculateJwkThumbprint(options.boundTo.export({ format: 'jwk' })) };
      const token = await new SignJWT({ cnf }).setProtectedHeader({ alg: 'ES256' }).sign(signing);
      return { token: new Secret(token), expiresAtMs: Date.now() + 60_000 };
    },
  };
  const provider = providerOf({ kind: 'jwt', name: 'it', audience: 'https://api.outrider.test', lifetimeMs: 60_000 }, { issuer });
  const [one, other] = [await bound(provider), await bound(provider)];
  t.not(one.privateKeyPem, other.privateKeyPem);
  for (const { accessToken, privateKeyPem } of [one, other])
    t.strictSame(decodeJwt(accessToken)['cnf'], { jkt: await thumbprintOf(privateKeyPem) });
  t.notMatch((await provider.obtain({ ...use, form: 'text' })).value.reveal(), 'private_key');
  t.equal(asked[2]?.boundTo, undefined, 'as text it is bound to nothing');
});

/** A real server that wants DPoP, with or without nonces. */
const startServer = async (t: Test, requireNonce: boolean) => {
  let requests = 0;
  let handle: ReturnType<AuthorizationServer['callback']> = () => undefined;
  const server = createTlsServer(authority.serverFor('localhost'), (request, response) => {
    requests += 1;
    handle(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  t.teardown(() => server.close());
  const issuer = `https://localhost:${(server.address() as AddressInfo).port}`;
  const signing = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
  const provider = new AuthorizationServer(issuer, {
    clients: [
      {
        client_id: 'outrider',
        client_secret: clientSecret,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        dpop_bound_access_tokens: true,
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => requireNonce },
    },
    ttl: { ClientCredentials: 600 },
    jwks: { keys: [{ ...signing, use: 'sig', alg: 'RS256', kid: 'server' }] },
    cookies: { keys: ['only for browsers'] },
  });
  handle = provider.callback();
  const caFile = join(directoryOf(t), 'ca.pem');
  writeFileSync(caFile, authority.pem);
  return { provider, obtainer: providerOf(oauth2(`${issuer}/token`, caFile)), requests: () => requests };
};

for (const requireNonce of [false, true]) {
  t.test(`a real server binds its token to the key${requireNonce ? ', after it was shown its nonce' : ''}`, async (t) => {
    const { provider, obtainer, requests } = await startServer(t, requireNonce);
    const { accessToken, privateKeyPem, value } = await bound(obtainer);
    const known = await provider.ClientCredentials.find(accessToken);
    t.match(known, { clientId: 'outrider', jkt: await thumbprintOf(privateKeyPem) });
    t.equal(requests(), requireNonce ? 2 : 1);
    t.equal((await bound(obtainer)).value.reveal(), value.reveal(), 'shared like any other token, key and all');
    t.equal(requests(), requireNonce ? 2 : 1);
    const placed: PlacedCredential = credential({ kind: 'dpop' }, value.reveal());
    const proof = injected({}, [placed], { nowMs: Date.now() }).headers.find(([name]) => name === 'dpop')?.[1] as string;
    const { protectedHeader } = await jwtVerify(proof, EmbeddedJWK, { typ: 'dpop+jwt' });
    t.equal(
      await calculateJwkThumbprint(protectedHeader.jwk as object),
      (known as { jkt?: string } | undefined)?.jkt,
      'and the proxy proves that it holds it',
    );
  });
}

type Answer = (request: IncomingMessage, response: ServerResponse, count: number) => void;

const startEndpoint = async (t: Test, answer: Answer) => {
  const proofs: string[] = [];
  const server = createServer((request, response) => {
    request.resume().on('end', () => {
      proofs.push(String(request.headers['dpop'] ?? ''));
      response.setHeader('content-type', 'application/json');
      answer(request, response, proofs.length);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { proofs, provider: providerOf(oauth2(`http://127.0.0.1:${(server.address() as AddressInfo).port}/token`)) };
};

const sound = { access_token: 'token', token_type: 'DPoP', expires_in: 600 };
const asksForNonce: Answer = (_request, response) => {
  response.writeHead(400, { 'dpop-nonce': 'n-1' }).end(JSON.stringify({ error: 'use_dpop_nonce' }));
};

t.test('a token of another type is refused: a downgraded one would be anybody’s', async (t) => {
  for (const type of ['Bearer', 'bearer', 'mac', '']) {
    const { provider } = await startEndpoint(t, (_request, response) => response.end(JSON.stringify({ ...sound, token_type: type })));
    await t.rejects(provider.obtain(use), { code: 'credential_unavailable', detail: /token_type other than DPoP/ }, type);
  }
});

t.test('the nonce of the endpoint is shown once, in a proof for the token request and nothing else', async (t) => {
  const { provider, proofs } = await startEndpoint(t, (request, response, count) =>
    count === 1 ? asksForNonce(request, response, count) : response.end(JSON.stringify(sound)),
  );
  t.equal((await bound(provider)).accessToken, 'token');
  const [first, second] = proofs.map((proof) => decodeJwt(proof));
  t.notOk('nonce' in (first as object));
  t.match(second, { nonce: 'n-1', htm: 'POST', htu: /\/token$/ });
  t.notOk('ath' in (second as object), 'there is no token yet');
  t.not(first?.jti, second?.jti);
});

t.test('an endpoint that is never content is asked twice, not for ever', async (t) => {
  const { provider, proofs } = await startEndpoint(t, asksForNonce);
  await t.rejects(provider.obtain(use), { code: 'credential_unavailable', detail: /status 400 and error use_dpop_nonce/ });
  t.equal(proofs.length, 2);
});

t.test('text and bound tokens of one provider are two tokens, and only one shows proofs', async (t) => {
  const { provider, proofs } = await startEndpoint(t, (request, response) =>
    response.end(JSON.stringify(request.headers['dpop'] === undefined ? { ...sound, token_type: 'Bearer', access_token: 'plain' } : sound)),
  );
  t.equal((await provider.obtain({ ...use, form: 'text' })).value.reveal(), 'plain');
  t.equal((await bound(provider)).accessToken, 'token');
  t.strictSame(
    proofs.map((proof) => proof !== ''),
    [false, true],
  );
});

t.test('whatever a provider gives as a bound token must be one, with a P-256 key', async (t) => {
  const pemOf = (namedCurve: string): string =>
    generateKeyPairSync('ec', { namedCurve }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  const check = (text: string) =>
    checkedCredential({ value: new Secret(text), expiresAtMs: 1 }, { provider: 'it', form: 'bound_token', nowMs: 0 });
  const sound = boundTokenText({ accessToken: 'token', privateKeyPem: pemOf('P-256') });
  t.equal(check(sound).value.reveal(), sound);
  for (const privateKeyPem of [pemOf('P-384'), 'canary'])
    t.throws(() => check(boundTokenText({ accessToken: 'token', privateKeyPem })), {
      code: 'credential_invalid',
      detail: /other than a P-256 key/,
    });
  t.throws(() => check('canary'), { code: 'credential_invalid', detail: 'The value of provider it is not an access token with its key.' });
});

t.test('a token that no field can hold is refused, and is in no error', async (t) => {
  for (const token of ['canary token', 'canary\r\n', 'canary"', '']) {
    const { provider } = await startEndpoint(t, (_request, response) => response.end(JSON.stringify({ ...sound, access_token: token })));
    const fault = await provider.obtain(use).then(
      () => undefined,
      (thrown: Error) => thrown,
    );
    t.match(fault, { code: /^credential_(?:invalid|unavailable)$/ }, JSON.stringify(token));
    t.notMatch(`${fault?.message} ${String((fault as { cause?: unknown }).cause)}`, 'canary');
  }
});
