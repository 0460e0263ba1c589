import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { JsonObject } from '../../src/core/json.ts';
import { limits } from '../../src/core/limits.ts';
import { ApiError, createApiServer } from '../../src/net/api-server.ts';
import { createLog } from '../../src/ops/log.ts';
import { createTestAuthority } from '../support/certificates.ts';

interface Received {
  readonly method: string | undefined;
  readonly url: string;
  readonly authorization: string | undefined;
  readonly contentType: string | undefined;
  readonly body: string;
}

const authority = createTestAuthority();

/** A server that answers what `answer` says, and a client of it with its files. */
const start = async (t: Test, answer: (received: Received) => { status?: number; body: unknown }) => {
  const received: Received[] = [];
  const server = createServer(authority.serverFor('localhost'), (request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      const { authorization, 'content-type': contentType } = request.headers;
      const one = { method: request.method, url: request.url ?? '', authorization, contentType, body };
      received.push(one);
      const { status = 200, body: given } = answer(one);
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(typeof given === 'string' ? given : JSON.stringify(given));
    });
  });
  server.listen(0, 'localhost');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const [caFile, tokenFile] = [join(t.testdir(), 'ca.crt'), join(t.testdirName, 'token')];
  writeFileSync(caFile, authority.pem);
  writeFileSync(tokenFile, 'first-token\n');
  const url = `https://localhost:${(server.address() as AddressInfo).port}/`;
  return { received, tokenFile, api: createApiServer({ url, caFile, tokenFile }) };
};

const errorOf = async (call: Promise<unknown>): Promise<ApiError> => {
  const error: unknown = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof ApiError)) throw new Error(`not an ApiError: ${String(error)}`);
  return error;
};

t.test('an object is read with the token of this moment; what is not there is undefined', async (t) => {
  const { api, received, tokenFile } = await start(t, ({ url }) =>
    url.endsWith('/here') ? { body: { kind: 'Secret' } } : { status: 404, body: { kind: 'Status', reason: 'NotFound' } },
  );
  t.same(await api.get('/api/v1/here'), { kind: 'Secret' });
  writeFileSync(tokenFile, 'second-token');
  t.equal(await api.get('/api/v1/gone'), undefined);
  t.same(
    received.map(({ authorization }) => authorization),
    ['Bearer first-token', 'Bearer second-token'],
  );
});

const itemsOf = async (pages: AsyncIterable<readonly JsonObject[]>): Promise<JsonObject[]> => {
  const items: JsonObject[] = [];
  for await (const page of pages) items.push(...page);
  return items;
};

t.test('a list has the items of all pages, asked for by the token that the page before gave', async (t) => {
  const { api, received } = await start(t, ({ url }) => {
    const { searchParams } = new URL(url, 'https://localhost');
    return searchParams.get('continue') === 'page 2'
      ? { body: { items: [{ n: 3 }], metadata: {} } }
      : { body: { items: [{ n: 1 }, { n: 2 }], metadata: { continue: 'page 2' } } };
  });
  t.same(await itemsOf(api.pages('/api/v1/pods', { labelSelector: 'a in (b,c)', fieldSelector: 'd!=e' })), [{ n: 1 }, { n: 2 }, { n: 3 }]);
  t.same(
    received.map(({ url }) => Object.fromEntries(new URL(url, 'https://localhost').searchParams)),
    [
      { limit: String(limits.apiServerPageItems), labelSelector: 'a in (b,c)', fieldSelector: 'd!=e' },
      { limit: String(limits.apiServerPageItems), labelSelector: 'a in (b,c)', fieldSelector: 'd!=e', continue: 'page 2' },
    ],
  );
});

t.test('a page is asked for when the one before has been looked at, and no more than are wanted', async (t) => {
  const { api, received } = await start(t, () => ({ body: { items: [{ n: 1 }], metadata: { continue: 'next' } } }));
  let seen = 0;
  for await (const page of api.pages('/api/v1/pods')) {
    seen += page.length;
    t.equal(received.length, seen);
    if (seen === 3) break;
  }
  t.equal(received.length, 3);
});

t.test('a list that does not end is given up', async (t) => {
  const items = Array.from({ length: 40_000 }, () => ({}));
  const { api } = await start(t, () => ({ body: { items, metadata: { continue: 'for ever' } } }));
  t.equal((await errorOf(itemsOf(api.pages('/api/v1/pods')))).reason, 'TooManyItems');
});

t.test('objects are made, replaced and patched, each with the media type of what is sent', async (t) => {
  const { api, received } = await start(t, ({ body }) => ({ status: 201, body: { got: JSON.parse(body) as unknown } }));
  t.same(await api.create('/a', { n: 1 }), { got: { n: 1 } });
  await api.replace('/b', { n: 2 });
  await api.patch('/c', [{ op: 'add', path: '/x', value: 1 }]);
  t.same(
    received.map(({ method, url, contentType, body }) => [method, url, contentType, body]),
    [
      ['POST', '/a', 'application/json', '{"n":1}'],
      ['PUT', '/b', 'application/json', '{"n":2}'],
      ['PATCH', '/c', 'application/json-patch+json', '[{"op":"add","path":"/x","value":1}]'],
    ],
  );
});

t.test('a refusal says status and reason, and a conflict is told from others', async (t) => {
  const status = { kind: 'Status', reason: 'Conflict', message: 'the object has been modified' };
  const { api } = await start(t, ({ method }) => (method === 'PUT' ? { status: 409, body: status } : { status: 403, body: {} }));
  const conflict = await errorOf(api.replace('/api/v1/x?fieldManager=outrider', {}));
  t.match(conflict, { status: 409, reason: 'Conflict', isConflict: true, message: 'PUT /api/v1/x: 409 (Conflict)' });
  t.match(await errorOf(api.get('/api/v1/x')), { status: 403, reason: '', isConflict: false, message: 'GET /api/v1/x: 403' });
});

t.test('no answer, an answer that is no JSON and a missing token are errors of the same kind, without what was sent', async (t) => {
  const { api, tokenFile } = await start(t, () => ({ body: 'not JSON' }));
  t.match(await errorOf(api.create('/x', { password: 'canary' })), { status: 0, message: 'POST /x: no answer' });
  writeFileSync(tokenFile, 'two tokens in one file');
  const error = await errorOf(api.get('/x'));
  t.match(error, { status: 0, message: 'GET /x: no answer' });
  t.match((error.cause as Error).message, /does not hold one bearer token/);
});

t.test('of an answer that is damaged nothing is told: it may be a Secret', async (t) => {
  const { api } = await start(t, () => ({ body: '{"data":{"keys.json":canary}}' }));
  const error = await errorOf(api.get('/x'));
  const said: string[] = [];
  createLog({ role: 'broker', level: 'warn', write: (line) => said.push(line) }).warn({ error }, 'waiting');
  t.match(said.join(''), /GET \/x: no answer.*is not JSON/);
  t.notMatch(said.join(''), /canary/);
});

t.test('a path that a name makes lead elsewhere is not asked for', async (t) => {
  const { api, received } = await start(t, () => ({ body: {} }));
  for (const name of ['..', '../../..', '.', '', 'a/../b', 'a b', 'a#b', '%2e%2e', 'a\\b', 'a\nb', '.hidden']) {
    const path = `/api/v1/namespaces/${name}/configmaps`;
    for (const call of [api.get(path), api.create(path, {}), api.replace(path, {}), api.patch(path, [])])
      t.match(await errorOf(call), { status: 0, reason: 'InvalidPath' }, JSON.stringify(name));
  }
  await api.get('/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node-1.example');
  t.equal(received.length, 1);
});
