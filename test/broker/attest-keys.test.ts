/** How the projected-token attestor finds, keeps and forgets its issuer's keys. */
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { publishedKeys } from '../../src/broker/attest/key-source.ts';
import { limits } from '../../src/core/limits.ts';
import { type Attesting, attestWith, startProjectedToken } from '../fakes/attestors.ts';
import { createIssuerKey, type Json, publicJwk } from '../fakes/cluster-issuer.ts';
import { createTestAuthority } from '../support/certificates.ts';

const paths = ({ issuer }: Attesting): string[] => issuer.requests.map(({ path }) => path);
const discoveryPath = '/.well-known/openid-configuration';
const jwksPath = '/openid/v1/jwks';
const answer = (response: ServerResponse, body: unknown): void => void response.end(JSON.stringify(body));
const unknownKey = createIssuerKey();

t.test('a thousand tokens, cold and at once or warm, cost one discovery and one key set', async (t) => {
  const on = await startProjectedToken(t);
  const tokens = Array.from({ length: 20 }, () => on.issuer.token());
  const results = await Promise.all(Array.from({ length: 500 }, (_, i) => on.result(tokens[i % 20] as string)));
  t.ok(results.every((result) => result === 'ok'));
  for (let i = 0; i < 500; i += 1) if ((await on.result(tokens[i % 20] as string)) !== 'ok') t.fail('refused when warm');
  t.same(paths(on), [discoveryPath, jwksPath]);
});

t.test('tokens that name unknown keys cost one more read in a cooldown, however many they are', async (t) => {
  const on = await startProjectedToken(t);
  await on.attest(on.issuer.token());
  on.clock.advance(limits.jwksCooldownMs);
  const results = await Promise.all(
    Array.from({ length: 50 }, (_, i) => on.result(on.issuer.token({ key: { ...unknownKey, kid: `unknown ${i}` } }))),
  );
  t.ok(results.every((result) => result === 'evidence_invalid'));
  t.equal(paths(on).length, 4);
  t.equal(await on.result(on.issuer.token({ key: unknownKey })), 'evidence_invalid');
  t.equal(paths(on).length, 4, 'not again within the cooldown');
  on.clock.advance(limits.jwksCooldownMs);
  t.equal(await on.result(on.issuer.token({ key: unknownKey })), 'evidence_invalid');
  t.equal(paths(on).length, 6);
});

t.test('a new key is found by the first token that names it', async (t) => {
  const on = await startProjectedToken(t);
  await on.attest(on.issuer.token());
  on.issuer.rotate();
  on.clock.advance(limits.jwksCooldownMs);
  t.equal(await on.result(on.issuer.token()), 'ok');
});

t.test('keys are read again when they are old, and a withdrawn one is refused from then on', async (t) => {
  const on = await startProjectedToken(t);
  const token = on.issuer.token();
  on.issuer.rotate();
  t.equal(await on.result(token), 'ok');
  on.issuer.keys.shift();
  on.clock.advance(limits.jwksLifetimeMs - 1);
  t.equal(await on.result(token), 'ok');
  on.clock.advance(1);
  t.equal(await on.result(token), 'evidence_invalid');
  t.equal(paths(on).length, 4, 'read once, not once for being old and once for the missing key');
});

t.test('while the issuer is away its keys serve on for an hour, then nothing can be verified, then it comes back', async (t) => {
  const on = await startProjectedToken(t);
  await on.attest(on.issuer.token());
  await on.issuer.stop();
  for (const elapsed of [limits.jwksLifetimeMs, limits.jwksStaleMaxMs - limits.jwksLifetimeMs - 1]) {
    on.clock.advance(elapsed);
    t.equal(await on.result(on.issuer.token()), 'ok');
    t.equal(await on.result(on.issuer.token({ key: unknownKey })), 'evidence_unverifiable', 'of an unknown key nothing can be said');
  }
  on.clock.advance(1);
  t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
  t.match(on.lines.at(-1), /ECONNREFUSED.*could not be read/);
  await on.issuer.start();
  on.clock.advance(limits.jwksCooldownMs);
  t.equal(await on.result(on.issuer.token()), 'ok');
});

