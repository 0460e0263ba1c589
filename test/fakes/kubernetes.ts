/** A cluster's objects (cluster-objects.ts) behind HTTPS, as an API server's clients see them, for one bearer token. */
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Test } from 'tap';
import type { JsonObject } from '../../src/core/json.ts';
import { ApiError } from '../../src/net/api-server.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { answer } from './api-server.ts';
import type { ClusterObjects } from './cluster-objects.ts';

export interface Kubernetes {
  readonly url: string;
  readonly caPem: string;
  readonly bearer: string;
}

/** A path ends in the name of an object, or in the kind of a list: these are the lists that are read. */
const isList = (path: string): boolean => /\/(?:namespaces|pods)$/.test(path);

export const startKubernetes = async (t: Test, cluster: ClusterObjects): Promise<Kubernetes> => {
  const authority = createTestAuthority('API server authority');
  const bearer = 'injector-service-account';

  const perform = async (method: string, url: URL, body: string): Promise<JsonObject> => {
    const path = url.pathname;
    if (method === 'GET' && isList(path)) {
      const [labelSelector, fieldSelector] = ['labelSelector', 'fieldSelector'].map((name) => url.searchParams.get(name) ?? undefined);
      const options = {
        ...(labelSelector === undefined ? {} : { labelSelector }),
        ...(fieldSelector === undefined ? {} : { fieldSelector }),
      };
      const items: JsonObject[] = [];
      for await (const page of cluster.pages(path, options)) items.push(...page);
      return { items };
    }
    if (method === 'GET') {
      const found = await cluster.get(path);
      if (found === undefined) throw new ApiError(method, path, { status: 404, reason: 'NotFound' });
      return found;
    }
    const object = JSON.parse(body) as JsonObject;
    if (method === 'POST') return cluster.create(path, object);
    return method === 'PUT' ? cluster.replace(path, object) : cluster.patch(path, object as unknown as readonly JsonObject[]);
  };

  const server = createServer(authority.serverFor('localhost'), (request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      const fail = (code: number, reason: string): void => answer(response, code, { kind: 'Status', status: 'Failure', reason, code });
      if (request.headers.authorization !== `Bearer ${bearer}`) return fail(401, 'Unauthorized');
      return void perform(request.method ?? '', new URL(request.url ?? '', 'https://localhost'), body).then(
        (object) => answer(response, 200, object),
        (error: unknown) => (error instanceof ApiError ? fail(error.status, error.reason) : fail(500, 'InternalError')),
      );
    });
  });
  server.listen(0, 'localhost');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `https://localhost:${(server.address() as AddressInfo).port}`, caPem: authority.pem, bearer };
};
