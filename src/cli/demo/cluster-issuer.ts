/**
 * Stands in for a Kubernetes API server and its kubelet: an OIDC issuer over HTTPS (discovery and JWKS, as the API server serves
 * them) that writes projected service-account tokens into files and rotates them as the kubelet does. The demo and tests only:
 * whoever can read this process' memory can be any workload.
 */
import { randomUUID } from 'node:crypto';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { dirname } from 'node:path';
import { calculateJwkThumbprint, type CryptoKey, exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose';
import { hostPort } from '../../core/destination.ts';
import { limits } from '../../core/limits.ts';
import { listening } from '../../ops/admin.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Running } from '../../ops/drain.ts';
import { createServing } from './serving.ts';

/** The kubelet's schedule: a projected token is replaced when four fifths of its life are over. */
const rotateAt = 0.8;
/** Rounds of tokens signed by one key before the next takes over, so that key rotation can be watched too. */
const roundsPerKey = 3;

export interface ClusterIssuerOptions {
  readonly host: string;
  readonly port: number;
  readonly audience: string;
  readonly tokens: readonly ProjectedToken[];
  readonly tokenLifetimeMs: number;
  readonly clock: Clock;
}

/** One pod's token and where the kubelet would project it. */
export interface ProjectedToken {
  readonly file: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export interface ClusterIssuer extends Running {
  readonly url: string;
  readonly address: AddressInfo;
  /** What its HTTPS certificate chains to. */
  readonly caPem: string;
}

interface SigningKey {
  readonly id: string;
  readonly privateKey: CryptoKey;
  readonly publicJwk: JWK;
  /** When the last token it signed ends: it is published until then. */
  lastExpiryMs: number;
}

const newKey = async (): Promise<SigningKey> => {
  const { privateKey, publicKey } = await generateKeyPair('RS256', { modulusLength: 2048 });
  const jwk = await exportJWK(publicKey);
  const id = await calculateJwkThumbprint(jwk);
  return { id, privateKey, publicJwk: { ...jwk, kid: id, alg: 'RS256', use: 'sig' }, lastExpiryMs: 0 };
};

/** A reader sees the old file or the new one, never half of one. */
const writeWhole = (file: string, text: string): void => {
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  const draft = `${file}.${process.pid}.new`;
  writeFileSync(draft, text, { mode: 0o600 });
  renameSync(draft, file);
};

/** Claims that say which pod the token is for, as the API server binds them (KEP-1205, and the node by KEP-4193). */
const podClaims = ({ namespace, serviceAccount }: ProjectedToken) => ({
  namespace,
  serviceaccount: { name: serviceAccount, uid: randomUUID() },
  pod: { name: `${serviceAccount}-${randomUUID().slice(0, 5)}`, uid: randomUUID() },
  node: { name: 'demo-node', uid: randomUUID() },
});

const discovery = (issuer: string) => ({
  issuer,
  jwks_uri: `${issuer}/openid/v1/jwks`,
  response_types_supported: ['id_token'],
  subject_types_supported: ['public'],
  id_token_signing_alg_values_supported: ['RS256'],
});

const serve = (cert: string, key: string, document: (path: string) => object | undefined): Server =>
  createServer({ cert, key, maxHeaderSize: 8 * 1024, headersTimeout: limits.requestHeadersTimeoutMs }, (request, response) => {
    request.resume();
    const found = request.method === 'GET' ? document(request.url ?? '') : undefined;
    response.writeHead(found === undefined ? 404 : 200, { 'content-type': 'application/json' });
    response.end(found === undefined ? '{}\n' : `${JSON.stringify(found)}\n`);
  });

export const startClusterIssuer = async (options: ClusterIssuerOptions): Promise<ClusterIssuer> => {
  const { host, port, clock, tokenLifetimeMs } = options;
  const { caPem, certPem, keyPem } = createServing('Outrider demo cluster', host, clock);
  let keys: readonly SigningKey[] = [await newKey()];
  let issuer = '';
  const server = serve(certPem, keyPem, (path) => {
    if (path === '/.well-known/openid-configuration') return discovery(issuer);
    return path === '/openid/v1/jwks' ? { keys: keys.map((key) => key.publicJwk) } : undefined;
  });
  await listening(server, host, port);
  const address = server.address() as AddressInfo;
  issuer = `https://${hostPort({ host, port: address.port })}`;

  const pods = options.tokens.map((token) => ({ ...token, kubernetes: podClaims(token) }));
  const project = async (pod: (typeof pods)[number], key: SigningKey, issuedAt: number): Promise<void> => {
    const token = await new SignJWT({ 'kubernetes.io': pod.kubernetes })
      .setProtectedHeader({ alg: 'RS256', kid: key.id })
      .setIssuer(issuer)
      .setAudience([options.audience])
      .setSubject(`system:serviceaccount:${pod.namespace}:${pod.serviceAccount}`)
      .setIssuedAt(issuedAt)
      .setNotBefore(issuedAt)
      .setExpirationTime(issuedAt + Math.ceil(tokenLifetimeMs / 1000))
      .setJti(randomUUID())
      .sign(key.privateKey);
    writeWhole(pod.file, token);
  };

  let rounds = 0;
  const projectAll = async (): Promise<void> => {
    const nowMs = clock.now();
    if (rounds > 0 && rounds % roundsPerKey === 0) keys = [await newKey(), ...keys.filter((key) => key.lastExpiryMs > nowMs)];
    rounds += 1;
    const key = keys[0] as SigningKey;
    key.lastExpiryMs = nowMs + tokenLifetimeMs + 1000;
    await Promise.all(pods.map((pod) => project(pod, key, Math.floor(nowMs / 1000))));
  };

  let cancel = (): void => {};
  let isClosed = false;
  /** A failure to write ends the process, like any unhandled rejection: a demo without tokens would only puzzle. */
  const rotate = async (): Promise<void> => {
    await projectAll();
    if (!isClosed) cancel = clock.after(tokenLifetimeMs * rotateAt, () => void rotate());
  };
  await rotate();

  return {
    url: issuer,
    address,
    caPem,
    close: () => {
      isClosed = true;
      cancel();
      return new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
};