t.test('an issuer that is away is asked once in a cooldown', async (t) => {
  const on = await startProjectedToken(t);
  await on.issuer.stop();
  for (let i = 0; i < 5; i += 1) t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
  t.equal(on.lines.length, 1);
  await on.issuer.start();
  t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
  on.clock.advance(limits.jwksCooldownMs);
  t.equal(await on.result(on.issuer.token()), 'ok');
});

t.test('authorities and the bearer token are read anew for every read of the keys', async (t) => {
  const directory = t.testdir({ bearer: 'first-token\n' });
  const bearers = new Set(['first-token']);
  const on = await startProjectedToken(t, { authorizationTokenFile: join(directory, 'bearer') }, { bearers });
  // Starting the fakes made the test's directory anew.
  writeFileSync(join(on.directory, 'bearer'), 'first-token\n');
  t.equal(await on.result(on.issuer.token()), 'ok');
  t.ok(on.issuer.requests.every(({ authorization }) => authorization === 'Bearer first-token'));

  const next = createTestAuthority('the next authority');
  await on.issuer.stop();
  await on.issuer.start(next.serverFor('localhost'));
  bearers.clear();
  bearers.add('second-token');
  writeFileSync(join(on.directory, 'ca.pem'), next.pem);
  writeFileSync(join(on.directory, 'bearer'), 'second-token');
  on.issuer.rotate();
  on.clock.advance(limits.jwksCooldownMs);
  t.equal(await on.result(on.issuer.token()), 'ok');

  const faults: [string, () => void, RegExp][] = [
    ['a bearer token that is not accepted', () => writeFileSync(join(on.directory, 'bearer'), 'other'), /answered 401/],
    ['two lines where one token should be', () => writeFileSync(join(on.directory, 'bearer'), 'a\nb'), /does not hold one bearer token/],
    ['no bearer token', () => rmSync(join(on.directory, 'bearer')), /ENOENT.*bearer/],
    ['an empty CA file', () => writeFileSync(join(on.directory, 'ca.pem'), ''), /ca\.pem holds no certificate/],
    ['no CA file', () => rmSync(join(on.directory, 'ca.pem')), /ENOENT.*ca\.pem/],
  ];
  for (const [name, spoil, line] of faults) {
    spoil();
    on.clock.advance(limits.jwksStaleMaxMs);
    t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable', name);
    t.match(on.lines.at(-1), line, name);
  }
  for (const line of on.lines) t.notMatch(line, /first-token|second-token/);
});

const lies: readonly (readonly [name: string, path: string, body: (on: Attesting) => unknown, logged: RegExp])[] = [
  [
    'another issuer',
    discoveryPath,
    ({ issuer }) => ({ issuer: `${issuer.url}/`, jwks_uri: `${issuer.url}${jwksPath}` }),
    /is for another issuer/,
  ],
  [
    'a list of issuers',
    discoveryPath,
    ({ issuer }) => ({ issuer: [issuer.url], jwks_uri: `${issuer.url}${jwksPath}` }),
    /is for another issuer/,
  ],
  ['no jwks_uri', discoveryPath, ({ issuer }) => ({ issuer: issuer.url }), /jwks_uri .* is not an https URL/],
  [
    'a jwks_uri in clear text',
    discoveryPath,
    ({ issuer }) => ({ issuer: issuer.url, jwks_uri: 'http://127.0.0.1:1/jwks' }),
    /jwks_uri .* is not an https URL/,
  ],
  [
    'a jwks_uri that is a file',
    discoveryPath,
    ({ issuer }) => ({ issuer: issuer.url, jwks_uri: 'file:///etc/passwd' }),
    /jwks_uri .* is not an https URL/,
  ],
  ['a list', discoveryPath, () => [], /did not answer with a JSON object/],
  ['a list', jwksPath, () => [], /did not answer with a JSON object/],
  ['no keys', jwksPath, () => ({ keys: [] }), /publishes no key/],
  ['keys that are no list', jwksPath, () => ({ keys: { 0: publicJwk(unknownKey) } }), /publishes no key/],
  ['more than is read', jwksPath, () => ({ keys: [], x: 'x'.repeat(limits.outboundBodyBytesMax) }), /too_large/],
];
for (const [name, path, body, logged] of lies) {
  t.test(`a document at ${path} with ${name} is not believed`, async (t) => {
    const on = await startProjectedToken(t);
    on.issuer.overrides.set(path, (_request, response) => answer(response, body(on)));
    t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
    t.match(on.lines.at(-1), logged);
    on.issuer.overrides.clear();
    on.clock.advance(limits.jwksCooldownMs);
    t.equal(await on.result(on.issuer.token()), 'ok', 'the truth is');
  });
}

