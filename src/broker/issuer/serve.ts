/**
 * Serves the issuer's discovery document and JWKS over TLS, below the path of its URL: public keys only, for any relying party
 * that asks. Reads nothing from a request but method and path.
 */
import { createServer, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { limits } from '../../core/limits.ts';
import type { Secret } from '../../core/secret.ts';
import { listening } from '../../ops/admin.ts';
import type { IssuerSettings, TokenIssuer } from '../issuer.ts';
import { keysCacheMs } from './schedule.ts';

export interface ServingCertificate {
  /** Leaf first. */
  readonly certificateChainPem: string;
  readonly privateKeyPem: Secret;
}

export interface IssuerServerOptions {
  readonly issuer: Pick<TokenIssuer, 'discovery' | 'jwks'>;
  readonly settings: Pick<IssuerSettings, 'url' | 'listen' | 'keyOverlapMs' | 'keyLifetimeMs'>;
  readonly certificate: ServingCertificate;
}

export interface IssuerServer {
  readonly address: AddressInfo;
  /** For handshakes from now on. Throws when key and certificate do not belong together; the one before then stays. */
  readonly setCertificate: (certificate: ServingCertificate) => void;
  readonly close: () => Promise<void>;
}

export const startIssuerServer = async ({ issuer, settings, certificate }: IssuerServerOptions): Promise<IssuerServer> => {
  const base = new URL(settings.url).pathname.replace(/\/$/, '');
  const documents = new Map<string, { readonly type: string; readonly body: () => object }>([
    [`${base}/.well-known/openid-configuration`, { type: 'application/json', body: issuer.discovery }],
    [`${base}/jwks`, { type: 'application/jwk-set+json', body: issuer.jwks }],
  ]);
  const cacheMs = keysCacheMs(settings, limits.mintedTokenLifetimeMaxMs, limits.publishedKeysCacheMaxMs);
  const cacheControl = `public, max-age=${Math.floor(cacheMs / 1000)}`;

  const server = createServer({ ...bounds, ...secureOptions(certificate) }, (request, response) => {
    request.resume();
    const answer = (status: number, headers: Record<string, string>, body: string): void => {
      response.writeHead(status, { 'content-length': Buffer.byteLength(body), ...headers });
      response.end(body);
    };
    const refusal = { 'content-type': 'text/plain; charset=utf-8', 'cache-control': 'no-store' };
    const document = documents.get((request.url ?? '').split('?', 1)[0] as string);
    if (document === undefined) return answer(404, refusal, 'there is the discovery document and the key set\n');
    if (request.method !== 'GET' && request.method !== 'HEAD')
      return answer(405, { ...refusal, allow: 'GET, HEAD' }, 'only GET and HEAD\n');
    return answer(200, { 'content-type': document.type, 'cache-control': cacheControl }, JSON.stringify(document.body()));
  });
  server.maxConnections = limits.issuerConnectionsMax;
  await listening(server, settings.listen.host, settings.listen.port);
  return {
    address: server.address() as AddressInfo,
    setCertificate: (next) => server.setSecureContext(secureOptions(next)),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
};

const bounds: ServerOptions = {
  maxHeaderSize: 8 * 1024,
  handshakeTimeout: limits.clientHandshakeTimeoutMs,
  headersTimeout: limits.requestHeadersTimeoutMs,
  requestTimeout: 30_000,
  keepAliveTimeout: 5_000,
};

const secureOptions = ({ certificateChainPem, privateKeyPem }: ServingCertificate) => ({
  cert: certificateChainPem,
  key: privateKeyPem.reveal(),
  minVersion: 'TLSv1.2' as const,
});
