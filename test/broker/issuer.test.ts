/** The token issuer with real keys and a real store, and its documents over TLS as an independent relying party reads them. */
import { createHash, createPublicKey, verify } from 'node:crypto';
import { once } from 'node:events';
import { request as httpsRequest } from 'node:https';
import { connect as connectTcp } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { inspect } from 'node:util';
import {
  calculateJwkThumbprint,
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  decodeJwt,
  decodeProtectedHeader,
  type JSONWebKeySet,
  jwtVerify,
} from 'jose';
import { customFetch as oauthFetch, discoveryRequest, processDiscoveryResponse } from 'oauth4webapi';
import t, { type Test } from 'tap';
import { createIssuer, type IssuerOptions, startIssuerServer, type TokenIssuer } from '../../src/broker/issuer.ts';
import { type BrokerStore, type Decide, openStore, type StoredKey } from '../../src/broker/store.ts';
import { Secret } from '../../src/core/secret.ts';
import { outboundFetch } from '../../src/net/fetch.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { createTestAuthority } from '../support/certificates.ts';

const hour = 3_600_000;
const subject = 'spiffe://outrider.test/ns/demo/sa/demo-app';
const audience = 'https://echo.outrider.test';
const settings = { url: 'https://localhost/oidc', algorithm: 'ES256', keyLifetimeMs: 24 * hour, keyOverlapMs: hour } as const;

const storeFor = async (t: Test): Promise<BrokerStore> => {
  const store = await openStore(t.testdir());
  t.teardown(() => store.close());
  return store;
};
const issuerFor = async (t: Test, o: Partial<IssuerOptions> = {}): Promise<TokenIssuer> =>
  createIssuer({ settings, store: o.store ?? (await storeFor(t)), clock: systemClock, ...o });

const keysOf = (issuer: TokenIssuer): JSONWebKeySet => issuer.jwks() as JSONWebKeySet;

t.test('a token says who, for whom, from whom and for how long, and names its key and type', async (t) => {
  const clock = createFakeClock(1_795_000_000_900);
  const issuer = await issuerFor(t, { clock });
  const { token, expiresAtMs } = await issuer.mint({ audience, subject, lifetimeMs: 300_000, claims: { namespace: 'demo' } });
  const { jti, ...claims } = decodeJwt(token.reveal());
  t.same(claims, {
    iss: settings.url,
    sub: subject,
    aud: audience,
    iat: 1_795_000_000,
    nbf: 1_795_000_000,
    exp: 1_795_000_300,
    namespace: 'demo',
  });
  t.equal(expiresAtMs, 1_795_000_300_000);
  t.same(decodeProtectedHeader(token.reveal()), { alg: 'ES256', kid: keysOf(issuer).keys[0]?.kid, typ: 'JWT' });
  const again = await issuer.mint({ audience, subject, lifetimeMs: 300_000 });
  t.match(jti, /^[0-9a-f-]{36}$/);
  t.not(decodeJwt(again.token.reveal()).jti, jti, 'no two tokens have the same id');
});

t.test('no token lives longer than ten minutes, nor than the key overlap', async (t) => {
  const lifeOf = async (keyOverlapMs: number): Promise<number> => {
    const issuer = await issuerFor(t, { settings: { ...settings, keyOverlapMs } });
    const { exp, iat } = decodeJwt((await issuer.mint({ audience, subject, lifetimeMs: 24 * hour })).token.reveal());
    return (exp as number) - (iat as number);
  };
  t.equal(await lifeOf(hour), 600);
  t.equal(await lifeOf(120_000), 120);
});

