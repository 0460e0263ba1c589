/**
 * The demo's settings: config/demo/*.yaml, read like any operator's, then moved to where this run's files, ports and stand-ins are.
 * Moving is done on the typed settings, so that what the files say is what every check saw.
 */
import { strict as assert } from 'node:assert';
import { join, relative } from 'node:path';
import { parseSpiffeId } from '../../core/spiffe-id.ts';
import type { ListenAddress } from '../../settings/address.ts';
import type { BrokerSettings } from '../../settings/broker.ts';
import type { CollectorSettings } from '../../settings/collector.ts';
import { readSettings } from '../../settings/document.ts';
import type { ProxySettings } from '../../settings/proxy.ts';
import { packagedFile } from '../packaged.ts';
import type { ProjectedToken } from './cluster-issuer.ts';

/** What config/demo/*.yaml says. */
export const defaultDirectory = '.outrider/demo';

export interface DemoSettings {
  readonly broker: BrokerSettings;
  readonly collector: CollectorSettings;
  readonly proxy: ProxySettings;
}

export const readDemoSettings = (): DemoSettings => {
  const read = (role: string) => readSettings(packagedFile(`config/demo/${role}.yaml`));
  const [broker, collector, proxy] = [read('broker'), read('collector'), read('proxy')];
  assert(broker.kind === 'broker' && collector.kind === 'collector' && proxy.kind === 'proxy', 'config/demo names each role');
  return { broker, collector, proxy };
};

/** Every file of the demo below `directory` instead. */
export const inDirectory = ({ broker, collector, proxy }: DemoSettings, directory: string): DemoSettings => {
  const moved = (file: string): string => {
    const below = relative(defaultDirectory, file);
    return below.startsWith('..') ? file : join(directory, below);
  };
  const movedOrNone = (file: string | undefined): string | undefined => (file === undefined ? undefined : moved(file));
  const identity = (of: ProxySettings['identity']) => ({ ...of, brokerCaFile: moved(of.brokerCaFile), tokenFile: moved(of.tokenFile) });
  return {
    broker: {
      ...broker,
      stateDir: moved(broker.stateDir),
      bundleFile: moved(broker.bundleFile),
      attestors: broker.attestors.map((attestor) => ({ ...attestor, caFile: movedOrNone(attestor.caFile) })),
      targets: broker.targets.map((target) => ({ ...target, caFile: movedOrNone(target.caFile) })),
    },
    collector: { ...collector, identity: identity(collector.identity), store: { ...collector.store, file: moved(collector.store.file) } },
    proxy: {
      ...proxy,
      identity: identity(proxy.identity),
      interception: {
        ...proxy.interception,
        bundleFile: moved(proxy.interception.bundleFile),
        trustStoreFile: movedOrNone(proxy.interception.trustStoreFile),
        stateFile: movedOrNone(proxy.interception.stateFile),
      },
      upstream: { ...proxy.upstream, caFiles: proxy.upstream.caFiles.map(moved) },
    },
  };
};

const anyPort = (listen: ListenAddress): ListenAddress => ({ ...listen, port: 0 });

/** Every listener on a free port, except the broker's issuer: its URL, and so its port, is a setting. */
export const onAnyPort = ({ broker, collector, proxy }: DemoSettings): DemoSettings => ({
  broker: { ...broker, listen: anyPort(broker.listen), admin: anyPort(broker.admin) },
  collector: { ...collector, listen: anyPort(collector.listen), admin: anyPort(collector.admin) },
  proxy: { ...proxy, listen: anyPort(proxy.listen), admin: anyPort(proxy.admin) },
});

/** The broker's issuer on `port`. */
export const withIssuerPort = (broker: BrokerSettings, port: number): BrokerSettings => {
  const url = new URL(broker.issuer.url);
  url.port = String(port);
  // URL adds a slash to a bare origin, and an issuer is compared as a string.
  const text = url.href.replace(/\/$/, '');
  return { ...broker, issuer: { ...broker.issuer, url: text, listen: { ...broker.issuer.listen, port } } };
};

/** The broker's attestors ask the cluster issuer at `url`. */
export const attestingBy = (broker: BrokerSettings, url: string): BrokerSettings => ({
  ...broker,
  attestors: broker.attestors.map((attestor) => ({ ...attestor, issuer: url })),
});

/** Workloads whose tokens the stand-in cluster projects: the demo's program, and the collector by the SPIFFE ID the proxy expects. */
export const projectedTokens = ({ collector, proxy }: DemoSettings): readonly ProjectedToken[] => {
  const program = { file: proxy.identity.tokenFile, namespace: 'demo', serviceAccount: 'demo-app' };
  if (collector.identity.tokenFile === program.file) return [program];
  const [, , namespace, , serviceAccount] = parseSpiffeId(proxy.collector.spiffeId)?.path.split('/') ?? [];
  assert(namespace !== undefined && serviceAccount !== undefined, 'the collector is named by namespace and service account');
  return [program, { file: collector.identity.tokenFile, namespace, serviceAccount }];
};
