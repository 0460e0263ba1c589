import t, { type Test } from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { Secret } from '../../src/core/secret.ts';
import { field, startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import {
  allowAll,
  bearer,
  dial,
  exchange,
  grantOf,
  type Path,
  type PathOptions,
  secure,
  startPath,
  target,
  tunnelTo,
  wholeResponse,
} from '../support/path.ts';

const authority = createTestAuthority();
const echo = target('echo');
const other = target('other');

const pinsFor = (origin: { httpPort: number; httpsPort: number }, ...hosts: string[]) =>
  hosts.flatMap((host) => [
    { host, port: 80, address: '127.0.0.1', addressPort: origin.httpPort },
    { host, port: 443, address: '127.0.0.1', addressPort: origin.httpsPort },
  ]);

const setUp = async (t: Test, rest: Partial<PathOptions> & { answer?: Parameters<typeof startRecorder>[1] } = {}) => {
  const origin = await startRecorder(authority.serverFor('echo.outrider.test'), rest.answer);
  t.teardown(() => origin.close());
  const path = await startPath({
    dir: t.testdir(),
    targets: [echo, other],
    pins: pinsFor(origin, 'echo.outrider.test', 'other.outrider.test', 'elsewhere.outrider.test'),
    trustPem: authority.pem,
    ...rest,
  });
  t.teardown(() => path.close());
  return { origin, path };
};

/** One request in each of the shapes in which clients speak to a proxy. */
const shapes: Record<
  string,
  (path: Path, request: { method?: string; target?: string; host?: string; headers?: string; body?: string }) => Promise<string>
> = {
  'absolute-form http': async (path, { method = 'GET', target = '/hello', host = 'echo.outrider.test', headers = '', body = '' }) =>
    exchange(await dial(path.port), `${method} http://${host}${target} HTTP/1.1\r\nHost: ${host}\r\n${headers}\r\n${body}`, wholeResponse),
  'absolute-form https': async (path, { method = 'GET', target = '/hello', host = 'echo.outrider.test', headers = '', body = '' }) =>
    exchange(await dial(path.port), `${method} https://${host}${target} HTTP/1.1\r\nHost: ${host}\r\n${headers}\r\n${body}`, wholeResponse),
  'CONNECT with TLS': async (path, { method = 'GET', target = '/hello', host = 'echo.outrider.test', headers = '', body = '' }) => {
    const { socket } = await tunnelTo(path.port, `${host}:443`);
    const secured = await secure(socket, path.bundle, host);
    return exchange(secured, `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${headers}\r\n${body}`, wholeResponse);
  },
  'CONNECT with plain HTTP': async (path, { method = 'GET', target = '/hello', host = 'echo.outrider.test', headers = '', body = '' }) => {
    const { socket } = await tunnelTo(path.port, `${host}:80`);
    return exchange(socket, `${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${headers}\r\n${body}`, wholeResponse);
  },
};

for (const [shape, send] of Object.entries(shapes)) {
  t.test(`${shape}: a credential is set, replacing every spelling the program sent`, async (t) => {
    const { origin, path } = await setUp(t);
    const headers =
      'AUTHORIZATION: Bearer theirs\r\nauthorization: Basic theirs\r\nProxy-Authorization: Basic theirs\r\nX-First: 1\r\nx-FIRST: 2\r\n';
    const answer = await send(path, { headers });
    t.match(answer, /^HTTP\/1\.1 200 OK\r\n/);
    const [request] = origin.requests;
    t.same(field(request as never, 'authorization'), ['Bearer credential-for-echo']);
    t.same(field(request as never, 'proxy-authorization'), []);
    t.same(field(request as never, 'host'), ['echo.outrider.test']);
    t.same(
      request?.rawHeaders.filter((one) => one.toLowerCase() === 'x-first'),
      ['X-First', 'x-FIRST'],
      'case and order of other fields are kept',
    );
    t.notMatch(origin.raw().join(), /theirs/);
  });

  t.test(`${shape}: intent before the first upstream byte, one outcome after`, async (t) => {
    let sentBeforeIntent = -1;
    const { origin, path } = await setUp(t, { onIntent: () => (sentBeforeIntent = origin?.requests.length ?? 0) });
    await send(path, { target: '/hello?token=canary-query' });
    t.equal(sentBeforeIntent, 0);
    t.same(
      path.events.map(({ kind }) => kind),
      ['intent', 'outcome'],
    );
    const [intent, outcome] = path.events;
    t.match(outcome, {
      requestId: intent?.requestId,
      workload: 'spiffe://outrider.test/ns/demo/sa/app',
      target: 'echo',
      path: '/hello',
      method: 'GET',
      grantId: 'grant-echo',
      decision: { verdict: 'allow', policy: 'p', policyVersion: 'v1', rule: 'all' },
      outcome: { status: 200, fault: '' },
    });
    t.notMatch(JSON.stringify([path.events, path.logs]), /canary-query|credential-for/);
  });

  t.test(`${shape}: a denied path is a problem that names the rule, and nothing is sent`, async (t) => {
    const rules = [{ ...allowAll, name: 'no-admin', effect: 'deny' as const, paths: ['/admin/**'] }, allowAll];
    const { origin, path } = await setUp(t, { grants: { get: () => grantOf(echo, { rules }) } });
    const answer = await send(path, { target: '/%61dmin/users' });
    t.match(answer, /^HTTP\/1\.1 403 Forbidden\r\n/);
    t.match(answer, /proxy-status: outrider; error=http_request_denied; details="policy_denied"/);
    t.match(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4)), {
      code: 'policy_denied',
      status: 403,
      decision: { rule: 'no-admin', policy: 'p', policyVersion: 'v1' },
    });
    t.equal(origin.requests.length, 0);
    t.same(
      path.events.map(({ kind, credentials }) => [kind, credentials]),
      [['refusal', []]],
      'a credential that was not used is not listed as used',
    );
  });

  t.test(`${shape}: a body goes up as it came, with its framing`, async (t) => {
    const { origin, path } = await setUp(t, { answer: (request, response) => void request.once('end', () => response.end('ok')) });
    await send(path, { method: 'POST', headers: 'Content-Length: 5\r\n', body: 'hello' });
    await send(path, {
      method: 'DELETE',
      headers: 'Transfer-Encoding: chunked\r\n',
      body: '3;ext=1\r\nGET\r\n2\r\n /\r\n0\r\nX-Trailer: 1\r\nauthorization: Bearer theirs\r\nHost: theirs.test\r\n\r\n',
    });
    t.same(
      origin.requests.map(({ method, body }) => [method, body]),
      [
        ['POST', 'hello'],
        ['DELETE', 'GET /'],
      ],
    );
    t.match(origin.raw().join(), /\r\n0\r\nX-Trailer: 1\r\n\r\n/, 'trailers go on');
    t.notMatch(origin.raw().join(), /ext=1|theirs/i, 'chunk extensions, and trailers that frame or authenticate, stay here');
  });

  t.test(`${shape}: Connection-named fields go before the credential is set`, async (t) => {
    const { origin, path } = await setUp(t);
    t.match(await send(path, { headers: 'Connection: close, X-Trace\r\nX-Trace: 1\r\n' }), /^HTTP\/1\.1 200/);
    t.match(await send(path, { headers: 'Connection: authorization\r\n' }), /^HTTP\/1\.1 400/);
    t.equal(origin.requests.length, 1);
    t.same(field(origin.requests[0] as never, 'x-trace'), []);
  });
}

