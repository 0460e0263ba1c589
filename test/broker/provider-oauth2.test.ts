/** Client credentials against token endpoints that are slow, hostile or broken, and over time. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createProviders, type Provider } from '../../src/broker/provider.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';
import type { OAuth2ProviderSettings } from '../../src/settings/broker.ts';
import { createFakeClock, type FakeClock } from '../fakes/clock.ts';
import { createSpiffeAuthority, createTestAuthority } from '../support/certificates.ts';

const canary = 'canary-5f1c9d-client-secret';
const tokenCanary = 'canary-77aa01-access-token';
const use = { workload: 'spiffe://outrider.test/ns/demo/sa/demo-app', target: 'payments', form: 'text' } as const;

interface Seen {
  readonly authorization: string | undefined;
  readonly form: URLSearchParams;
}
type Answer = (response: ServerResponse, count: number) => void;

const startEndpoint = async (t: Test, answer: Answer) => {
  const seen: Seen[] = [];
  let arrived: (() => void) | undefined;
  const server = createServer((request: IncomingMessage, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => {
      body += chunk;
    });
    request.on('end', () => {
      seen.push({ authorization: request.headers.authorization, form: new URLSearchParams(body) });
      answer(response, seen.length);
      arrived?.();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const nextRequest = (): Promise<void> =>
    new Promise((resolve) => {
      arrived = resolve;
    });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`, seen, nextRequest };
};

const json =
  (body: unknown, status = 200, headers: Record<string, string> = {}): Answer =>
  (response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };

const token = (n: number | string, expiresIn: unknown = 1000) => ({
  access_token: `token-${n}`,
  token_type: 'Bearer',
  expires_in: expiresIn,
});

interface Rig {
  readonly provider: Provider;
  readonly clock: FakeClock;
  readonly lines: string[];
}

const rig = (settings: Partial<OAuth2ProviderSettings> & { tokenUrl: string }, env: Record<string, string> = { SECRET: canary }): Rig => {
  const clock = createFakeClock();
  const lines: string[] = [];
  const log = createLog({ role: 'broker', level: 'debug', write: (line) => void lines.push(line) });
  const defaults: OAuth2ProviderSettings = {
    kind: 'oauth2_client_credentials',
    name: 'payments',
    tokenUrl: settings.tokenUrl,
    clientId: 'outrider',
    clientAuthentication: { method: 'client_secret_basic', secret: { env: 'SECRET' } },
    scopes: [],
    parameters: {},
    caFile: undefined,
  };
  const deps = {
    issuer: { mint: () => Promise.reject(new Error('not for this kind')) },
    authority: () => createSpiffeAuthority(),
    clock,
    log,
    env,
  };
  return { provider: createProviders([{ ...defaults, ...settings }], deps).get('payments') as Provider, clock, lines };
};

const faultOf = (promise: Promise<unknown>): Promise<Fault | undefined> =>
  promise.then(
    () => undefined,
    (thrown: unknown) => thrown as Fault,
  );

const everythingSaid = (error: unknown): string => {
  const lines: string[] = [];
  createLog({ role: 'test', level: 'debug', write: (line) => void lines.push(line) }).error({ error }, 'said');
  return lines.join('');
};

const hostile: readonly { readonly name: string; readonly answer: Answer; readonly problem: RegExp }[] = [
  { name: 'a redirect', answer: json('', 302, { location: 'https://attacker.outrider.test/token' }), problem: /redirect \(302\)/ },
  { name: 'HTML', answer: json(`<html>${canary}</html>`, 200, { 'content-type': 'text/html' }), problem: /other than a JSON object/ },
  { name: 'a JSON array', answer: json([tokenCanary]), problem: /other than a JSON object/ },
  { name: 'no token', answer: json({ token_type: 'Bearer' }), problem: /without an access_token/ },
  {
    name: 'a token that is no string',
    answer: json({ access_token: [tokenCanary], token_type: 'Bearer' }),
    problem: /without an access_token/,
  },
  {
    name: 'an inherited token',
    answer: json('{"__proto__":{"access_token":"x","token_type":"Bearer"}}'),
    problem: /without an access_token/,
  },
  { name: 'no token type', answer: json({ access_token: tokenCanary }), problem: /token_type other than Bearer/ },
  { name: 'a MAC token', answer: json({ access_token: tokenCanary, token_type: 'mac' }), problem: /token_type other than Bearer/ },
  { name: 'a DPoP token', answer: json({ access_token: tokenCanary, token_type: 'DPoP' }), problem: /token_type other than Bearer/ },
  ...[0, -1, '0', 'soon', '1e3', '-5', null, true, {}, '99999999999'].map((expiresIn) => ({
    name: `expires_in ${JSON.stringify(expiresIn)}`,
    answer: json({ ...token(tokenCanary), expires_in: expiresIn }),
    problem: /expires_in that is not a positive number/,
  })),
  {
    name: 'a server error',
    answer: json({ error: 'server_error', error_description: canary }, 500),
    problem: /status 500 and error server_error/,
  },
  {
    name: 'an error that repeats the request',
    answer: json({ error: canary, error_description: canary }, 400, { 'www-authenticate': `Basic realm="${canary}"` }),
    problem: /answered with status 400\./,
  },
  {
    name: 'a 401 with a challenge',
    answer: json({ error: 'invalid_client', error_description: canary }, 401, { 'www-authenticate': 'Basic realm="tokens"' }),
    problem: /status 401 and error invalid_client/,
  },
  {
    name: 'a body without end',
    answer: (response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      const chunk = Buffer.alloc(256 * 1024, ' ');
      const pour = (): void => {
        while (!response.destroyed && response.write(chunk));
      };
      response.on('drain', pour);
      pour();
    },
    problem: /more than is read/,
  },
  { name: 'a connection that is cut', answer: (response) => void response.socket?.destroy(), problem: /cannot be reached|not HTTP/ },
];

for (const { name, answer, problem } of hostile) {
  await t.test(`a token endpoint that answers with ${name} gives no credential, and nothing it said is repeated`, async (t) => {
    const endpoint = await startEndpoint(t, answer);
    const { provider, lines } = rig({ tokenUrl: endpoint.url });
    const fault = await faultOf(provider.obtain(use));
    t.equal(fault?.code, 'credential_unavailable');
    t.match(fault?.detail, problem);
    t.notMatch(everythingSaid(fault) + lines.join(''), /canary/);
    t.equal(endpoint.seen.length, 1, 'asked once, nothing followed');
  });
}

for (const [name, value] of [
  ['CR LF', 'abc\r\nx-injected: 1'],
  ['a NUL', 'ab\0c'],
  ['a letter beyond ASCII', 'tökén'],
  ['a newline at its end', 'abc\n'],
  ['more bytes than a credential may have', 'a'.repeat(limits.credentialBytesMax + 1)],
] as const) {
  await t.test(`a token with ${name} is refused when it is received`, async (t) => {
    const endpoint = await startEndpoint(t, json({ ...token(1), access_token: value }));
    await t.rejects(rig({ tokenUrl: endpoint.url }).provider.obtain(use), { code: 'credential_invalid' });
  });
}

await t.test('an endpoint that never answers is given up before the proxy gives up on the broker', async (t) => {
  const endpoint = await startEndpoint(t, () => undefined);
  const started = performance.now();
  await t.rejects(rig({ tokenUrl: endpoint.url }).provider.obtain(use), {
    code: 'credential_unavailable',
    detail: /did not answer in time/,
  });
  t.ok(performance.now() - started < limits.getGrantTimeoutMs);
});

await t.test('an endpoint that nobody listens at is unreachable', async (t) => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  await t.rejects(rig({ tokenUrl: `http://127.0.0.1:${port}/token` }).provider.obtain(use), {
    code: 'credential_unavailable',
    detail: /cannot be reached/,
  });
});

await t.test('an endpoint with a certificate for another name gets no secret', async (t) => {
  const authority = createTestAuthority();
  let requests = 0;
  const server = createTlsServer(authority.serverFor('elsewhere.outrider.test'), () => {
    requests += 1;
  });
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  t.teardown(() => server.close());
  const caFile = join(t.testdir({ 'ca.pem': authority.pem }), 'ca.pem');
  const tokenUrl = `https://localhost:${(server.address() as AddressInfo).port}/token`;
  const { provider, clock } = rig({ tokenUrl, caFile });
  await t.rejects(provider.obtain(use), { code: 'credential_unavailable', detail: /certificate that is not trusted/ });
  writeFileSync(caFile, '');
  clock.advance(limits.tokenFailedCacheMs);
  await t.rejects(
    provider.obtain(use),
    { code: 'credential_unavailable', detail: /certificate that is not trusted/ },
    'an empty bundle trusts nobody',
  );
  t.equal(requests, 0);
});

await t.test('the request is a form post with scopes, further parameters and the secret where its method puts it', async (t) => {
  const endpoint = await startEndpoint(t, json(token(1)));
  const parameters = { audience: 'https://payments.outrider.test', resource: 'a b&c' };
  await rig({ tokenUrl: endpoint.url, scopes: ['read', 'write'], parameters }, { SECRET: 'p@ss:w/rd%\n' }).provider.obtain(use);
  const [basic] = endpoint.seen;
  t.strictSame(Object.fromEntries(basic?.form ?? []), { ...parameters, scope: 'read write', grant_type: 'client_credentials' });
  t.equal(Buffer.from(basic?.authorization?.replace('Basic ', '') ?? '', 'base64').toString(), 'outrider:p%40ss%3Aw%2Frd%25');
  await rig(
    { tokenUrl: endpoint.url, clientAuthentication: { method: 'client_secret_post', secret: { env: 'SECRET' } } },
    { SECRET: 'p@ss' },
  ).provider.obtain(use);
  t.match(endpoint.seen[1], { authorization: undefined });
  t.equal(endpoint.seen[1]?.form.get('client_secret'), 'p@ss');
});

await t.test(
  'expires_in is respected, quoted digits too; without one a token lives five minutes, and none longer than a day',
  async (t) => {
    for (const [expiresIn, lifeMs] of [
      [1000, 1_000_000],
      ['1000', 1_000_000],
      [0.5, 500],
      [undefined, limits.tokenLifetimeDefaultMs],
      [10_000_000, limits.tokenLifetimeMaxMs],
    ] as const) {
      const endpoint = await startEndpoint(t, json({ ...token(1), expires_in: expiresIn }));
      const { provider, clock } = rig({ tokenUrl: endpoint.url });
      t.equal((await provider.obtain(use)).expiresAtMs, clock.now() + lifeMs, `expires_in ${expiresIn}`);
    }
  },
);

await t.test('a token is shared to 70 % of its life, renewed behind the callers to 90 %, and waited for after that', async (t) => {
  const endpoint = await startEndpoint(t, (response, count) => json(token(count))(response, count));
  const { provider, clock } = rig({ tokenUrl: endpoint.url });
  const next = async (): Promise<string> => (await provider.obtain(use)).value.reveal();
  t.equal(await next(), 'token-1');
  clock.advance(699_000);
  t.equal(await next(), 'token-1');
  t.equal(endpoint.seen.length, 1);
  clock.advance(1_000);
  const renewal = endpoint.nextRequest();
  t.strictSame([await next(), await next()], ['token-1', 'token-1'], 'nobody waits');
  await renewal;
  while ((await next()) !== 'token-2') await new Promise((resolve) => setImmediate(resolve));
  t.equal(endpoint.seen.length, 2, 'renewed once');
  clock.advance(900_000);
  t.equal(await next(), 'token-3', 'past 90 % the new one is waited for');
});

await t.test('a token that a target refused is replaced at once for everybody, but not one that is hardly any older', async (t) => {
  let isAway = false;
  const endpoint = await startEndpoint(t, (response, count) => (isAway ? json('', 503) : json(token(count)))(response, count));
  const { provider, clock } = rig({ tokenUrl: endpoint.url });
  const next = async (fresh = false): Promise<string> => (await provider.obtain({ ...use, fresh })).value.reveal();
  t.equal(await next(true), 'token-1', 'where there is none, one is obtained');
  clock.advance(limits.grantRejectedIntervalMs - 1);
  t.equal(await next(true), 'token-1', 'too young');
  clock.advance(1);
  t.strictSame(await Promise.all([next(true), next(true), next(true)]), ['token-2', 'token-2', 'token-2'], 'once for all that ask');
  t.equal(await next(), 'token-2');
  for (let i = 0; i < 100; i += 1) await next(true);
  t.equal(endpoint.seen.length, 2, 'a target that refuses everything costs no token requests');
  isAway = true;
  clock.advance(limits.grantRejectedIntervalMs);
  t.equal(await next(true), 'token-2', 'while no other can be had, what is there is all there is');
});

await t.test('while the endpoint is away, a token serves to the end of its life and not beyond', async (t) => {
  const endpoint = await startEndpoint(t, (response, count) =>
    count === 1 ? json(token(1))(response, count) : json('', 503)(response, count),
  );
  const { provider, clock } = rig({ tokenUrl: endpoint.url });
  await provider.obtain(use);
  clock.advance(950_000);
  t.equal((await provider.obtain(use)).value.reveal(), 'token-1');
  clock.advance(50_000);
  await t.rejects(provider.obtain(use), { code: 'credential_unavailable', detail: /answered with status 503/ });
});

await t.test('a failure is remembered briefly, and the next request after that uses the secret as it is then', async (t) => {
  const authorizations = (): (string | undefined)[] => endpoint.seen.map(({ authorization }) => authorization);
  const basic = (secret: string): string => `Basic ${Buffer.from(`outrider:${secret}`).toString('base64')}`;
  const endpoint = await startEndpoint(t, (response, count) => {
    const isNew = authorizations().at(-1) === basic('new');
    (isNew ? json(token(count)) : json({ error: 'invalid_client' }, 401))(response, count);
  });
  const file = join(t.testdir({ secret: 'old\n' }), 'secret');
  const { provider, clock } = rig({ tokenUrl: endpoint.url, clientAuthentication: { method: 'client_secret_basic', secret: { file } } });
  await t.rejects(provider.obtain(use), { code: 'credential_unavailable', detail: /invalid_client/ });
  writeFileSync(file, 'new\n');
  await t.rejects(provider.obtain(use), { code: 'credential_unavailable', detail: /invalid_client/ });
  t.equal(endpoint.seen.length, 1);
  clock.advance(limits.tokenFailedCacheMs);
  t.equal((await provider.obtain(use)).value.reveal(), 'token-2');
  t.strictSame(authorizations(), [basic('old'), basic('new')]);
});

await t.test('a secret or key that is missing, empty, huge or no key is unavailable, and only its source is named', async (t) => {
  const endpoint = await startEndpoint(t, json(token(1)));
  const directory = t.testdir({ empty: '\n', huge: 'x'.repeat(limits.credentialBytesMax + 1), text: canary });
  const secretIn = (name: string) => ({ method: 'client_secret_post', secret: { file: join(directory, name) } }) as const;
  const keyIn = (name: string) =>
    ({
      method: 'private_key_jwt',
      key: { file: join(directory, name) },
      keyId: undefined,
      algorithm: 'ES256',
      audience: undefined,
    }) as const;
  const absent = { method: 'client_secret_post', secret: { env: 'ABSENT' } } as const;
  for (const clientAuthentication of [secretIn('missing'), secretIn('empty'), secretIn('huge'), secretIn('.'), keyIn('text'), absent]) {
    const fault = await faultOf(rig({ tokenUrl: endpoint.url, clientAuthentication }).provider.obtain(use));
    t.match(fault, { code: 'credential_unavailable', detail: /^The client (secret|key) of provider payments / });
    t.match(everythingSaid(fault), /(file .*|environment variable ABSENT) (is missing, empty or unreadable|does not hold)/);
    t.notMatch(everythingSaid(fault), /canary/);
  }
  t.equal(endpoint.seen.length, 0);
});
