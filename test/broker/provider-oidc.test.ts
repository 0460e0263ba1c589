/** Client credentials against a real authorization server, oidc-provider, over HTTPS with an authority of our own. */
import { generateKeyPairSync, type JsonWebKey, type KeyObject } from 'node:crypto';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import AuthorizationServer from 'oidc-provider';
import t, { type Test } from 'tap';
import { createProviders, type Provider } from '../../src/broker/provider.ts';
import { Fault } from '../../src/core/fault.ts';
import { createLog } from '../../src/ops/log.ts';
import { systemClock } from '../../src/ops/clock.ts';
import type { OAuth2ProviderSettings } from '../../src/settings/broker.ts';
import { createSpiffeAuthority, createTestAuthority } from '../support/certificates.ts';

type Authentication = OAuth2ProviderSettings['clientAuthentication'];

const quiet = createLog({ role: 'broker', level: 'silent' });
const authority = createTestAuthority();
/** With characters that the two encodings of a secret treat differently. */
const secret = 'canary+s3cret/with:odd %chars&=~';

const startServer = async (t: Test, clients: readonly object[]) => {
  let requests = 0;
  let handle: ReturnType<AuthorizationServer['callback']> = () => undefined;
  const server = createServer(authority.serverFor('localhost'), (request, response) => {
    requests += 1;
    handle(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  t.teardown(() => server.close());
  const issuer = `https://localhost:${(server.address() as AddressInfo).port}`;
  const signing = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });
  const provider = new AuthorizationServer(issuer, {
    clients: clients.map((client) => ({ grant_types: ['client_credentials'], redirect_uris: [], response_types: [], ...client })),
    features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
    scopes: ['read', 'write'],
    ttl: { ClientCredentials: 600 },
    enabledJWA: { clientAuthSigningAlgValues: ['ES256', 'RS256', 'PS256'] },
    jwks: { keys: [{ ...signing, use: 'sig', alg: 'RS256', kid: 'server' }] },
    cookies: { keys: ['only for browsers'] },
  });
  handle = provider.callback();
  return { provider, issuer, tokenUrl: `${issuer}/token`, requests: () => requests };
};

interface Wanted extends Partial<OAuth2ProviderSettings> {
  readonly tokenUrl: string;
  readonly clientAuthentication: Authentication;
}

/** A provider that trusts the server's authority, unless `caFile` says otherwise. */
const credentialProvider = (t: Test, settings: Wanted): Provider => {
  const caFile = settings.caFile ?? join(t.testdir({ 'ca.pem': authority.pem }), 'ca.pem');
  const defaults = { kind: 'oauth2_client_credentials', name: 'payments', clientId: 'outrider', scopes: ['read'], parameters: {} } as const;
  const providers = createProviders([{ ...defaults, ...settings, caFile }], {
    issuer: { mint: () => Promise.reject(new Error('not for this kind')) },
    authority: () => createSpiffeAuthority(),
    clock: systemClock,
    log: quiet,
    env: { CLIENT_SECRET: `${secret}\n` },
  });
  return providers.get('payments') as Provider;
};

const use = { workload: 'spiffe://outrider.test/ns/demo/sa/demo-app', target: 'payments', form: 'text' } as const;

for (const method of ['client_secret_basic', 'client_secret_post'] as const) {
  await t.test(`${method} gets a token that the server knows, with the scope asked for and the server's lifetime`, async (t) => {
    const server = await startServer(t, [
      { client_id: 'outrider', client_secret: secret, token_endpoint_auth_method: method, scope: 'read write' },
    ]);
    const provider = credentialProvider(t, {
      tokenUrl: server.tokenUrl,
      clientAuthentication: { method, secret: { env: 'CLIENT_SECRET' } },
    });
    const before = Date.now();
    const { value, expiresAtMs } = await provider.obtain(use);
    const known = await server.provider.ClientCredentials.find(value.reveal());
    t.match(known, { clientId: 'outrider', scope: 'read' });
    t.ok(expiresAtMs >= before + 600_000 && expiresAtMs <= Date.now() + 600_000, 'expires when the server says');
  });
}

const keys: Record<'ES256' | 'RS256' | 'PS256', () => { privateKey: KeyObject; publicKey: KeyObject }> = {
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
};

for (const algorithm of ['ES256', 'RS256', 'PS256'] as const) {
  await t.test(`private_key_jwt with ${algorithm} gets a token, by the token URL as audience and by the issuer`, async (t) => {
    const { privateKey, publicKey } = keys[algorithm]();
    const jwk: JsonWebKey = { ...publicKey.export({ format: 'jwk' }), kid: 'client-1', use: 'sig', alg: algorithm };
    const server = await startServer(t, [
      {
        client_id: 'outrider',
        token_endpoint_auth_method: 'private_key_jwt',
        token_endpoint_auth_signing_alg: algorithm,
        jwks: { keys: [jwk] },
        scope: 'read',
      },
    ]);
    const directory = t.testdir({ 'key.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }) as string, 'ca.pem': authority.pem });
    for (const audience of [undefined, server.issuer]) {
      const provider = credentialProvider(t, {
        tokenUrl: server.tokenUrl,
        clientAuthentication: {
          method: 'private_key_jwt',
          key: { file: join(directory, 'key.pem') },
          keyId: 'client-1',
          algorithm,
          audience,
        },
        caFile: join(directory, 'ca.pem'),
      });
      const { value } = await provider.obtain(use);
      t.match(await server.provider.ClientCredentials.find(value.reveal()), { clientId: 'outrider' });
    }
  });
}

await t.test('a thousand that ask at once cost one token request', async (t) => {
  const server = await startServer(t, [
    { client_id: 'outrider', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic', scope: 'read' },
  ]);
  const provider = credentialProvider(t, {
    tokenUrl: server.tokenUrl,
    clientAuthentication: { method: 'client_secret_basic', secret: { env: 'CLIENT_SECRET' } },
  });
  const all = await Promise.all(Array.from({ length: 1000 }, () => provider.obtain(use)));
  t.equal(new Set(all.map(({ value }) => value.reveal())).size, 1);
  t.equal(server.requests(), 1);
});

await t.test('a wrong secret is refused with the registered error code, in words that hold neither secret nor description', async (t) => {
  const server = await startServer(t, [
    { client_id: 'outrider', client_secret: 'another', token_endpoint_auth_method: 'client_secret_basic', scope: 'read' },
  ]);
  const provider = credentialProvider(t, {
    tokenUrl: server.tokenUrl,
    clientAuthentication: { method: 'client_secret_basic', secret: { env: 'CLIENT_SECRET' } },
  });
  const fault = await provider.obtain(use).then(
    () => undefined,
    (thrown: unknown) => thrown as Fault,
  );
  t.match(fault, {
    code: 'credential_unavailable',
    detail: 'The token endpoint of provider payments refused the request with status 401 and error invalid_client.',
  });
});

await t.test('a scope the client may not have is refused as invalid_scope', async (t) => {
  const server = await startServer(t, [
    { client_id: 'outrider', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic', scope: 'read' },
  ]);
  const provider = credentialProvider(t, {
    tokenUrl: server.tokenUrl,
    scopes: ['write'],
    clientAuthentication: { method: 'client_secret_basic', secret: { env: 'CLIENT_SECRET' } },
  });
  await t.rejects(provider.obtain(use), { code: 'credential_unavailable', detail: /status 400 and error invalid_scope/ });
});

await t.test('a server whose authority is not trusted gets no secret', async (t) => {
  const server = await startServer(t, [
    { client_id: 'outrider', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic', scope: 'read' },
  ]);
  const provider = credentialProvider(t, {
    tokenUrl: server.tokenUrl,
    clientAuthentication: { method: 'client_secret_basic', secret: { env: 'CLIENT_SECRET' } },
    caFile: join(t.testdir({ 'other.pem': createTestAuthority('someone else').pem }), 'other.pem'),
  });
  await t.rejects(provider.obtain(use), {
    code: 'credential_unavailable',
    detail: 'The token endpoint of provider payments has a certificate that is not trusted.',
  });
  t.equal(server.requests(), 0);
});
