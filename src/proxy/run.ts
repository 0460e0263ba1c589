/** The proxy role: opens the parts, joins them, closes them in reverse order. No logic of its own. */
import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { Fault } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import type { DialAddress } from '../net/dial.ts';
import { isOwnListener, machineAddresses } from '../net/guard.ts';
import { startAdmin } from '../ops/admin.ts';
import { type Clock, systemClock } from '../ops/clock.ts';
import { type Closer, closeAll, type Running } from '../ops/drain.ts';
import { createLog, type Log } from '../ops/log.ts';
import { createMetrics, type Metrics } from '../ops/metrics.ts';
import { pemOf } from '../pki/pem.ts';
import { type SvidSource, startSvidSource } from '../rpc/svid-source.ts';
import type { ProxySettings } from '../settings/proxy.ts';
import { type BrokerLink, startBrokerLink } from './broker-link.ts';
import { createEventLog } from './event.ts';
import { createGrantCache, type GrantCache } from './grant/cache.ts';
import { type Listener, startListener } from './listener.ts';
import { createInterception, publicRoots } from './listener/interception.ts';
import { startTransparentListener, type TransparentListener } from './listener/transparent.ts';
import { createPipeline, reportFault } from './pipeline.ts';
import { type RoutingTable, routingTable } from './route.ts';
import { watchLoad } from './run/load.ts';
import { openWayOut } from './run/way-out.ts';
import { createSteeredHandler } from './transparent.ts';
import { createTunnelHandler } from './tunnel.ts';

export interface RunningProxy extends Running {
  readonly listen: AddressInfo;
  /** Where steering rules lead; undefined without transparent mode. */
  readonly transparent: AddressInfo | undefined;
  /** Reverse routes, as they are written. */
  readonly routes: readonly AddressInfo[];
  readonly admin: AddressInfo;
  /** Resolves when a request now would be treated correctly. */
  readonly ready: () => Promise<void>;
  /** What is still missing for that, as /readyz says it. */
  readonly missing: () => readonly string[];
}

export interface ProxyOptions {
  readonly clock?: Clock;
  readonly log?: Log;
  readonly random?: () => number;
  /** How long connections are still taken after the end was announced; limits.ts unless a test says otherwise. */
  readonly drainNoticeMs?: number;
}