t.test('every placement is written where it belongs, several on one request', async (t) => {
  const credentials = [
    { ...bearer('unused'), placement: { kind: 'basic' as const, username: 'user' }, value: new Secret('pass word') },
    {
      ...bearer('unused'),
      placement: { kind: 'header' as const, name: 'X-Api-Key', template: 'Key {credential}!' },
      value: new Secret('k1'),
    },
    { ...bearer('unused'), placement: { kind: 'query' as const, name: 'api_key' }, value: new Secret('q&1') },
  ];
  const { origin, path } = await setUp(t, { grants: { get: () => grantOf(echo, { credentials }) } });
  await exchange(
    await dial(path.port),
    'GET http://echo.outrider.test/a?b=1&API_KEY=theirs HTTP/1.1\r\nHost: echo.outrider.test\r\nx_api_key: theirs\r\nX-API-KEY: theirs\r\n\r\n',
    wholeResponse,
  );
  const [request] = origin.requests;
  t.same(field(request as never, 'authorization'), [`Basic ${Buffer.from('user:pass word').toString('base64')}`]);
  t.same(field(request as never, 'x-api-key'), ['Key k1!']);
  t.equal(request?.url, '/a?b=1&api_key=q%261');
  t.notMatch(origin.raw().join(), /theirs/);
});

t.test('a credential that cannot be written is never sent', async (t) => {
  for (const value of ['', 'a\r\nX: y', 'a\nb', 'a\u0000b', ' a', 'a\u00e9']) {
    const { origin, path } = await setUp(t, { grants: { get: () => grantOf(echo, { credentials: [bearer(value)] }) } });
    const answer = await shapes['absolute-form http']?.(path, {});
    t.match(answer, /"code":"credential_invalid"/, JSON.stringify(value));
    t.equal(origin.requests.length, 0);
  }
});

t.test('a grant for another destination is not used', async (t) => {
  const binding = { hosts: ['other.outrider.test'], ports: [443, 80], cleartextAllowed: true };
  const { origin, path } = await setUp(t, { grants: { get: () => grantOf(echo, { binding }) } });
  t.match(await shapes['CONNECT with TLS']?.(path, {}), /"code":"target_unknown"/);
  t.equal(origin.requests.length, 0);
});

