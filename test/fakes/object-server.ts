/**
 * An API server that keeps objects: GET and PUT by path, with a resourceVersion that changes with every write and that a PUT must know
 * (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions). It knows one service account, which may do no
 * more than it was given: get and update, by name.
 */
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Test } from 'tap';
import { createTestAuthority, type ServerFiles } from '../support/certificates.ts';
import { answer } from './api-server.ts';

export interface StoredObject {
  readonly metadata: { readonly resourceVersion?: string } & Readonly<Record<string, unknown>>;
  readonly [name: string]: unknown;
}

export interface ObjectServer {
  readonly url: string;
  readonly caPem: string;
  readonly bearer: string;
  /** By path; set one to let it exist. */
  readonly objects: Map<string, StoredObject>;
  /** `METHOD path status`, in order. */
  readonly answered: string[];
  /** Answers nothing but 503 while it is true. */
  isAway: boolean;
  /** Called before a PUT is judged: what somebody else does in between. */
  beforePut: ((path: string) => Promise<void> | void) | undefined;
}

export const secretPath = '/api/v1/namespaces/outrider/secrets/outrider-keys';
export const configMapPath = '/api/v1/namespaces/outrider/configmaps/outrider-trust';

/** As a chart makes them: they exist and have no data. */
const emptyObjects = (): [string, StoredObject][] => [
  [
    secretPath,
    { apiVersion: 'v1', kind: 'Secret', type: 'Opaque', metadata: { name: 'outrider-keys', resourceVersion: '1', labels: { app: 'x' } } },
  ],
  [configMapPath, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'outrider-trust', resourceVersion: '1' } }],
];

export const startObjectServer = async (t: Test): Promise<ObjectServer> => {
  const authority = createTestAuthority('API server authority');
  const files: ServerFiles = authority.serverFor('localhost');
  let version = 1;
  const server = createServer(files, (request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => void respond(request.method ?? '', request.url ?? '', request.headers.authorization, body, response));
  });
  const respond = async (method: string, path: string, authorization: string | undefined, body: string, response: ServerResponse) => {
    const end = (status: number, value: object): void => {
      api.answered.push(`${method} ${path} ${status}`);
      answer(response, status, value);
    };
    const fail = (code: number, reason: string): void => end(code, { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason, code });
    if (api.isAway) return fail(503, 'ServiceUnavailable');
    if (authorization !== `Bearer ${api.bearer}`) return fail(401, 'Unauthorized');
    if (method !== 'GET' && method !== 'PUT') return fail(403, 'Forbidden');
    if (method === 'PUT') await api.beforePut?.(path);
    const object = api.objects.get(path);
    if (object === undefined) return fail(404, 'NotFound');
    if (method === 'GET') return end(200, object);
    const next = JSON.parse(body) as StoredObject;
    const known = next.metadata.resourceVersion;
    if (known !== undefined && known !== object.metadata.resourceVersion) return fail(409, 'Conflict');
    version += 1;
    const stored = { ...next, metadata: { ...next.metadata, resourceVersion: String(version) } };
    api.objects.set(path, stored);
    return end(200, stored);
  };
  server.listen(0, 'localhost');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  const api: ObjectServer = {
    url: `https://localhost:${(server.address() as AddressInfo).port}`,
    caPem: authority.pem,
    bearer: 'broker-service-account',
    objects: new Map(emptyObjects()),
    answered: [],
    isAway: false,
    beforePut: undefined,
  };
  return api;
};
