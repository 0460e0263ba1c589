/**
 * An API server that reviews tokens as Kubernetes does: it authenticates and authorises who asks, verifies the token with the
 * cluster issuer's keys, checks audiences, knows which pods still exist, and answers with what the token says. Verifies with
 * node:crypto alone. https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
 */
import { verify } from 'node:crypto';
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Test } from 'tap';
import { createTestAuthority, type TestAuthority } from '../support/certificates.ts';
import type { ClusterIssuer, IssuerKey, Json } from './cluster-issuer.ts';

export interface ReceivedReview {
  readonly authorization: string | undefined;
  readonly token: string;
  readonly audiences: readonly string[];
}

export interface ApiServer {
  readonly url: string;
  readonly caPem: string;
  /** Bearer tokens it knows, and whether each may create tokenreviews. */
  readonly callers: Map<string, boolean>;
  readonly reviews: ReceivedReview[];
  /** UIDs of pods that are gone. */
  readonly deletedPods: Set<string>;
  /** Answers instead of a review; undefined gives the usual one. */
  override: ((response: ServerResponse, status: Json) => void) | undefined;
}

export interface ApiServerOptions {
  readonly issuer: ClusterIssuer;
  readonly now?: () => number;
  readonly authority?: TestAuthority;
}

export const startApiServer = async (
  t: Test,
  { issuer, now = Date.now, authority = createTestAuthority('API server authority') }: ApiServerOptions,
): Promise<ApiServer> => {
  const server = createServer(authority.serverFor('localhost'), (request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      const { authorization } = request.headers;
      const isPermitted = api.callers.get(authorization?.replace(/^Bearer /, '') ?? '');
      if (isPermitted === undefined) return failure(response, 401, 'Unauthorized');
      if (request.url !== '/apis/authentication.k8s.io/v1/tokenreviews')
        return failure(response, 404, 'the server could not find the requested resource');
      if (request.method !== 'POST') return failure(response, 405, 'the server does not allow this method on the requested resource');
      if (!isPermitted) return failure(response, 403, 'tokenreviews.authentication.k8s.io is forbidden');
      if (request.headers['content-type'] !== 'application/json')
        return failure(response, 415, 'the body of the request was in an unknown format');
      const review = JSON.parse(body) as { apiVersion: string; kind: string; spec: { token: string; audiences?: string[] } };
      if (review.apiVersion !== 'authentication.k8s.io/v1' || review.kind !== 'TokenReview')
        return failure(response, 400, 'no kind "TokenReview" is registered');
      const audiences = review.spec.audiences ?? ['https://kubernetes.default.svc'];
      api.reviews.push({ authorization, token: review.spec.token, audiences });
      const status = judge(review.spec.token, audiences, { issuer, deletedPods: api.deletedPods, nowMs: now() });
      if (api.override) return api.override(response, status);
      return answer(response, 201, { ...review, metadata: {}, status });
    });
  });
  server.listen(0, 'localhost');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  const api: ApiServer = {
    url: `https://localhost:${(server.address() as AddressInfo).port}`,
    caPem: authority.pem,
    callers: new Map(),
    reviews: [],
    deletedPods: new Set(),
    override: undefined,
  };
  return api;
};

export const answer = (response: ServerResponse, code: number, body: object): void => {
  response.writeHead(code, { 'content-type': 'application/json' });
  response.end(JSON.stringify(body));
};

const failure = (response: ServerResponse, code: number, message: string): void =>
  answer(response, code, { kind: 'Status', apiVersion: 'v1', status: 'Failure', message, code });

interface BoundClaims {
  readonly aud: string | string[];
  readonly exp: number;
  readonly nbf?: number;
  readonly iss: string;
  readonly sub: string;
  readonly jti?: string;
  readonly 'kubernetes.io'?: {
    readonly namespace: string;
    readonly serviceaccount: { readonly name: string; readonly uid: string };
    readonly pod?: { readonly name: string; readonly uid: string };
    readonly node?: { readonly name: string; readonly uid: string };
  };
}

interface Cluster {
  readonly issuer: ClusterIssuer;
  readonly deletedPods: ReadonlySet<string>;
  readonly nowMs: number;
}

/** `status` of the review. As in Kubernetes, "authenticated" is absent, not false, when the token is refused. */
const judge = (token: string, wanted: readonly string[], cluster: Cluster): Json => {
  const refuse = (why: string): Json => ({ user: {}, error: `[invalid bearer token, ${why}]` });
  const claims = verified(token, cluster.issuer.keys);
  if (claims === undefined) return refuse('crypto/rsa: verification error');
  if (claims.iss !== cluster.issuer.url) return refuse('unexpected issuer');
  if (claims.exp * 1000 <= cluster.nowMs) return refuse('service account token has expired');
  if ((claims.nbf ?? 0) * 1000 > cluster.nowMs) return refuse('token not valid yet');
  const audiences = wanted.filter((audience) => [claims.aud].flat().includes(audience));
  if (audiences.length === 0)
    return {
      user: {},
      error: `token audiences ${JSON.stringify(claims.aud)} is invalid for the target audiences ${JSON.stringify(wanted)}`,
    };
  const bound = claims['kubernetes.io'];
  if (bound === undefined) return refuse('no kubernetes.io claims');
  const { namespace, serviceaccount, pod, node } = bound;
  if (pod && cluster.deletedPods.has(pod.uid)) return refuse('service account token has been invalidated');
  const extra = {
    'credential-id': claims.jti && `JTI=${claims.jti}`,
    'node-name': node?.name,
    'node-uid': node?.uid,
    'pod-name': pod?.name,
    'pod-uid': pod?.uid,
  };
  return {
    authenticated: true,
    user: {
      username: `system:serviceaccount:${namespace}:${serviceaccount.name}`,
      uid: serviceaccount.uid,
      groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
      extra: Object.fromEntries(
        Object.entries(extra).flatMap(([name, value]) => (value === undefined ? [] : [[`authentication.kubernetes.io/${name}`, [value]]])),
      ),
    },
    audiences,
  };
};

const digests: Readonly<Record<string, string>> = { RS256: 'sha256', ES256: 'sha256', ES384: 'sha384', ES512: 'sha512' };

const verified = (token: string, keys: readonly IssuerKey[]): BoundClaims | undefined => {
  const [header = '', payload = '', signature = ''] = token.split('.');
  const read = (part: string): unknown => JSON.parse(Buffer.from(part, 'base64url').toString());
  const { alg, kid } = read(header) as { alg: string; kid: string };
  const key = keys.find((one) => one.kid === kid && one.algorithm === alg);
  const isGenuine =
    key !== undefined &&
    verify(
      digests[alg],
      Buffer.from(`${header}.${payload}`),
      { key: key.publicKey, dsaEncoding: 'ieee-p1363' },
      Buffer.from(signature, 'base64url'),
    );
  return isGenuine ? (read(payload) as BoundClaims) : undefined;
};
