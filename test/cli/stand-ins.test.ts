import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { createLocalJWKSet, type JSONWebKeySet, type JWTPayload, decodeProtectedHeader, jwtVerify } from 'jose';
import t, { type Test } from 'tap';
import { startClusterIssuer } from '../../src/cli/demo/cluster-issuer.ts';
import { startEcho } from '../../src/cli/demo/echo.ts';
import { runEcho } from '../../src/cli/echo.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { directoryOf } from '../support/directory.ts';

const host = '127.0.0.1';

const getJson = async (
  url: string,
  ca: string,
  options: { method?: string; headers?: Record<string, string | string[]>; body?: string; servername?: string; hostname?: string } = {},
) => {
  const sent = request(url, { ca, agent: false, ...options });
  sent.end(options.body);
  const [response] = (await once(sent, 'response')) as [AsyncIterable<Buffer> & { statusCode: number }];
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part);
  return { status: response.statusCode, json: JSON.parse(Buffer.concat(parts).toString()) as unknown };
};

const tokenLifetimeMs = 600_000;

const startIssuer = async (t: Test) => {
  const directory = directoryOf(t);
  const clock = createFakeClock();
  const tokens = ['demo-app', 'collector'].map((serviceAccount) => ({
    file: join(directory, 'made', serviceAccount),
    namespace: 'demo',
    serviceAccount,
  }));
  const issuer = await startClusterIssuer({ host, port: 0, audience: 'outrider', tokens, tokenLifetimeMs, clock });
  t.teardown(() => issuer.close());
  const file = (tokens[0] as { file: string }).file;
  const jwks = async (): Promise<JSONWebKeySet> => {
    const { json } = await getJson(`${issuer.url}/.well-known/openid-configuration`, issuer.caPem);
    const { issuer: named, jwks_uri } = json as { issuer: string; jwks_uri: string };
    t.equal(named, issuer.url);
    return (await getJson(jwks_uri, issuer.caPem)).json as JSONWebKeySet;
  };
  const claims = async (token: string): Promise<JWTPayload> => {
    const options = { issuer: issuer.url, audience: 'outrider', currentDate: new Date(clock.now()) };
    return (await jwtVerify(token, createLocalJWKSet(await jwks()), options)).payload;
  };
  /** The token that follows `before`. */
  const next = async (before: string): Promise<string> => {
    for (;;) {
      const token = readFileSync(file, 'utf8');
      if (token !== before && clock.waiting() > 0) return token;
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { issuer, clock, file, jwks, claims, next, directory };
};

t.test('the cluster issuer projects tokens shaped as Kubernetes shapes them, for its own pod each', async (t) => {
  const { file, claims, directory } = await startIssuer(t);
  const payload = await claims(readFileSync(file, 'utf8'));
  t.strictSame(payload.aud, ['outrider']);
  t.equal(payload.sub, 'system:serviceaccount:demo:demo-app');
  t.equal(payload.nbf, payload.iat);
  t.equal((payload.exp as number) - (payload.iat as number), 600);
  const uid = /^[0-9a-f-]{36}$/;
  t.match(payload['kubernetes.io'], {
    namespace: 'demo',
    serviceaccount: { name: 'demo-app', uid },
    pod: { name: /^demo-app-/, uid },
    node: { name: 'demo-node', uid },
  });
  const other = await claims(readFileSync(join(directory, 'made', 'collector'), 'utf8'));
  t.equal(other.sub, 'system:serviceaccount:demo:collector');
  t.equal(statSync(file).mode & 0o777, 0o600);
  t.equal(statSync(join(directory, 'made')).mode & 0o777, 0o700);
  t.strictSame(readdirSync(join(directory, 'made')).toSorted(), ['collector', 'demo-app'], 'no draft is left');
});

t.test('a token is replaced at four fifths of its life, by a new file in its place', async (t) => {
  const { clock, file, claims, next } = await startIssuer(t);
  const first = readFileSync(file, 'utf8');
  const inode = statSync(file).ino;
  clock.advance(tokenLifetimeMs * 0.8 - 1);
  t.equal(readFileSync(file, 'utf8'), first);
  clock.advance(1);
  const second = await next(first);
  t.not(statSync(file).ino, inode, 'renamed over the old one, not written into it');
  t.not((await claims(second)).jti, (await claims(first)).jti, 'the old one is still good');
});

t.test('the signing key changes now and then, and the last one stays published while its tokens live', async (t) => {
  const { clock, file, jwks, claims, next } = await startIssuer(t);
  const keyOf = (token: string): string => decodeProtectedHeader(token).kid as string;
  let token = readFileSync(file, 'utf8');
  const firstKey = keyOf(token);
  const keys = [firstKey];
  while (keys.at(-1) === firstKey) {
    clock.advance(tokenLifetimeMs * 0.8);
    const before = token;
    token = await next(before);
    keys.push(keyOf(token));
    await claims(before);
    await claims(token);
  }
  t.ok(keys.length > 2, 'not with every token');
  t.equal((await jwks()).keys.length, 2);
  t.notMatch(JSON.stringify(await jwks()), '"d"');
});

t.test('closing the issuer ends the rotation', async (t) => {
  const { issuer, clock } = await startIssuer(t);
  await issuer.close();
  t.equal(clock.waiting(), 0);
});

const startTarget = async (t: Test) => {
  const echo = await startEcho({ host, httpPort: 0, httpsPort: 0, name: 'echo.outrider.test', clock: systemClock });
  t.teardown(() => echo.close());
  return echo;
};

t.test('the echo target answers with what it received, over HTTPS by a certificate for its name', async (t) => {
  const { https, caPem } = await startTarget(t);
  const { status, json } = await getJson(`https://echo.outrider.test:${https.port}/a%2Fb?c=d`, caPem, {
    method: 'POST',
    headers: { host: 'echo.outrider.test', authorization: 'Bearer shown', 'x-twice': ['one', 'two'], __proto__: 'x' },
    body: 'päckchen',
    hostname: host,
    servername: 'echo.outrider.test',
  });
  t.equal(status, 200);
  t.match(json, {
    method: 'POST',
    path: '/a%2Fb?c=d',
    headers: { host: 'echo.outrider.test', authorization: 'Bearer shown', 'x-twice': ['one', 'two'] },
    body: 'päckchen',
  });
  t.strictSame(Object.keys(json as object), ['method', 'path', 'headers', 'body']);
  await t.rejects(getJson(`https://${host}:${https.port}/`, caPem), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
});

t.test('the echo target shows the beginning of a long body and counts the rest', async (t) => {
  const { http } = await startTarget(t);
  const response = await fetch(`http://${host}:${http.port}/`, { method: 'PUT', body: 'x'.repeat(1_000_000) });
  const { body } = (await response.json()) as { body: string };
  t.equal(body, `${'x'.repeat(65_536)}… (1000000 bytes in all)`);
});

t.test('two stand-ins cannot have one port, and the sentence says so', async (t) => {
  const { http, https } = await startTarget(t);
  await t.rejects(startEcho({ host, httpPort: 0, httpsPort: https.port, name: 'x.test', clock: systemClock }), {
    name: 'ListenError',
    message: /is in use/,
  });
  const directory = directoryOf(t);
  const options = {
    host,
    port: http.port,
    audience: 'outrider',
    tokens: [{ file: join(directory, 'token'), namespace: 'a', serviceAccount: 'b' }],
    tokenLifetimeMs,
    clock: createFakeClock(),
  };
  await t.rejects(startClusterIssuer(options), { name: 'ListenError' });
  t.notOk(existsSync(join(directory, 'token')), 'no token by an issuer that nobody can ask');
});

t.test('echo alone answers over HTTP with what it received, until it is asked to stop', async (t) => {
  const { promise: stopRequested, resolve: stop } = Promise.withResolvers<void>();
  const lines: string[] = [];
  const { promise: listening, resolve: listens } = Promise.withResolvers<string>();
  const print = (line: string): void => listens(line);
  const terminal = { print, complain: (line: string) => void lines.push(line), stopRequested };
  const status = runEcho(['--listen', `${host}:0`], terminal);
  const address = (await listening).replace('echo listens: ', '');
  const answer = (await (await fetch(`${address}/hello?a=1`, { headers: { 'x-one': 'two' } })).json()) as Record<string, unknown>;
  t.match(answer, { method: 'GET', path: '/hello?a=1', headers: { 'x-one': 'two' }, body: '' });
  const inUse = address.replace('http://', '');
  t.equal(await runEcho(['--listen', inUse], terminal), 1, 'a port in use');
  t.match(lines, [/^echo: .* is in use/]);
  stop();
  t.equal(await status, 0);
  await t.rejects(runEcho(['--listen', 'localhost:1'], terminal), { message: /--listen takes an IP address/ });
});