t.test('a bound token names its key by the thumbprint, and others name none', async (t) => {
  const issuer = await issuerFor(t);
  const { publicKey } = createKeyPair();
  const { token } = await issuer.mint({ audience, subject, lifetimeMs: 60_000, boundTo: publicKey });
  const { payload } = await jwtVerify(token.reveal(), createLocalJWKSet(keysOf(issuer)), { issuer: settings.url, audience });
  // RFC 7638 section 3: the required members in order, without space.
  const { crv, x, y } = publicKey.export({ format: 'jwk' });
  const jkt = createHash('sha256')
    .update(JSON.stringify({ crv, kty: 'EC', x, y }))
    .digest('base64url');
  t.strictSame(payload['cnf'], { jkt });
  t.notOk('cnf' in decodeJwt((await issuer.mint({ audience, subject, lifetimeMs: 60_000 })).token.reveal()));
});

t.test('a registered claim cannot be overridden', async (t) => {
  const issuer = await issuerFor(t);
  for (const name of ['iss', 'sub', 'aud', 'exp', 'nbf', 'iat', 'jti']) {
    await t.rejects(issuer.mint({ audience, subject, lifetimeMs: 60_000, claims: { [name]: 'x' } }), { name: 'AssertionError' }, name);
  }
});

for (const [algorithm, kty] of [
  ['ES256', 'EC'],
  ['RS256', 'RSA'],
] as const) {
  t.test(
    `${algorithm}: the published key verifies without a JOSE library, is named by its thumbprint, and has no private part`,
    async (t) => {
      const issuer = await issuerFor(t, { settings: { ...settings, algorithm } });
      const [jwk] = keysOf(issuer).keys;
      t.match(jwk, { kty, alg: algorithm, use: 'sig', kid: await calculateJwkThumbprint(jwk ?? {}) });
      t.same(
        Object.keys(jwk ?? {}).toSorted(),
        kty === 'EC' ? ['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y'] : ['alg', 'e', 'kid', 'kty', 'n', 'use'],
      );
      const { token } = await issuer.mint({ audience, subject, lifetimeMs: 60_000 });
      const [head, body, signature] = token.reveal().split('.') as [string, string, string];
      const key = createPublicKey({ key: jwk ?? {}, format: 'jwk' });
      const check = (text: string): boolean =>
        verify('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
      t.ok(check(`${head}.${body}`));
      t.notOk(check(`${head}.${body}x`));
    },
  );
}

t.test('tokens of before a restart verify after it, and signing goes on with the same key', async (t) => {
  const store = await storeFor(t);
  const before = await issuerFor(t, { store });
  const { token } = await before.mint({ audience, subject, lifetimeMs: 60_000 });
  const after = await issuerFor(t, { store });
  t.same(after.jwks(), before.jwks());
  await t.resolves(jwtVerify(token.reveal(), createLocalJWKSet(keysOf(after)), { issuer: settings.url, audience }));
  t.equal(after.nextRotationMs(), before.nextRotationMs());
});

t.test(
  'over twelve rotations, every token verifies all its life by the keys published then and by a copy kept as long as is allowed',
  async (t) => {
    const clock = createFakeClock(1_795_000_000_000);
    const store = await storeFor(t);
    const issuer = await issuerFor(t, { store, clock, settings: { ...settings, keyLifetimeMs: 4 * hour } });
    const copies: { atMs: number; keys: JSONWebKeySet }[] = [];
    const tokens: { token: string; untilMs: number }[] = [];
    const signers = new Set<string>();
    const end = clock.now() + 12 * 4 * hour;
    while (clock.now() < end) {
      if (clock.now() >= issuer.nextRotationMs()) await issuer.rotate();
      copies.push({ atMs: clock.now(), keys: keysOf(issuer) });
      const { token, expiresAtMs } = await issuer.mint({ audience, subject, lifetimeMs: 600_000 });
      tokens.push({ token: token.reveal(), untilMs: expiresAtMs });
      signers.add(decodeProtectedHeader(token.reveal()).kid as string);
      const oldestAllowed = copies.find(({ atMs }) => atMs >= clock.now() - (hour - 600_000)) as { keys: JSONWebKeySet };
      for (const live of tokens.splice(0).filter(({ untilMs }) => untilMs > clock.now())) {
        const options = { currentDate: new Date(clock.now()), issuer: settings.url, audience };
        await jwtVerify(live.token, createLocalJWKSet(keysOf(issuer)), options);
        await jwtVerify(live.token, createLocalJWKSet(oldestAllowed.keys), options);
        tokens.push(live);
      }
      clock.advance(4 * 60_000);
    }
    t.equal(signers.size, 12);
    t.ok(copies.every(({ keys }) => keys.keys.length <= 2));
    t.ok((await store.signingKeys()).length <= 2, 'old keys leave the store too');
  },
);

t.test('rotations asked for at the same time make one key', async (t) => {
  const clock = createFakeClock();
  const store = await storeFor(t);
  const issuer = await issuerFor(t, { store, clock });
  clock.advance(23 * hour);
  await Promise.all(Array.from({ length: 10 }, () => issuer.rotate()));
  t.equal(issuer.keyCount(), 2);
  t.equal((await store.signingKeys()).length, 2);
});

t.test('a key that could not be stored is not published, and the next try makes one', async (t) => {
  const clock = createFakeClock();
  const store = await storeFor(t);
  let fails = true;
  const failing = {
    changeSigningKeys: (decide: Decide<StoredKey>) =>
      store.changeSigningKeys(async (before) => {
        const next = await decide(before);
        if (fails) throw new Error('disk full');
        return next;
      }),
  };
  await t.rejects(createIssuer({ settings, store: failing, clock }), { message: 'disk full' });
  fails = false;
  const issuer = await createIssuer({ settings, store: failing, clock });
  fails = true;
  clock.advance(23 * hour);
  const before = issuer.jwks();
  await t.rejects(issuer.rotate(), { message: 'disk full' });
  t.same(issuer.jwks(), before);
  fails = false;
  await issuer.rotate();
  t.equal(issuer.keyCount(), 2);
});

t.test('another algorithm in the settings takes over after one overlap, both being published meanwhile', async (t) => {
  const clock = createFakeClock();
  const store = await storeFor(t);
  await issuerFor(t, { store, clock });
  const issuer = await issuerFor(t, { store, clock, settings: { ...settings, algorithm: 'RS256' } });
  const algorithmNow = async (): Promise<string | undefined> =>
    decodeProtectedHeader((await issuer.mint({ audience, subject, lifetimeMs: 60_000 })).token.reveal()).alg;
  t.match(issuer.discovery(), { id_token_signing_alg_values_supported: ['ES256', 'RS256'] });
  t.equal(await algorithmNow(), 'ES256');
  clock.advance(hour);
  t.equal(await algorithmNow(), 'RS256');
  clock.advance(hour);
  t.match(issuer.discovery(), { id_token_signing_alg_values_supported: ['RS256'] });
});

t.test('a key that another broker made is taken over, signs and goes there too; rotations of both at once make one', async (t) => {
  const clock = createFakeClock();
  const store = await storeFor(t);
  const [one, other] = [await issuerFor(t, { store, clock }), await issuerFor(t, { store, clock })];
  const kidNow = async (issuer: TokenIssuer) =>
    decodeProtectedHeader((await issuer.mint({ audience, subject, lifetimeMs: 60_000 })).token.reveal()).kid;
  t.same(other.jwks(), one.jwks(), 'the first key is that of the first');
  const first = await kidNow(one);
  clock.advance(23 * hour);
  await one.rotate();
  t.equal(other.keyCount(), 1);
  await other.rotate();
  t.same(other.jwks(), one.jwks());
  t.equal(one.keyCount(), 2);
  clock.advance(hour);
  t.equal(await kidNow(other), await kidNow(one));
  t.not(await kidNow(one), first);
  clock.advance(hour);
  await other.rotate();
  t.equal((await store.signingKeys()).length, 1, 'forgotten by one');
  await one.rotate();
  t.same(one.jwks(), other.jwks());
  clock.advance(22 * hour);
  await Promise.all([one.rotate(), other.rotate()]);
  t.equal((await store.signingKeys()).length, 2);
  t.same(one.jwks(), other.jwks());
});

t.test('brokers with different algorithms, while one setting replaces another, do not replace each other for ever', async (t) => {
  const clock = createFakeClock();
  const store = await storeFor(t);
  const before = await issuerFor(t, { store, clock });
  const after = await issuerFor(t, { store, clock, settings: { ...settings, algorithm: 'RS256' } });
  for (let i = 0; i < 5; i += 1) {
    await before.rotate();
    await after.rotate();
  }
  t.same(
    (await store.signingKeys()).map(({ algorithm }) => algorithm),
    ['ES256', 'RS256'],
  );
});

t.test('a stored key that cannot be read is an error that names it and shows nothing of it', async (t) => {
  const store = await storeFor(t);
  const broken = {
    kid: 'broken',
    algorithm: 'ES256',
    privateKeyPem: new Secret('canary-key'),
    publishedFromMs: 1,
    signsFromMs: 1,
  } as const;
  await store.changeSigningKeys(async () => [broken]);
  const error: unknown = await createIssuer({ settings, store, clock: systemClock }).catch((thrown: unknown) => thrown);
  t.match(error, { name: 'StoreError', message: /signing key broken cannot be read/ });
  t.notMatch(inspect(error, { depth: 10 }), 'canary-key');
});

t.test('nothing of the issuer prints a private key', async (t) => {
  const store = await storeFor(t);
  const issuer = await issuerFor(t, { store });
  const [key] = await store.signingKeys();
  const line = key?.privateKeyPem.reveal().split('\n')[1] as string;
  for (const value of [issuer, issuer.jwks(), issuer.discovery(), await issuer.mint({ audience, subject, lifetimeMs: 60_000 })]) {
    t.notMatch(inspect(value, { depth: 10, showHidden: true }) + JSON.stringify(value), line);
  }
});

// The documents over TLS ------------------------------------------------------------------------------------------

const authority = createTestAuthority();
const certificate = (host = 'localhost', from = authority) => {
  const { cert, key } = from.serverFor(host);
  return { certificateChainPem: cert, privateKeyPem: new Secret(key) };
};

const serve = async (t: Test, path = '/oidc') => {
  const listen = { host: '127.0.0.1', port: 0 };
  const store = await storeFor(t);
  // The port is known only once it listens, and is part of the issuer's URL: found by a first server, kept by the second.
  const probe = await startIssuerServer({
    issuer: { jwks: () => ({}), discovery: () => ({}) },
    settings: { ...settings, listen },
    certificate: certificate(),
  });
  const { port } = probe.address;
  await probe.close();
  const here = { ...settings, url: `https://localhost:${port}${path}`, listen: { ...listen, port } };
  const issuer = await createIssuer({ settings: here, store, clock: systemClock });
  const server = await startIssuerServer({ issuer, settings: here, certificate: certificate() });
  t.teardown(() => server.close());
  return { server, issuer, url: here.url, port };
};
const trusting = (caPem = authority.pem) => outboundFetch({ caPem, timeoutMs: 5_000, bodyBytesMax: 100_000 });

for (const path of ['/oidc', '', '/', '/deep/er/']) {
  t.test(`a relying party that knows only the issuer, with path "${path}", verifies a token`, async (t) => {
    const { url, issuer } = await serve(t, path);
    const server = await processDiscoveryResponse(new URL(url), await discoveryRequest(new URL(url), { [oauthFetch]: trusting() })).catch(
      (error: unknown) => error,
    );
    // oauth4webapi compares with the URL as parsed, which has a "/" where the issuer has no path.
    const discovery = (path === '' ? issuer.discovery() : server) as { jwks_uri: string };
    t.same(discovery, issuer.discovery());
    const keys = createRemoteJWKSet(new URL(discovery.jwks_uri), { [customFetch]: trusting() });
    const { token } = await issuer.mint({ audience, subject, lifetimeMs: 60_000 });
    const { payload } = await jwtVerify(token.reveal(), keys, {
      issuer: url,
      audience,
      algorithms: ['ES256'],
      typ: 'JWT',
      requiredClaims: ['exp', 'iat', 'nbf', 'sub', 'jti'],
    });
    t.equal(payload.sub, subject);
  });
}

t.test('the discovery document has what OpenID Connect Discovery requires of such an issuer', async (t) => {
  const { url } = await serve(t);
  const response = await trusting()(`${url}/.well-known/openid-configuration`);
  t.equal(response.headers.get('content-type'), 'application/json');
  t.same(await response.json(), {
    issuer: url,
    jwks_uri: `${url}/jwks`,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256'],
  });
});

t.test('GET and HEAD of the two documents are answered, cacheable; everything else is refused, uncacheable', async (t) => {
  const { url, port } = await serve(t);
  const call = async (method: string, path: string) => {
    const response = await trusting()(`https://localhost:${port}${path}`, { method });
    return [response.status, response.headers.get('cache-control'), (await response.text()).length > 0];
  };
  t.same(await call('GET', '/oidc/jwks'), [200, 'public, max-age=300', true]);
  t.same(await call('HEAD', '/oidc/jwks'), [200, 'public, max-age=300', false]);
  t.same(await call('GET', '/oidc/jwks?x=1'), [200, 'public, max-age=300', true]);
  t.same(await call('GET', '/oidc/.well-known/openid-configuration'), [200, 'public, max-age=300', true]);
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) t.same(await call(method, '/oidc/jwks'), [405, 'no-store', true]);
  for (const path of [
    '/',
    '/jwks',
    '/oidc',
    '/oidc/',
    '/oidc/jwks/',
    '/oidc/JWKS',
    '/oidc/../oidc/jwks/x',
    '/.well-known/openid-configuration',
  ]) {
    t.same(await call('GET', path), [404, 'no-store', true], path);
  }
  const head = await trusting()(`${url}/jwks`, { method: 'HEAD' });
  t.equal(Number(head.headers.get('content-length')), (await (await trusting()(`${url}/jwks`)).text()).length);
});

