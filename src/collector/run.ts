/**
 * The collector role: admin → event store → gRPC → identity. It has its serving certificate as every workload has its identity,
 * by attestation at the broker. It listens before it has one, so that a port in use is found at once and the broker may come
 * later: until the first SVID it shows a certificate that nobody trusts, and /readyz says what it waits for.
 */
import assert from 'node:assert/strict';
import type { AddressInfo } from 'node:net';
import { limits } from '../core/limits.ts';
import { parseSpiffeId, spiffeId } from '../core/spiffe-id.ts';
import { startAdmin } from '../ops/admin.ts';
import { type Clock, systemClock } from '../ops/clock.ts';
import { type Closer, type Running, startParts } from '../ops/drain.ts';
import { createLog, type Log } from '../ops/log.ts';
import { createMetrics, type Metrics } from '../ops/metrics.ts';
import { createAuthority } from '../pki/authority.ts';
import { createKeyPair } from '../pki/key.ts';
import { issueSvid } from '../pki/svid.ts';
import { type ServerIdentity, startEventsServer } from '../rpc/server.ts';
import type { Svid } from '../rpc/svid.ts';
import { type SvidSource, startSvidSource } from '../rpc/svid-source.ts';
import type { CollectorSettings } from '../settings/collector.ts';
import type { PeerSettings } from '../settings/identity.ts';
import { countOf, createLedger, type Ledger } from './ledger.ts';
import { createFinder } from './query.ts';
import { createRecorder } from './service.ts';
import { type EventStore, openStore } from './store.ts';

export interface RunningCollector extends Running {
  readonly grpc: AddressInfo;
  readonly admin: AddressInfo;
  /** Resolves when events are taken: with the first SVID. */
  readonly ready: () => Promise<void>;
}

export interface CollectorOptions {
  readonly clock?: Clock;
  readonly log?: Log;
}

/** Resolves when it listens. Throws ListenError or StoreError for an operator. */
export const startCollector = async (settings: CollectorSettings, options: CollectorOptions = {}): Promise<RunningCollector> => {
  const { clock = systemClock, log = createLog({ role: 'collector', level: settings.log.level }) } = options;
  return startParts(log, (closers) => open(settings, clock, log, closers));
};

const open = async (settings: CollectorSettings, clock: Clock, log: Log, closers: Closer[]): Promise<Omit<RunningCollector, 'close'>> => {
  const metrics = createMetrics('collector');
  const parts: { store?: EventStore; svids?: SvidSource } = {};
  const admin = await startAdmin({ ...settings.admin, metrics, readiness: () => missingOf(parts) });
  closers.push({ name: 'admin', close: admin.close });
  log.info({ address: admin.address }, 'metrics, livez and readyz');

  const { store, ledger } = await openRecords(settings, clock, log, metrics, closers);
  parts.store = store;

  const server = await startEventsServer({
    listen: settings.listen,
    identity: untrustedIdentity(settings.identity.broker, clock),
    record: createRecorder({ store, ledger, metrics, clock, log }),
    find: createFinder(settings.store.file),
    onStream: (delta) => metrics.add('outrider_collector_streams', {}, delta),
    log,
    clock,
  });
  closers.push({ name: 'grpc', close: () => server.close() });
  server.setServing(false);
  log.info({ address: server.address }, 'listening');

  const svids = startSvidSource({
    settings: settings.identity,
    clock,
    log,
    onAttempt: (result, svid) => {
      metrics.add('outrider_collector_svid_renewals_total', { result });
      if (svid) metrics.set('outrider_collector_svid_expiry_timestamp_seconds', {}, svid.expiresAtMs / 1000);
    },
  });
  parts.svids = svids;
  closers.push({ name: 'identity', close: () => svids.close() });
  // Open streams stay: only handshakes from now on see a new certificate.
  const serveAs = (svid: Svid): void => {
    server.setIdentity(identityOf(svid));
    server.setServing(true);
  };
  svids.onChange(serveAs);
  const ready = svids.ready().then((svid) => log.info({ spiffeId: svid.spiffeId }, 'taking events'));
  ready.catch(() => {}); // Closed before: whoever asked for ready() hears of it.
  return { grpc: server.address, admin: admin.address, ready: () => ready };
};

/** What /readyz waits for. */
const missingOf = ({ store, svids }: { store?: EventStore; svids?: SvidSource }): string[] => {
  const missing: string[] = [];
  const problem = store?.problem();
  if (store === undefined) missing.push('the event store, which is being read');
  else if (problem !== undefined) missing.push(`the event store, which cannot be written to (${problem})`);
  if (svids?.current() === undefined) {
    const fault = svids?.fault();
    missing.push(`an identity from the broker${fault ? ` (${fault.code})` : ''}`);
  }
  return missing;
};

const openRecords = async (
  settings: CollectorSettings,
  clock: Clock,
  log: Log,
  metrics: Metrics,
  closers: Closer[],
): Promise<{ store: EventStore; ledger: Ledger }> => {
  const ledger = createLedger({
    clock,
    onMissing: (run, holes) => {
      metrics.add('outrider_collector_events_missing_total', {}, countOf(holes));
      log.warn({ ...run, holes: holes.slice(0, 10) }, 'events are missing');
    },
  });
  closers.push({ name: 'ledger', close: ledger.close });
  const store = await openStore({ file: settings.store.file, clock, log, onRecorded: (r) => ledger.restore(r, r.sequence) });
  closers.push({ name: 'store', close: store.close });
  const missing = ledger.restored();
  if (missing > 0) log.warn({ missing, file: settings.store.file }, 'the event store has gaps from before');
  return { store, ledger };
};

const identityOf = ({ certificateChainPem, privateKey, trustBundlePem }: Svid): ServerIdentity => ({
  certificateChainPem,
  privateKey,
  clientCaPem: trustBundlePem,
});

/**
 * An SVID of an authority made for it and forgotten: no peer trusts it, and it trusts no peer. It only says which trust domain
 * callers will have to be of.
 */
const untrustedIdentity = (broker: PeerSettings, clock: Clock): ServerIdentity => {
  const trustDomain = parseSpiffeId(broker.spiffeId)?.trustDomain;
  assert(trustDomain !== undefined, 'settings have a valid SPIFFE ID');
  const key = createKeyPair();
  const times = { nowMs: clock.now(), lifetimeMs: limits.leafLifetimeMs };
  const authority = createAuthority({ commonName: 'collector without an identity yet', key, spiffeTrustDomain: trustDomain, ...times });
  const { pem } = issueSvid(authority, { spiffeId: spiffeId(trustDomain, 'unattested'), publicKey: key.publicKey, ...times });
  return { certificateChainPem: pem, privateKey: key.privateKey, clientCaPem: authority.certificatePem };
};