export const startProxy = async (settings: ProxySettings, options: ProxyOptions = {}): Promise<RunningProxy> => {
  const { clock = systemClock, log = createLog({ role: 'proxy', level: settings.log.level }), random = Math.random } = options;
  const metrics = createMetrics('proxy');
  const bootId = randomUUID();
  const closers: Closer[] = [];
  const opened = <T>(name: string, part: T, close: (part: T) => Promise<void> | void): T => {
    closers.push({ name, close: () => close(part) });
    return part;
  };
  let isDraining = false;
  const load = opened(
    'load',
    watchLoad(metrics, log, () => listener?.makeRoom()),
    (part) => part.close(),
  );

  const eventReserve = Math.min(limits.eventQueueReserved, Math.floor(settings.eventQueueMax / 5));

  const svids = opened('identity', startSvids(settings, { clock, log, random, metrics }), (part) => part.close());
  const events = opened(
    'event log',
    createEventLog({
      audit: settings.audit,
      queueMax: settings.eventQueueMax,
      reserved: eventReserve,
      collector: settings.collector,
      svids,
      metrics,
      clock,
      log,
      bootId,
    }),
    async (part) => {
      const unstored = await part.flush(limits.eventFlushTimeoutMs);
      if (unstored > 0) log.error({ events: unstored }, 'access events were not stored before shutdown');
      part.close();
    },
  );

  const roots = publicRoots(log);
  const interception = createInterception({
    ...settings.interception,
    id: bootId.slice(0, 8),
    roots,
    clock,
    log,
    onMint: () => metrics.add('outrider_proxy_leaves_minted_total', {}),
  });

  const routing = createRouting();
  const grants: GrantCache = createGrantCache({
    fetch: ({ target, configurationVersion }, rejectedGrantId) => link.getGrant(target, configurationVersion, rejectedGrantId),
    clock,
    random,
    onLookup: (result) => metrics.add('outrider_proxy_grant_cache_requests_total', { result }),
    onRefresh: (result, target) =>
      metrics.add('outrider_proxy_grant_refreshes_total', { target, result: result === 'ok' ? 'ok' : result.code }),
    onChange: (kept) => {
      metrics.set('outrider_proxy_grants', {}, kept.length);
      metrics.reset('outrider_proxy_grant_expiry_timestamp_seconds');
      for (const { target, expiresAtMs } of kept)
        metrics.set('outrider_proxy_grant_expiry_timestamp_seconds', { target }, expiresAtMs / 1000);
    },
  });
  const link: BrokerLink = opened(
    'broker link',
    startBrokerLink({
      broker: settings.identity.broker,
      svids,
      onSnapshot: (snapshot) => {
        const table = routingTable(snapshot);
        interception.permit([...new Set(snapshot.targets.flatMap(({ hosts }) => hosts))]);
        grants.keepOnly(snapshot.configurationVersion);
        metrics.set('outrider_proxy_targets', {}, snapshot.targets.length);
        routing.use(table);
        log.info({ targets: snapshot.targets.length, configurationVersion: snapshot.configurationVersion }, 'targets received');
      },
      onRevocation: ({ target, grantIds }) => grants.revoke(target, grantIds),
      clock,
      random,
      metrics,
      log,
    }),
    (part) => part.close(),
  );

  let listener: Listener | undefined;
  let transparent: TransparentListener | undefined;
  let admin: { readonly address: AddressInfo } | undefined;
  const isOwn = (candidate: DialAddress): boolean =>
    isOwnListener(
      candidate,
      [listener?.address, ...(listener?.routes ?? []), ...(transparent?.addresses ?? []), admin?.address],
      machineAddresses,
    );
  const { dialer, outbound } = openWayOut(
    settings,
    roots.map(({ der }) => pemOf(der)),
    isOwn,
  );
  opened('outbound', outbound, (part) => part.close());

  const shared = {
    table: () => routing.table() ?? raise(svids.fault() ?? link.fault() ?? new Fault('not_ready')),
    routePolicy: { onUnmatched: settings.onUnmatched },
    unmatchedPrivateAllowed: settings.upstream.unmatchedPrivateAddresses === 'allowed',
    events,
    metrics,
    clock,
    log,
  } as const;
  const pipeline = createPipeline({
    ...shared,
    identity: () => ({ identity: svids.current(), fault: svids.fault() }),
    grants,
    outbound,
    buffers: load.buffers,
  });

  const refused = (fault: Fault): void => {
    reportFault(metrics, fault, { log });
    metrics.add('outrider_proxy_requests_total', { target: '', decision: 'fault', code_class: `${Math.floor(fault.row.status / 100)}xx` });
  };

  try {
    listener = await startListener({
      ...settings.listen,
      routes: settings.routes,
      clock,
      handlers: {
        request: pipeline,
        tunnel: createTunnelHandler({ ...shared, interception, dialer }),
        refused,
      },
      onConnections: (kind, delta) => metrics.add('outrider_proxy_connections', { kind }, delta),
      connectionsMax: load.connectionsMax,
      isMemoryShort: load.isMemoryShort,
      onOverload: load.onOverload,
      ...(options.drainNoticeMs === undefined ? {} : { noticeMs: options.drainNoticeMs }),
    });
    opened('listener', listener, (part) => part.drain(limits.requestDrainMs));
    if (settings.transparent) {
      const handler = createSteeredHandler({ ...shared, interception, dialer });
      transparent = await startTransparentListener({ ...settings.transparent, clock, listener, handler, refused });
      opened('transparent listener', transparent, (part) => part.close());
    }
    const missing = (): string[] => [
      ...(isDraining ? ['its last requests (draining)'] : []),
      ...(svids.current() ? [] : [`an identity (${(svids.fault() ?? new Fault('not_ready')).code})`]),
      ...(routing.table() ? [] : [`targets from the broker${link.fault() ? ` (${link.fault()?.code})` : ''}`]),
      ...(settings.audit === 'best_effort' || events.waiting() < settings.eventQueueMax - eventReserve
        ? []
        : ['room in the event queue (the collector is away)']),
    ];
    const adminServer = await startAdmin({ ...settings.admin, metrics, readiness: missing });
    admin = adminServer;
    // Closed last: it says until the end that this proxy is draining.
    closers.unshift({ name: 'admin', close: adminServer.close });
    return {
      listen: listener.address,
      transparent: transparent?.addresses[0],
      routes: listener.routes,
      admin: admin.address,
      ready: async () => {
        await svids.ready();
        await routing.ready;
      },
      missing,
      close: () => {
        isDraining = true;
        return closeAll(closers, limits.drainTimeoutMs, log);
      },
    };
  } catch (error) {
    await closeAll(closers, limits.eventFlushTimeoutMs, log);
    throw error;
  }
};

const raise = (fault: Fault): never => {
  throw fault;
};

/** The routing table of this moment, and a promise of the first. */
const createRouting = () => {
  let table: RoutingTable | undefined;
  const { promise: ready, resolve } = Promise.withResolvers<void>();
  return {
    table: () => table,
    ready,
    use: (next: RoutingTable): void => {
      table = next;
      resolve();
    },
  };
};

interface SvidParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
  readonly metrics: Metrics;
}

const startSvids = (settings: ProxySettings, { clock, log, random, metrics }: SvidParts): SvidSource =>
  startSvidSource({
    settings: settings.identity,
    clock,
    log,
    random,
    onAttempt: (result, svid) => {
      metrics.add('outrider_proxy_svid_renewals_total', { result });
      metrics.add('outrider_proxy_broker_calls_total', { method: 'Attest', code: result });
      if (svid) metrics.set('outrider_proxy_svid_expiry_timestamp_seconds', {}, svid.expiresAtMs / 1000);
    },
  });
