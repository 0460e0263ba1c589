/**
 * A cluster's service-account issuer over HTTPS: discovery, JWKS, and projected tokens shaped as Kubernetes makes them. It signs
 * with node:crypto alone, so that what verifies is not tested against itself, and signs whatever a test asks for.
 */
import { createHash, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Test } from 'tap';
import { createTestAuthority, type ServerFiles, type TestAuthority } from '../support/certificates.ts';

export interface IssuerKey {
  readonly kid: string;
  readonly algorithm: 'RS256' | 'ES256' | 'ES384' | 'ES512';
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

export type Json = Record<string, unknown>;

export interface TokenParts {
  /** Added to, or in the place of, what the key says; undefined removes. */
  readonly header?: Json;
  readonly claims?: Json;
  /** The exact text instead of JSON made from the above. */
  readonly headerText?: string;
  readonly claimsText?: string;
  readonly key?: IssuerKey;
  readonly signature?: (signingInput: string) => Buffer;
}

const curves = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' } as const;
const digests = { RS256: 'sha256', ES256: 'sha256', ES384: 'sha384', ES512: 'sha512' } as const;

export const createIssuerKey = (algorithm: IssuerKey['algorithm'] = 'RS256', modulusLength = 2048): IssuerKey => {
  const pair =
    algorithm === 'RS256' ? generateKeyPairSync('rsa', { modulusLength }) : generateKeyPairSync('ec', { namedCurve: curves[algorithm] });
  // As Kubernetes names keys: the hash of the public key's DER.
  const kid = createHash('sha256')
    .update(pair.publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64url');
  return { kid, algorithm, ...pair };
};

export const publicJwk = ({ kid, algorithm, publicKey }: IssuerKey): Json => ({
  ...publicKey.export({ format: 'jwk' }),
  kid,
  alg: algorithm,
  use: 'sig',
});

export const encode = (value: string | Buffer): string => Buffer.from(value).toString('base64url');

export const signWith = ({ algorithm, privateKey }: IssuerKey, signingInput: string): Buffer =>
  sign(digests[algorithm], Buffer.from(signingInput), { key: privateKey, dsaEncoding: 'ieee-p1363' });

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export interface ClusterIssuer {
  readonly url: string;
  readonly caPem: string;
  /** Published, the signing one last. */
  readonly keys: IssuerKey[];
  /** Paths asked for, and the bearer tokens that came along. */
  readonly requests: { readonly path: string; readonly authorization: string | undefined }[];
  /** Answers instead of the usual document at a path. */
  readonly overrides: Map<string, Handler>;
  /** Claims of a pod of the demo workload. */
  readonly claims: (changes?: Json) => Json;
  readonly token: (parts?: TokenParts) => string;
  /** Publishes a new key beside the others and signs with it. */
  readonly rotate: (algorithm?: IssuerKey['algorithm']) => IssuerKey;
  readonly stop: () => Promise<void>;
  /** Again on the same port, with another certificate if one is given. */
  readonly start: (files?: ServerFiles) => Promise<void>;
}

export interface ClusterIssuerOptions {
  readonly audience?: string;
  readonly now?: () => number;
  readonly authority?: TestAuthority;
  /** What it signs with first; one for the whole process unless given, because RSA keys are slow to make. */
  readonly key?: IssuerKey;
  /** Asks for one of these bearer tokens, as API servers do by default. */
  readonly bearers?: Set<string>;
}

let sharedKey: IssuerKey | undefined;

export const startClusterIssuer = async (t: Test, o: ClusterIssuerOptions = {}): Promise<ClusterIssuer> => {
  const { audience = 'outrider', now = Date.now, authority = createTestAuthority() } = o;
  sharedKey ??= createIssuerKey();
  const keys = [o.key ?? sharedKey];
  const requests: ClusterIssuer['requests'] = [];
  const overrides = new Map<string, Handler>();
  /** As a real API server: it has one form of each document, and 406 for who does not take that. */
  const answer = ({ headers }: IncomingMessage, response: ServerResponse, contentType: string, body: object): void => {
    const { accept = '*/*' } = headers;
    if (!/\*\/\*/.test(accept) && !accept.includes(contentType)) return void response.writeHead(406).end();
    response.writeHead(200, { 'content-type': contentType }).end(JSON.stringify(body));
  };
  const documents: Record<string, () => object> = {
    '/.well-known/openid-configuration': () => ({
      issuer: url,
      jwks_uri: `${url}/openid/v1/jwks`,
      response_types_supported: ['id_token'],
      subject_types_supported: ['public'],
      id_token_signing_alg_values_supported: ['RS256'],
    }),
    '/openid/v1/jwks': () => ({ keys: keys.map(publicJwk) }),
  };
  const handle: Handler = (request, response) => {
    const path = request.url ?? '';
    const { authorization } = request.headers;
    requests.push({ path, authorization });
    if (o.bearers && !o.bearers.has(authorization?.replace('Bearer ', '') ?? '')) return void response.writeHead(401).end();
    const override = overrides.get(path);
    if (override) return override(request, response);
    const document = documents[path];
    if (!document) return void response.writeHead(404).end();
    answer(request, response, path.endsWith('/jwks') ? 'application/jwk-set+json' : 'application/json', document());
  };

  let server = createServer(authority.serverFor('localhost'), handle);
  let port = 0;
  const start: ClusterIssuer['start'] = async (files = authority.serverFor('localhost')) => {
    server = createServer(files, handle).listen(port, 'localhost');
    await once(server, 'listening');
    ({ port } = server.address() as AddressInfo);
  };
  const stop: ClusterIssuer['stop'] = async () => {
    if (!server.listening) return;
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  await start();
  t.teardown(stop);
  const url = `https://localhost:${port}`;

  const claims: ClusterIssuer['claims'] = (changes = {}) => {
    const issuedAt = Math.floor(now() / 1000);
    const all = {
      aud: [audience],
      exp: issuedAt + 3600,
      iat: issuedAt,
      iss: url,
      jti: randomUUID(),
      'kubernetes.io': {
        namespace: 'demo',
        node: { name: 'node-1.outrider.test', uid: '9c3e3a3c-1f0a-4f5a-9a51-2f2a4b0e5f11' },
        pod: { name: 'demo-app-5d9c7b7c9-x2x4k', uid: '6f0f6ff0-6d29-4a6e-9f3a-0c6a9d9f1c22' },
        serviceaccount: { name: 'demo-app', uid: 'b0a1c2d3-0b7e-4b11-8a4e-5f6a7b8c9d33' },
        warnafter: issuedAt + 3300,
      },
      nbf: issuedAt,
      sub: 'system:serviceaccount:demo:demo-app',
      ...changes,
    };
    return all;
  };

  return {
    url,
    caPem: authority.pem,
    keys,
    requests,
    overrides,
    claims,
    token: ({ header, claims: changes, headerText, claimsText, key = keys.at(-1) as IssuerKey, signature } = {}) => {
      const signingInput = [
        headerText ?? JSON.stringify({ alg: key.algorithm, kid: key.kid, ...header }),
        claimsText ?? JSON.stringify(claims(changes)),
      ]
        .map(encode)
        .join('.');
      return `${signingInput}.${encode(signature?.(signingInput) ?? signWith(key, signingInput))}`;
    },
    rotate: (algorithm) => {
      const key = createIssuerKey(algorithm);
      keys.push(key);
      return key;
    },
    stop,
    start,
  };
};