t.test('a renewed certificate serves the next handshake; one that does not fit its key is refused and the old one stays', async (t) => {
  const { server, url } = await serve(t);
  const next = createTestAuthority('the next authority');
  t.throws(() => server.setCertificate({ ...certificate(), privateKeyPem: certificate().privateKeyPem }));
  t.equal((await trusting()(`${url}/jwks`)).status, 200);
  server.setCertificate(certificate('localhost', next));
  t.equal((await trusting(next.pem)(`${url}/jwks`)).status, 200);
  await t.rejects(trusting()(`${url}/jwks`), { message: /untrusted/ });
});

t.test('clear text, old TLS and large headers get no document, and the server goes on', async (t) => {
  const { port, url } = await serve(t);
  const closedAfter = async (socket: ReturnType<typeof connectTcp>, text: string): Promise<string> => {
    let received = '';
    socket
      .on('error', () => {})
      .setEncoding('utf8')
      .on('data', (chunk: string) => (received += chunk));
    socket.write(text);
    await once(socket, 'close');
    return received;
  };
  t.notMatch(await closedAfter(connectTcp(port, '127.0.0.1'), 'GET /oidc/jwks HTTP/1.1\r\nHost: localhost\r\n\r\n'), 'keys');
  const old = connectTls({
    port,
    host: '127.0.0.1',
    servername: 'localhost',
    ca: authority.pem,
    minVersion: 'TLSv1',
    maxVersion: 'TLSv1.1',
  });
  t.match((await once(old, 'error'))[0], { code: /SSL|TLS/ });
  const large = httpsRequest({
    port,
    host: '127.0.0.1',
    servername: 'localhost',
    ca: authority.pem,
    path: '/oidc/jwks',
    headers: { x: 'y'.repeat(9_000) },
  }).end();
  t.equal(((await once(large, 'response'))[0] as { statusCode: number }).statusCode, 431);
  large.destroy();
  t.equal((await trusting()(`${url}/jwks`)).status, 200);
});
