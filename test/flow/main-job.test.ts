import { readFileSync } from 'node:fs';
import { Agent, get } from 'node:https';
import { createLocalJWKSet, decodeProtectedHeader, type JSONWebKeySet, jwtVerify } from 'jose';
import t from 'tap';
import { parseSettings } from '../../src/settings/document.ts';
import { field } from '../fakes/recorder.ts';
import { dial, exchange, secure, tunnelTo, wholeResponse } from '../support/path.ts';
import { brokerYaml, eventually, host, metric, startStack, workloadId } from '../support/stack.ts';

/** The whole ride over real gRPC: token → SVID → grant → injected request → stored event. */
type Json = Record<string, unknown>;
const overHttps = async (port: number, bundleFile: string, path: string, headers = ''): Promise<string> => {
  const { socket, refusal } = await tunnelTo(port, `${host}:443`);
  if (refusal) return refusal;
  const secured = await secure(socket, readFileSync(bundleFile, 'utf8'), host);
  const answer = await exchange(secured, `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n${headers}\r\n`, wholeResponse);
  secured.destroy();
  return answer;
};
const overHttp = async (port: number, path: string): Promise<string> => {
  const socket = await dial(port);
  const answer = await exchange(socket, `GET http://${host}${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
  socket.destroy();
  return answer;
};
const getJson = (url: string, ca: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    get(url, { agent: new Agent({ ca }) }, (response) => {
      let text = '';
      response.on('data', (chunk) => (text += chunk));
      response.on('end', () => resolve(JSON.parse(text)));
    }).on('error', reject);
  });

t.test('a request gets a JWT that the broker signed for this workload and target', async (t) => {
  const { proxy, broker, origin, files } = await startStack(t);
  t.match(await overHttps(proxy.listen.port, files.bundle, '/hello', 'Authorization: Bearer mine\r\n'), /^HTTP\/1\.1 200/);
  t.match(await overHttp(proxy.listen.port, '/hello'), /^HTTP\/1\.1 200/);
  t.equal(origin.requests.length, 2);
  const brokerCa = readFileSync(files.brokerCa, 'utf8');
  const jwks = (await getJson(`https://127.0.0.1:${broker.issuer.port}/jwks`, brokerCa)) as JSONWebKeySet;
  for (const request of origin.requests) {
    const [value, ...more] = field(request, 'authorization');
    t.same(more, []);
    const token = (value as string).replace(/^Bearer /, '');
    const { payload } = await jwtVerify(token, createLocalJWKSet(jwks), {
      issuer: 'https://127.0.0.1:8444',
      audience: 'https://echo.outrider.test',
      subject: workloadId,
    });
    t.ok((payload.exp as number) - (payload.iat as number) <= 600, 'a life of at most ten minutes');
    t.equal(decodeProtectedHeader(token).alg, 'ES256');
  }
});

t.test('the collector holds an intent and an outcome for each, with policy, version, rule and grant', async (t) => {
  const { proxy, events, logs } = await startStack(t);
  await overHttp(proxy.listen.port, '/hello?secret=canary-query');
  await overHttp(proxy.listen.port, '/admin/users');
  const stored = await eventually(() => {
    const found = events();
    return found.length >= 3 ? found : undefined;
  });
  t.same(
    stored.map(({ kind }) => kind),
    ['intent', 'outcome', 'refusal'],
  );
  const [intent, outcome, refusal] = stored as [Json, Json, Json];
  t.equal(intent['requestId'], outcome['requestId']);
  for (const event of stored) t.match(event, { workload: workloadId, reporter: workloadId, target: 'echo', method: 'GET' });
  t.match(outcome, { path: '/hello', decision: { verdict: 'allow', policy: 'demo', rule: 'use-echo' }, outcome: { status: 200 } });
  t.match((outcome['decision'] as { policyVersion: string }).policyVersion, /^[0-9a-f]{12,16}$/);
  t.match(refusal, {
    path: '/admin/users',
    decision: { verdict: 'deny', policy: 'demo', rule: 'no-admin' },
    outcome: { status: 403, fault: 'policy_denied' },
  });
  t.notMatch(JSON.stringify(stored) + logs.join(''), /canary-query|eyJ[A-Za-z0-9_-]+\.eyJ/, 'no query string and no token anywhere');
});

t.test('a thousand concurrent cold requests make one GetGrant, a warm one none', async (t) => {
  const { proxy, broker, origin } = await startStack(t);
  t.equal(await metric(broker.admin, 'outrider_broker_rpc_requests_total', 'method="GetGrant"'), 0);
  const answers = await Promise.all(Array.from({ length: 1_000 }, (_, i) => overHttp(proxy.listen.port, `/${i}`)));
  t.equal(answers.filter((answer) => answer.startsWith('HTTP/1.1 200')).length, 1_000);
  t.equal(origin.requests.length, 1_000);
  t.equal(await metric(broker.admin, 'outrider_broker_rpc_requests_total', 'method="GetGrant"'), 1);
  for (let i = 0; i < 10; i += 1) await overHttp(proxy.listen.port, '/warm');
  t.equal(await metric(broker.admin, 'outrider_broker_rpc_requests_total', 'method="GetGrant"'), 1);
  t.equal(await metric(proxy.admin, 'outrider_proxy_broker_calls_total', 'method="GetGrant"'), 1);
});

t.test('a change of policy takes effect at once, without a restart', async (t) => {
  const { proxy, broker, files, issuer } = await startStack(t);
  t.match(await overHttp(proxy.listen.port, '/hello'), /^HTTP\/1\.1 200/);
  const closed = '  - name: demo\n    rules:\n      - { name: closed, effect: deny, workloads: [demo-app], targets: [echo] }';
  broker.apply(parseSettings(brokerYaml(files, issuer.url, { policies: closed }), 'broker.yaml') as never);
  const answer = await eventually(async () => {
    const text = await overHttp(proxy.listen.port, '/hello');
    return text.startsWith('HTTP/1.1 403') ? text : undefined;
  });
  t.match(answer, /"code":"policy_denied"[^]*"rule":"closed"/);
});
