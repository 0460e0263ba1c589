/** The demo's broker, collector and proxy in one process, each told where the others really are. */
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { startBroker } from '../../broker/run.ts';
import { startCollector } from '../../collector/run.ts';
import { hostPort } from '../../core/destination.ts';
import { ListenError, listening } from '../../ops/admin.ts';
import type { Log } from '../../ops/log.ts';
import { startProxy } from '../../proxy/run.ts';
import type { BrokerSettings } from '../../settings/broker.ts';
import type { CollectorSettings } from '../../settings/collector.ts';
import type { ProxySettings } from '../../settings/proxy.ts';
import type { Echo } from './echo.ts';
import { withIssuerPort } from './settings.ts';

/** `hostPort` of a socket's address. */
export const at = ({ address, port }: AddressInfo): string => hostPort({ host: address, port });

const freePort = async (host: string): Promise<number> => {
  const server = createServer();
  await listening(server, host, 0);
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
};

const triesMax = 5;

/**
 * The issuer's URL is a setting, so its port must be known before it listens: with `anyPort` a free one is looked for, and another
 * when it has been taken in between.
 */
export const startDemoBroker = async (settings: BrokerSettings, log: Log, anyPort: boolean) => {
  if (!anyPort) return startBroker(settings, { log });
  for (let tries = 1; ; tries += 1) {
    try {
      const port = await freePort(settings.issuer.listen.host);
      return await startBroker(withIssuerPort(settings, port), { log });
    } catch (error) {
      if (!(error instanceof ListenError) || tries === triesMax) throw error;
    }
  }
};

export const startDemoCollector = (settings: CollectorSettings, log: Log, broker: AddressInfo) =>
  startCollector({ ...settings, identity: withBroker(settings.identity, broker) }, { log });

export const startDemoProxy = (settings: ProxySettings, log: Log, peers: { broker: AddressInfo; collector: AddressInfo; echo: Echo }) => {
  const echoPorts: Readonly<Record<number, number>> = { 80: peers.echo.http.port, 443: peers.echo.https.port };
  const resolve = settings.upstream.resolve.map((entry) => ({ ...entry, addressPort: echoPorts[entry.port] ?? entry.addressPort }));
  return startProxy(
    {
      ...settings,
      identity: withBroker(settings.identity, peers.broker),
      collector: { ...settings.collector, address: at(peers.collector) },
      upstream: { ...settings.upstream, resolve },
    },
    { log },
  );
};

const withBroker = (identity: ProxySettings['identity'], broker: AddressInfo): ProxySettings['identity'] => ({
  ...identity,
  broker: { ...identity.broker, address: at(broker) },
});
