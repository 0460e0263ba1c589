/**
 * The Kubernetes API as the roles use it: objects by path, lists page by page, optimistic concurrency by resourceVersion. No watch: what
 * is followed is read again now and then, which needs no state and survives everything. Knows no kind of object.
 * https://kubernetes.io/docs/reference/using-api/api-concepts/
 */
import { isJsonObject, type JsonObject } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { outboundFetch } from './fetch.ts';
import { readBearerFile, readCaFile } from './trust-files.ts';

export interface ApiServerPlace {
  /** Base URL, e.g. https://kubernetes.default.svc */
  readonly url: string;
  /** PEM to trust instead of the system's roots; undefined for those. Re-read on use. */
  readonly caFile: string | undefined;
  /** The role's own service-account token. Re-read on use. */
  readonly tokenFile: string;
}

export interface ListOptions {
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
}

/** Paths begin with /api or /apis. Every method throws ApiError, and nothing else, when it was not done. */
export interface ApiServer {
  /** Undefined when there is none. */
  readonly get: (path: string) => Promise<JsonObject | undefined>;
  /** All items, page by page: whoever counts them need not hold them. Throws ApiError as the methods do. */
  readonly pages: (path: string, options?: ListOptions) => AsyncIterable<readonly JsonObject[]>;
  readonly create: (path: string, body: JsonObject) => Promise<JsonObject>;
  /** Refused as a conflict when `body` has a resourceVersion that is no longer the object's. */
  readonly replace: (path: string, body: JsonObject) => Promise<JsonObject>;
  /** A JSON patch (RFC 6902): all of it, or nothing. */
  readonly patch: (path: string, operations: readonly JsonObject[]) => Promise<JsonObject>;
}

/** Holds the method, the path and the API server's own words for why; never a body or a token. */
export class ApiError extends Error {
  /** HTTP status; 0 when there was no whole answer. */
  readonly status: number;
  /** `reason` of the Status object (Conflict, AlreadyExists, Forbidden, …), or ''. */
  readonly reason: string;

  constructor(method: string, path: string, { status, reason, cause }: { status: number; reason: string; cause?: unknown }) {
    super(`${method} ${path}: ${status === 0 ? 'no answer' : status}${reason === '' ? '' : ` (${reason})`}`, { cause });
    this.name = 'ApiError';
    this.status = status;
    this.reason = reason;
  }

  /** Somebody else changed or made the object first: read it again. */
  get isConflict(): boolean {
    return this.status === 409;
  }
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    // Without the cause, which quotes the text around what it stumbled over: of a Secret that is a piece of a key.
    throw new Error('the answer is not JSON');
  }
};

export const createApiServer = ({ url, caFile, tokenFile }: ApiServerPlace): ApiServer => {
  const base = url.replace(/\/$/, '');

  /** The answer's object, of any status. */
  const exchange = async (method: string, path: string, body?: unknown, contentType = 'application/json') => {
    const caPem = await readCaFile(caFile);
    const bearer = await readBearerFile(tokenFile);
    const fetch = outboundFetch({ caPem, timeoutMs: limits.outboundTimeoutMs, bodyBytesMax: limits.apiServerBodyBytesMax });
    const response = await fetch(`${base}${path}`, {
      method,
      headers: {
        accept: 'application/json',
        authorization: `Bearer ${bearer.reveal()}`,
        ...(body === undefined ? {} : { 'content-type': contentType }),
      },
      body: body === undefined ? null : JSON.stringify(body),
    });
    const answer = parsed(await response.text());
    return { status: response.status, answer: isJsonObject(answer) ? answer : {} };
  };

  const done = async (method: string, path: string, body?: unknown, contentType?: string): Promise<JsonObject> => {
    // The query is ours (pages, selectors), and says nothing to a reader of the log.
    const [named = ''] = path.split('?', 1);
    // Names in paths may come from outside: none leads to another object than was meant.
    if (!/^(?:\/[A-Za-z0-9][-A-Za-z0-9._:]*)+$/.test(named)) throw new ApiError(method, 'a path', { status: 0, reason: 'InvalidPath' });
    let exchanged: Awaited<ReturnType<typeof exchange>>;
    try {
      exchanged = await exchange(method, path, body, contentType);
    } catch (cause) {
      throw new ApiError(method, named, { status: 0, reason: '', cause });
    }
    const { status, answer } = exchanged;
    if (status >= 200 && status < 300) return answer;
    const { reason } = answer;
    throw new ApiError(method, named, { status, reason: typeof reason === 'string' ? reason.slice(0, 100) : '' });
  };

  const page = async (path: string, { labelSelector, fieldSelector }: ListOptions, continuation: string | undefined) => {
    const query = new URLSearchParams({
      limit: String(limits.apiServerPageItems),
      ...(labelSelector === undefined ? {} : { labelSelector }),
      ...(fieldSelector === undefined ? {} : { fieldSelector }),
      ...(continuation === undefined ? {} : { continue: continuation }),
    });
    const { items, metadata } = await done('GET', `${path}?${query.toString()}`);
    const after = isJsonObject(metadata) ? metadata['continue'] : undefined;
    return {
      items: Array.isArray(items) ? items.filter(isJsonObject) : [],
      next: typeof after === 'string' && after !== '' ? after : undefined,
    };
  };

  return {
    get: async (path) => {
      try {
        return await done('GET', path);
      } catch (error) {
        if (error instanceof ApiError && error.status === 404) return undefined;
        throw error;
      }
    },
    pages: async function* (path, options = {}) {
      let count = 0;
      let continuation: string | undefined;
      do {
        const { items, next } = await page(path, options, continuation);
        count += items.length;
        if (count > limits.apiServerItemsMax) throw new ApiError('GET', path, { status: 0, reason: 'TooManyItems' });
        yield items;
        continuation = next;
      } while (continuation !== undefined);
    },
    create: (path, body) => done('POST', path, body),
    replace: (path, body) => done('PUT', path, body),
    patch: (path, operations) => done('PATCH', path, operations, 'application/json-patch+json'),
  };
};