for (const path of [discoveryPath, jwksPath]) {
  t.test(`redirects, failures and text at ${path} are not believed, and a redirect is not followed`, async (t) => {
    const on = await startProjectedToken(t);
    const wrong: [(response: ServerResponse) => void, RegExp][] = [
      [(response) => response.writeHead(302, { location: `${on.issuer.url}/elsewhere` }).end(), /answered 302/],
      [(response) => response.writeHead(500).end('{}'), /answered 500/],
      [(response) => response.end('canary-received'), /did not answer with a JSON object/],
    ];
    for (const [handle, logged] of wrong) {
      on.issuer.overrides.set(path, (_request, response) => handle(response));
      on.clock.advance(limits.jwksCooldownMs);
      t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
      t.match(on.lines.at(-1), logged);
    }
    t.notMatch(on.lines.join(''), 'canary-received');
    t.notOk(paths(on).includes('/elsewhere'));
  });
}

t.test('a key set elsewhere is read by the configured authority only, which may then see the bearer token', async (t) => {
  const authority = createTestAuthority('the cluster');
  const foreign = createTestAuthority('a stranger');
  const directory = t.testdir();
  const on = await startProjectedToken(t, { authorizationTokenFile: join(directory, 'bearer') }, { authority });
  writeFileSync(join(directory, 'bearer'), 'broker-token');
  const seen: (string | undefined)[] = [];
  const elsewhere = async (from: typeof authority): Promise<string> => {
    const server = createServer(from.serverFor('localhost'), (request, response) => {
      seen.push(request.headers.authorization);
      answer(response, { keys: on.issuer.keys.map(publicJwk) });
    }).listen(0, 'localhost');
    await once(server, 'listening');
    t.teardown(() => server.close());
    return `https://localhost:${(server.address() as AddressInfo).port}/keys`;
  };
  const pointTo = (jwksUri: string): void => {
    on.issuer.overrides.set(discoveryPath, (_request, response) => answer(response, { issuer: on.issuer.url, jwks_uri: jwksUri }));
  };
  pointTo(await elsewhere(foreign));
  t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
  t.same(seen, []);
  on.clock.advance(limits.jwksCooldownMs);
  pointTo(await elsewhere(authority));
  t.equal(await on.result(on.issuer.token()), 'ok');
  t.same(seen, ['Bearer broker-token']);
});

t.test('an issuer that takes a connection and stays silent is given up in time, discovery and key set together', async (t: Test) => {
  const on = await startProjectedToken(t);
  let opened = 0;
  on.issuer.overrides.set(discoveryPath, (_request, response) => {
    opened += 1;
    setTimeout(
      () => answer(response, { issuer: on.issuer.url, jwks_uri: `${on.issuer.url}${jwksPath}` }),
      limits.outboundTimeoutMs / 2,
    ).unref();
  });
  on.issuer.overrides.set(jwksPath, () => (opened += 1));
  const begun = performance.now();
  t.equal(await on.result(on.issuer.token()), 'evidence_unverifiable');
  const tookMs = performance.now() - begun;
  t.equal(opened, 2);
  t.ok(tookMs >= limits.outboundTimeoutMs - 50 && tookMs < limits.outboundTimeoutMs * 1.5, `took ${Math.round(tookMs)} ms`);
  t.match(on.lines.at(-1), /aborted|timeout/);
});

