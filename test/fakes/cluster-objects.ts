/**
 * A cluster's objects in memory, as src/net/api-server.ts shows them: resourceVersions that every write changes and must know, lists by label,
 * JSON patches that hold whole or not at all. Knows no kinds and no rights: test/kubernetes has a real API server for those.
 */
import type { JsonObject } from '../../src/core/json.ts';
import { ApiError, type ApiServer } from '../../src/net/api-server.ts';

interface Stored {
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly [name: string]: unknown;
}

export interface ClusterObjects extends ApiServer {
  /** By path; what is put here exists. */
  readonly objects: Map<string, Stored>;
  /** `METHOD path`, of every call that was answered well. */
  readonly calls: string[];
  /** Throws, or changes things, before a call is looked at. */
  before: ((method: string, path: string) => void) | undefined;
  /** Puts an object and gives it a version and a uid. */
  readonly put: (path: string, object: object) => void;
}

const labelsOf = ({ metadata }: Stored): Readonly<Record<string, string>> => (metadata['labels'] ?? {}) as Record<string, string>;

/** `metadata.name=a,status.phase!=b` */
const hasFields = (object: Stored, selector = ''): boolean =>
  selector
    .split(',')
    .filter(Boolean)
    .every((term) => {
      const [, path = '', operator, value] = /^([^!=]+)(!?=)(.*)$/.exec(term) ?? [];
      const found = path.split('.').reduce<unknown>((at, name) => (at as Record<string, unknown> | undefined)?.[name], object);
      return (found === value) === (operator === '=');
    });

interface PatchOperation {
  readonly op: string;
  readonly path: string;
  readonly value: unknown;
}

const applied = (object: Stored, operations: readonly PatchOperation[], refuse: () => never): Stored => {
  const copy = structuredClone(object) as unknown as Record<string, unknown>;
  for (const { op, path, value } of operations) {
    const names = path.split('/').slice(1);
    const last = names.pop() as string;
    const place = names.reduce((at, name) => at[name] as Record<string, unknown>, copy);
    if (op === 'test' && place[last] !== value) refuse();
    if (op === 'add') place[last] = value;
  }
  return copy as unknown as Stored;
};

export const createClusterObjects = (): ClusterObjects => {
  let version = 0;
  const objects = new Map<string, Stored>();
  const fail = (method: string, path: string, status: number, reason: string): never => {
    throw new ApiError(method, path, { status, reason });
  };
  const put = (path: string, object: object): Stored => {
    version += 1;
    const { metadata = {} } = object as { metadata?: object };
    const stored = { ...object, metadata: { uid: `uid-of-${path}`, ...metadata, resourceVersion: String(version) } };
    objects.set(path, stored);
    return stored;
  };
  const called = (method: string, path: string): void => {
    cluster.before?.(method, path);
    cluster.calls.push(`${method} ${path}`);
  };
  const known = (method: string, path: string): Stored => objects.get(path) ?? fail(method, path, 404, 'NotFound');
  const cluster: ClusterObjects = {
    objects,
    calls: [],
    before: undefined,
    put: (path, object) => void put(path, object),
    get: async (path) => {
      called('GET', path);
      return structuredClone(objects.get(path)) as JsonObject | undefined;
    },
    pages: async function* (path, { labelSelector, fieldSelector } = {}) {
      called('GET', path);
      const [name = '', value] = labelSelector?.split('=') ?? [];
      const [, everywhere] = /^\/api\/v1\/(pods)$/.exec(path) ?? [];
      const isIn = (at: string): boolean =>
        everywhere ? new RegExp(`/${everywhere}/[^/]+$`).test(at) : at.slice(0, at.lastIndexOf('/')) === path;
      const items = [...objects]
        .filter(([at, object]) => isIn(at) && (value === undefined || labelsOf(object)[name] === value) && hasFields(object, fieldSelector))
        .map(([, object]) => object);
      // Short pages: whoever looks at the first alone is found out.
      for (let i = 0; i < Math.max(items.length, 1); i += 2) yield items.slice(i, i + 2);
    },
    create: async (path, body) => {
      called('POST', path);
      const at = `${path}/${(body['metadata'] as { name: string }).name}`;
      return objects.has(at) ? fail('POST', path, 409, 'AlreadyExists') : put(at, body);
    },
    replace: async (path, body) => {
      called('PUT', path);
      const { metadata } = known('PUT', path);
      const { resourceVersion } = body['metadata'] as { resourceVersion?: string };
      return resourceVersion === metadata['resourceVersion'] ? put(path, body) : fail('PUT', path, 409, 'Conflict');
    },
    patch: async (path, body) => {
      called('PATCH', path);
      const operations = body as unknown as readonly PatchOperation[];
      return put(
        path,
        applied(known('PATCH', path), operations, () => fail('PATCH', path, 422, 'Invalid')),
      );
    },
  };
  return cluster;
};