t.test('clear text carries a credential only where the target allows it', async (t) => {
  const strict = target('echo', { cleartextAllowed: false });
  const { origin, path } = await setUp(t, { targets: [strict] });
  t.match(await shapes['absolute-form http']?.(path, {}), /^HTTP\/1\.1 403 [^]*"code":"cleartext_refused"/);
  t.match(await shapes['CONNECT with plain HTTP']?.(path, {}), /"code":"cleartext_refused"/);
  t.match(await shapes['CONNECT with TLS']?.(path, {}), /^HTTP\/1\.1 200/);
  t.equal(origin.requests.length, 1);
});

t.test('a refused intent refuses the request', async (t) => {
  const { origin, path } = await setUp(t, {
    onIntent: () => {
      throw new Fault('event_backlog');
    },
  });
  t.match(await shapes['CONNECT with TLS']?.(path, {}), /^HTTP\/1\.1 503 [^]*"code":"event_backlog"/);
  t.equal(origin.requests.length, 0);
  t.same(
    path.events.map(({ kind }) => kind),
    ['refusal'],
  );
});

t.test('unmatched destinations pass without a credential or are refused, as configured', async (t) => {
  const open = await setUp(t);
  const elsewhere = { host: 'elsewhere.outrider.test', headers: 'Authorization: Bearer mine\r\n' };
  t.match(await shapes['absolute-form http']?.(open.path, elsewhere), /^HTTP\/1\.1 200/);
  t.same(field(open.origin.requests[0] as never, 'authorization'), ['Bearer mine'], "the program's own credential is its own business");
  t.same(
    open.path.events.map(({ kind, decision }) => [kind, decision?.verdict]),
    [['pass', 'pass']],
  );

  const closed = await setUp(t, { onUnmatched: 'refuse' });
  t.match(await shapes['absolute-form http']?.(closed.path, elsewhere), /^HTTP\/1\.1 403 [^]*"code":"destination_unmatched"/);
  const { refusal } = await tunnelTo(closed.path.port, 'elsewhere.outrider.test:443');
  t.match(refusal, /^HTTP\/1\.1 403 [^]*destination_unmatched/);
  t.equal(closed.origin.requests.length, 0);
});

t.test('an unmatched tunnel is not decrypted: the program sees the origin own certificate', async (t) => {
  const origin = await startRecorder(authority.serverFor('elsewhere.outrider.test'));
  t.teardown(() => origin.close());
  const path = await startPath({
    dir: t.testdir(),
    targets: [echo],
    pins: pinsFor(origin, 'elsewhere.outrider.test'),
    trustPem: authority.pem,
  });
  t.teardown(() => path.close());
  const { socket } = await tunnelTo(path.port, 'elsewhere.outrider.test:443');
  const secured = await secure(socket, authority.pem, 'elsewhere.outrider.test');
  t.match(await exchange(secured, 'GET / HTTP/1.1\r\nHost: elsewhere.outrider.test\r\nConnection: close\r\n\r\n'), /^HTTP\/1\.1 200/);
  secured.destroy();
  t.same(field(origin.requests[0] as never, 'authorization'), []);
});

t.test('addresses that nothing names are not dialled', async (t) => {
  const { path } = await setUp(t);
  for (const host of ['127.0.0.1', '[::1]', '169.254.169.254', '10.0.0.1', '[::ffff:127.0.0.1]', '[64:ff9b::a9fe:a9fe]', 'localhost']) {
    t.match(await shapes['absolute-form http']?.(path, { host }), /"code":"destination_prohibited"/, host);
    const { refusal } = await tunnelTo(path.port, `${host}:443`);
    t.match(refusal, /destination_prohibited/, `CONNECT ${host}`);
  }
});

t.test('the proxy own trust store does not hold its interception authority', async (t) => {
  const { path } = await setUp(t);
  // An origin that shows what the proxy itself would mint is not believed: the fake bundle's authority signs nothing it dials.
  const impostor = createTestAuthority('Outrider interception test');
  const origin = await startRecorder(impostor.serverFor('echo.outrider.test'));
  t.teardown(() => origin.close());
  const second = await startPath({
    dir: t.testdir(),
    targets: [echo],
    pins: pinsFor(origin, 'echo.outrider.test'),
    trustPem: authority.pem,
  });
  t.teardown(() => second.close());
  t.match(await shapes['absolute-form https']?.(second, {}), /^HTTP\/1\.1 502 [^]*"code":"target_certificate_invalid"/);
  t.equal(origin.requests.length, 0);
  t.ok(path.bundle.includes('BEGIN CERTIFICATE'));
});
