/**
 * The Kubernetes API as the tests and the stand-in for the kubelet use it: with everybody's rights, or with a given token's. Shares nothing
 * with the product's own client.
 */
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { createInterface } from 'node:readline';

export interface Meta {
  name: string;
  namespace?: string;
  uid: string;
  resourceVersion: string;
  generation?: number;
  creationTimestamp: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: { kind: string; name: string; uid: string; controller?: boolean }[];
  finalizers?: string[];
}

/** Any object of the API; a test knows what it looks at. */
// oxlint-disable-next-line typescript/no-explicit-any
export type Kube = { kind?: string; apiVersion?: string; metadata: Meta } & Record<string, any>;

export interface Answer {
  readonly status: number;
  readonly body: Kube;
}

export interface Api {
  readonly url: string;
  readonly caPem: string;
  /** Any answer, whatever its status. */
  readonly call: (method: string, path: string, body?: unknown, contentType?: string) => Promise<Answer>;
  /** Undefined when there is none. */
  readonly get: (path: string) => Promise<Kube | undefined>;
  readonly list: (path: string) => Promise<readonly Kube[]>;
  readonly create: (path: string, body: object) => Promise<Kube>;
  /** As a merge patch (RFC 7386). */
  readonly merge: (path: string, body: object) => Promise<Kube>;
  /** Nothing happens when there is none. */
  readonly remove: (path: string, options?: object) => Promise<void>;
  /** Calls `onChange` with each object that is there and each change, for ever, until it is ended. */
  readonly watch: (path: string, onChange: (type: 'ADDED' | 'MODIFIED' | 'DELETED', object: Kube) => void) => { readonly end: () => void };
  readonly as: (token: string) => Api;
  readonly close: () => void;
}

/** The API server's own words. */
export class Refused extends Error {
  readonly status: number;
  readonly reason: string;

  constructor(method: string, path: string, { status, body }: Answer) {
    super(`${method} ${path}: ${status} ${String(body['message'] ?? '')}`);
    this.status = status;
    this.reason = String(body['reason'] ?? '');
  }
}

const timeoutMs = 35_000;

export const connectApi = (url: string, caPem: string, token: string): Api => {
  const agent = new Agent({ ca: caPem, keepAlive: true, maxSockets: 64 });
  const send = (method: string, path: string, text: string | undefined, contentType: string, isEndless = false): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      const headers = {
        accept: 'application/json',
        authorization: `Bearer ${token}`,
        ...(text === undefined ? {} : { 'content-type': contentType, 'content-length': Buffer.byteLength(text) }),
      };
      const outgoing = request(new URL(path, url), { method, agent, headers, ...(isEndless ? {} : { timeout: timeoutMs }) }, resolve);
      outgoing.on('timeout', () => outgoing.destroy(new Error(`${method} ${path}: no answer`)));
      outgoing.on('error', reject);
      outgoing.end(text);
    });
  const call: Api['call'] = async (method, path, body, contentType = 'application/json') => {
    const response = await send(method, path, body === undefined ? undefined : JSON.stringify(body), contentType);
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const isJson = response.headers['content-type']?.includes('json') ?? false;
    return { status: response.statusCode ?? 0, body: (isJson ? JSON.parse(text) : { message: text }) as Kube };
  };
  const done = async (method: string, path: string, body?: unknown, contentType?: string): Promise<Kube> => {
    const answer = await call(method, path, body, contentType);
    if (answer.status >= 300) throw new Refused(method, path, answer);
    return answer.body;
  };
  const get: Api['get'] = async (path) => {
    const answer = await call('GET', path);
    if (answer.status === 404) return undefined;
    if (answer.status >= 300) throw new Refused('GET', path, answer);
    return answer.body;
  };
  const watch: Api['watch'] = (path, onChange) => {
    let [isOver, current]: [boolean, IncomingMessage | undefined] = [false, undefined];
    const joined = path.includes('?') ? '&' : '?';
    const follow = async (): Promise<void> => {
      // Without a resourceVersion it begins with all that is there; who watches takes the same object twice.
      current = await send('GET', `${path}${joined}watch=1`, undefined, '', true);
      for await (const line of createInterface({ input: current })) {
        const { type, object } = JSON.parse(line) as { type: string; object: Kube };
        if (type === 'ADDED' || type === 'MODIFIED' || type === 'DELETED') onChange(type, object);
      }
    };
    const run = async (): Promise<void> => {
      while (!isOver) {
        await follow().catch(() => undefined);
        if (!isOver) await new Promise((resolve) => setTimeout(resolve, 100));
      }
    };
    void run();
    return {
      end: () => {
        isOver = true;
        current?.destroy();
      },
    };
  };
  return {
    url,
    caPem,
    call,
    get,
    list: async (path) => ((await done('GET', path))['items'] as Kube[] | null) ?? [],
    create: (path, body) => done('POST', path, body),
    merge: (path, body) => done('PATCH', path, body, 'application/merge-patch+json'),
    remove: async (path, options) => {
      const answer = await call('DELETE', path, options);
      if (answer.status >= 300 && answer.status !== 404) throw new Refused('DELETE', path, answer);
    },
    watch,
    as: (other) => connectApi(url, caPem, other),
    close: () => agent.destroy(),
  };
};
