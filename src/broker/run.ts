/**
 * Starts a broker: opens each part in the order in which they need each other, closes them in reverse, and swaps what may change
 * while it runs. The only file of the role that knows all the others.
 */
import type { AddressInfo } from 'node:net';
import { type Readiness, startAdmin } from '../ops/admin.ts';
import { type Clock, systemClock } from '../ops/clock.ts';
import { type Closer, type Running, startParts } from '../ops/drain.ts';
import { createLog, type Log } from '../ops/log.ts';
import { createMetrics, type Metrics } from '../ops/metrics.ts';
import { type RpcServer, type ServerIdentity, startBrokerServer } from '../rpc/server.ts';
import type { BrokerSettings } from '../settings/broker.ts';
import { issueServingIdentity, renewServingIdentity, type ServingIdentity } from './authority.ts';
import { type IssuerServer, startIssuerServer } from './issuer.ts';
import { buildConfiguration, type Built, countStaticCredentials } from './run/configuration.ts';
import { startReloading } from './run/reload.ts';
import { openState, type State } from './run/state.ts';
import { type BrokerService, createBrokerService } from './service.ts';

export interface RunningBroker extends Running {
  readonly grpc: AddressInfo;
  readonly issuer: AddressInfo;
  readonly admin: AddressInfo;
  /**
   * Puts other settings in force, whole, or throws an error that names every problem and leaves the old ones. Where the broker
   * listens, keeps its state and what it is called need a restart.
   */
  readonly apply: (settings: BrokerSettings) => void;
}

export interface BrokerRunOptions {
  readonly clock?: Clock;
  readonly log?: Log;
  /** The configuration file, to be reloaded when it changes. */
  readonly reloadFrom?: string;
  /** Ends a start that waits for the keys that brokers share; a broker that has started is stopped by `close`. */
  readonly stopRequested?: Promise<void>;
}

/** Ready to answer when the promise resolves. */
export const startBroker = async (settings: BrokerSettings, options: BrokerRunOptions = {}): Promise<RunningBroker> => {
  const { clock = systemClock, log = createLog({ role: 'broker', level: settings.log.level }), reloadFrom, stopRequested } = options;
  const context = { clock, log, reloadFrom, stopRequested, metrics: createMetrics('broker') };
  return startParts(log, (closers) => open(settings, { ...context, closers }));
};

interface Context {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly reloadFrom: string | undefined;
  readonly stopRequested: Promise<void> | undefined;
  /** Closed in reverse. */
  readonly closers: Closer[];
}

const open = async (settings: BrokerSettings, context: Context): Promise<Omit<RunningBroker, 'close'>> => {
  const { clock, log, metrics, reloadFrom, closers } = context;
  let opened: Opened | undefined = undefined;
  let isServing = false;
  // First of all, so that whoever looks can tell waiting from being broken: keys that are shared may take a while to come.
  const readiness: Readiness = () => {
    if (opened === undefined) return ['the keys of the trust domain'];
    const { issuer, trustDomain } = opened;
    return [
      ...(issuer.keyCount() > 0 ? [] : ['a token-signing key']),
      ...(trustDomain.authority().notAfterMs > clock.now() ? [] : ['an authority of the trust domain that has not expired']),
      ...(isServing ? [] : ['the gRPC server']),
    ];
  };
  const admin = await startAdmin({ ...settings.admin, metrics: withGauges(context, () => opened), readiness });
  closers.push({ name: 'admin', close: admin.close });

  const state = await openState(settings, context);
  const { store, trustDomain, issuer } = state;

  const deps = { issuer, authority: trustDomain.authority, metrics, clock, log };
  const build = (next: BrokerSettings, before?: Built): Built => buildConfiguration(next, deps, before);
  const built = build(settings);
  countStaticCredentials(built, metrics);
  const service = createBrokerService(built.configuration, { trustDomain, store, metrics, clock, log });
  closers.push({ name: 'service', close: service.close });
  opened = { ...state, service };

  const { rpc, issuerServer } = await openServers(built, { ...context, ...state, service });
  closers.push({
    name: 'readiness',
    close: () => {
      isServing = false;
      rpc.setServing(false);
    },
  });
  const use = (next: Built): void => {
    if (next.issuerCertificate) issuerServer.setCertificate(next.issuerCertificate);
    service.apply(next.configuration);
    countStaticCredentials(next, metrics);
  };
  const reloading = startReloading({ built, build, use, reloadFrom, metrics, clock, log });
  closers.push({ name: 'reloading', close: reloading.close });

  rpc.setServing(true);
  isServing = true;
  log.info({ grpc: rpc.address, issuer: issuerServer.address, admin: admin.address }, 'broker ready');
  return { grpc: rpc.address, issuer: issuerServer.address, admin: admin.address, apply: reloading.apply };
};