t.test('only signing keys that are strong enough and public are taken from a key set', async (t) => {
  const rsa = createIssuerKey();
  const ec = createIssuerKey('ES384');
  const jwk = (key = rsa, changes: Json = {}): Json => ({ ...publicJwk(key), ...changes });
  const taken = (...keys: unknown[]): string[] => publishedKeys(keys).map(({ keyId, algorithm }) => `${keyId} ${algorithm}`);
  t.same(taken(jwk(), jwk(ec)), [`${rsa.kid} RS256`, `${ec.kid} ES384`]);
  t.same(taken(jwk(rsa, { alg: undefined, use: undefined })), [`${rsa.kid} RS256`], 'alg and use may be absent');
  const refused: Record<string, unknown> = {
    'a shared secret': { kty: 'oct', k: 'AAAA', kid: 'a', alg: 'HS256' },
    'a shared secret that claims RS256': { kty: 'oct', k: 'AAAA', kid: 'a', alg: 'RS256' },
    'a private key': { ...rsa.privateKey.export({ format: 'jwk' }), kid: 'a' },
    'a weak key': jwk(createIssuerKey('RS256', 1024)),
    'a key for encryption': jwk(rsa, { use: 'enc' }),
    'a key of another algorithm': jwk(rsa, { alg: 'PS256' }),
    'a key whose algorithm is not that of its curve': jwk(ec, { alg: 'ES256' }),
    'a key without a name': jwk(rsa, { kid: undefined }),
    'a point off the curve': jwk(ec, { x: jwk(ec)['y'] }),
    'a modulus that is not base64': jwk(rsa, { n: '!!' }),
    'a curve that is not used': { kty: 'EC', crv: 'secp256k1', x: 'AA', y: 'AA', kid: 'a' },
    null: null,
    'a string': 'x',
  };
  for (const [name, key] of Object.entries(refused)) t.same(taken(key), [], name);
  t.same(taken(...Object.values(refused), jwk()), [`${rsa.kid} RS256`], 'the others do no harm');
  t.equal(taken(...Array.from({ length: limits.jwksKeysMax + 10 }, () => jwk())).length, limits.jwksKeysMax);
});

t.test('among several attestors the issuer decides, then the audience', async (t) => {
  const one = await startProjectedToken(t);
  const other = await startProjectedToken(t, {}, { key: createIssuerKey() });
  const directory = t.testdir({ 'one.pem': one.issuer.caPem, 'other.pem': other.issuer.caPem });
  const attestor = (name: string, issuer: string, audience: string, ca: string) =>
    ({ kind: 'projected_token', name, issuer, audience, caFile: join(directory, ca), authorizationTokenFile: undefined }) as const;
  const on = attestWith(one.clock, one.issuer, directory, [
    attestor('staging', one.issuer.url, 'outrider-staging', 'one.pem'),
    attestor('main', one.issuer.url, 'outrider', 'one.pem'),
    attestor('elsewhere', other.issuer.url, 'outrider', 'other.pem'),
  ]);
  t.equal((await on.attest(one.issuer.token())).attestor, 'main');
  t.equal((await on.attest(one.issuer.token({ claims: { aud: 'outrider-staging' } }))).attestor, 'staging');
  t.equal((await on.attest(other.issuer.token())).attestor, 'elsewhere');
  t.equal(await on.result(one.issuer.token({ claims: { aud: 'third' } })), 'evidence_audience');
  const crossed = one.issuer.token({ claims: { iss: other.issuer.url } });
  t.equal(await on.result(crossed), 'evidence_invalid', 'one issuer does not speak for another');
  t.same(on.attempts, ['main ok', 'staging ok', 'elsewhere ok', 'staging evidence_audience', 'elsewhere evidence_invalid']);
});
