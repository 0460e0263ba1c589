/** What the demo has in place of a cluster and of a service: the cluster issuer and the echo target, with the files roles read. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Clock } from '../../ops/clock.ts';
import { type ClusterIssuer, startClusterIssuer } from './cluster-issuer.ts';
import { type Echo, startEcho } from './echo.ts';
import { type DemoSettings, projectedTokens } from './settings.ts';

export interface StandInOptions {
  readonly anyPort: boolean;
  readonly tokenLifetimeMs: number;
  readonly clock: Clock;
}

const publish = (file: string | undefined, pem: string): void => {
  if (file === undefined) return;
  mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
  writeFileSync(file, pem);
};

/** The cluster's issuer is where the first attestor looks for it. */
export const startIssuer = async (settings: DemoSettings, { anyPort, tokenLifetimeMs, clock }: StandInOptions): Promise<ClusterIssuer> => {
  const [attestor] = settings.broker.attestors;
  if (attestor === undefined) throw new Error('config/demo/broker.yaml has no attestor');
  const { hostname, port } = new URL(attestor.issuer);
  const issuer = await startClusterIssuer({
    host: hostname,
    port: anyPort ? 0 : Number(port),
    audience: attestor.audience,
    tokens: projectedTokens(settings),
    tokenLifetimeMs,
    clock,
  });
  publish(attestor.caFile, issuer.caPem);
  return issuer;
};

/** The echo target is where the proxy's `resolve` entries lead: the HTTPS port stands for 443, the HTTP port for 80. */
export const startTarget = async ({ proxy }: DemoSettings, { anyPort, clock }: StandInOptions): Promise<Echo> => {
  const entry = (port: number) => {
    const found = proxy.upstream.resolve.find((candidate) => candidate.port === port);
    if (found === undefined) throw new Error(`config/demo/proxy.yaml resolves no port ${port}`);
    return found;
  };
  const [http, https] = [entry(80), entry(443)];
  const echo = await startEcho({
    host: https.address,
    httpPort: anyPort ? 0 : http.addressPort,
    httpsPort: anyPort ? 0 : https.addressPort,
    name: https.host,
    clock,
  });
  publish(proxy.upstream.caFiles[0], echo.caPem);
  return echo;
};