interface Opened extends State {
  readonly service: BrokerService;
}

const openServers = async (
  { settings, issuerCertificate }: Built,
  context: Context & Opened,
): Promise<{ rpc: RpcServer; issuerServer: IssuerServer }> => {
  const { trustDomain, onTrustChange, issuer, service, metrics, clock, log, closers } = context;
  const serving = { trustDomain, hosts: hostsOf(settings), clock };
  const first = issueServingIdentity(serving);
  const issuerServer = await startIssuerServer({ issuer, settings: settings.issuer, certificate: issuerCertificate ?? first });
  closers.push({ name: 'issuer', close: issuerServer.close });

  const identityOf = ({ certificateChainPem, key }: ServingIdentity): ServerIdentity => ({
    certificateChainPem,
    privateKey: key.privateKey,
    clientCaPem: trustDomain.bundlePem(),
  });
  const rpc = await startBrokerServer({
    listen: settings.listen,
    identity: identityOf(first),
    handlers: service,
    onCall: (method, code, seconds) => {
      metrics.add('outrider_broker_rpc_requests_total', { method, code });
      // A stream lasts as long as its proxy: its duration says nothing of the broker.
      if (method !== 'Watch') metrics.observe('outrider_broker_rpc_duration_seconds', { method }, seconds);
    },
    log,
    clock,
  });
  closers.push({ name: 'gRPC server', close: () => rpc.close() });

  const renewal = renewServingIdentity({ ...serving, current: first, log }, (identity) => {
    rpc.setIdentity(identityOf(identity));
    if (issuerCertificate === undefined) issuerServer.setCertificate(identity);
  });
  closers.push({ name: 'serving certificate', close: renewal.close });
  onTrustChange(renewal.renew);
  return { rpc, issuerServer };
};

/** What the broker is called by: where it listens, the host of its issuer URL, and the loopback names. */
const hostsOf = ({ listen, issuer }: BrokerSettings): readonly string[] => {
  const urlHost = new URL(issuer.url).hostname.replace(/^\[(.*)\]$/, '$1');
  const hosts = [listen.host, issuer.listen.host, urlHost, 'localhost', '127.0.0.1', '::1'];
  return [...new Set(hosts)].filter((host) => host !== '0.0.0.0' && host !== '::');
};

/** Gauges that mirror something are set when they are asked for, so that they are never behind. */
const withGauges = ({ metrics, clock, log }: Context, opened: () => Opened | undefined): Metrics => ({
  ...metrics,
  expose: async () => {
    const parts = opened();
    if (parts !== undefined) await setGauges(metrics, parts, { clock, log });
    return metrics.expose();
  },
});

const setGauges = async (
  metrics: Metrics,
  { store, trustDomain, issuer, service }: Opened,
  { clock, log }: Pick<Context, 'clock' | 'log'>,
): Promise<void> => {
  metrics.set('outrider_broker_watchers', {}, service.watcherCount());
  metrics.set('outrider_broker_signing_keys', {}, issuer.keyCount());
  metrics.set('outrider_broker_signing_key_rotation_timestamp_seconds', {}, issuer.nextRotationMs() / 1000);
  metrics.set('outrider_broker_authority_expiry_timestamp_seconds', {}, trustDomain.authority().notAfterMs / 1000);
  try {
    metrics.set('outrider_broker_leases', {}, await store.countLeases(clock.now()));
  } catch (error) {
    log.warn({ error }, 'leases could not be counted');
  }
};
