/**
 * The injector role: admin → webhook → certificate → trust and census. It listens before it has a certificate, so that a port in use is found
 * at once, and /readyz says what it waits for. Several replicas do the same side by side and need no leader.
 *
 * What its service account may do, and nothing else:
 *   in its own namespace   secrets, the one of serving.selfSigned: get, update; configmaps, the one of trust: get
 *   in the cluster         mutatingwebhookconfigurations, its own: get, patch; namespaces and pods: list;
 *                          configmaps: create, and outrider-trust by name: get, update; events: create
 */
import type { AddressInfo } from 'node:net';
import { limits } from '../core/limits.ts';
import { ApiError, type ApiServer, createApiServer } from '../net/api-server.ts';
import { startAdmin } from '../ops/admin.ts';
import { type Clock, systemClock } from '../ops/clock.ts';
import { type Closer, type Running, startParts } from '../ops/drain.ts';
import { createLog, type Log } from '../ops/log.ts';
import { createMetrics, type Metrics } from '../ops/metrics.ts';
import type { InjectorSettings } from '../settings/injector.ts';
import { showCensus, takeCensus } from './census.ts';
import { keepCertificate } from './certificate.ts';
import { createMutation } from './mutate.ts';
import { createPlaces, type Places } from './places.ts';
import { createRemarks } from './remarks.ts';
import { startWebhookServer } from './server.ts';
import { createTrust, type Trust } from './trust.ts';

export interface RunningInjector extends Running {
  readonly webhook: AddressInfo;
  readonly admin: AddressInfo;
  /** Resolves when the API server can ask it: with a certificate that it trusts. */
  readonly ready: () => Promise<void>;
}

export interface InjectorOptions {
  readonly clock?: Clock;
  readonly log?: Log;
}

/** Resolves when it listens. Throws ListenError for an operator. */
export const startInjector = async (settings: InjectorSettings, options: InjectorOptions = {}): Promise<RunningInjector> => {
  const { clock = systemClock, log = createLog({ role: 'injector', level: settings.log.level }) } = options;
  return startParts(log, (closers) => open(settings, clock, log, closers));
};

const open = async (settings: InjectorSettings, clock: Clock, log: Log, closers: Closer[]): Promise<Omit<RunningInjector, 'close'>> => {
  const { apiServer, caFile, tokenFile } = settings.cluster;
  const { namespace, serving, webhookConfiguration } = settings;
  const metrics = createMetrics('injector');
  const api = createApiServer({ url: apiServer, caFile, tokenFile });
  const failed = (operation: string): void => metrics.add('outrider_injector_api_failures_total', { operation });

  const isSelfSigned = serving.kind === 'selfSigned';
  const state = { hasCertificate: false, isTrusted: !isSelfSigned };
  const missing = (): string[] => [
    ...(state.hasCertificate ? [] : ['a serving certificate']),
    ...(state.isTrusted ? [] : ["the API server's trust in it (caBundle)"]),
  ];
  const readiness = Promise.withResolvers<void>();
  const look = (): void => void (missing().length === 0 && readiness.resolve());

  const admin = await startAdmin({ ...settings.admin, metrics, readiness: missing });
  closers.push({ name: 'admin', close: admin.close });
  log.info({ address: admin.address }, 'metrics, livez and readyz');

  const remarks = createRemarks({ api, clock, log, onFailure: () => failed('event') });
  closers.push({ name: 'remarks', close: remarks.close });
  const trust = createTrust({
    api,
    namespace,
    configMap: settings.trust.configMap,
    webhookConfiguration,
    log,
    onFailure: () => failed('trust'),
  });
  const places = createPlaces({ api, clock, log, onFailure: () => failed('trust') });
  closers.push({ name: 'places', close: places.close });
  const mutate = createMutation({ settings: settings.sidecar, places, trust, remarks, metrics, clock, log });
  closers.push(startCensus({ api, places, trust, metrics, clock, log, failed }));

  const webhook = await startWebhookServer(settings.listen, mutate);
  // Somebody else looks after the configuration: until it has been read, nothing is known, and nobody to be woken.
  if (!isSelfSigned) metrics.set('outrider_injector_webhook_ca_current', {}, Number.NaN);
  const certificate = keepCertificate({
    api,
    settings: serving,
    namespace,
    webhookConfiguration,
    clock,
    log,
    onCertificate: (pair) => {
      webhook.setCertificate(pair);
      metrics.set('outrider_injector_serving_certificate_expiry_timestamp_seconds', {}, pair.notAfterMs / 1_000);
      state.hasCertificate = true;
      look();
    },
    onTrusted: (isCurrent) => {
      metrics.set('outrider_injector_webhook_ca_current', {}, isCurrent ? 1 : 0);
      state.isTrusted ||= isCurrent;
      look();
    },
    onFailure: failed,
  });
  closers.push({ name: 'certificate', close: certificate.close }, { name: 'webhook', close: webhook.close });
  log.info({ address: webhook.address }, 'listening');
  return { webhook: webhook.address, admin: admin.address, ready: () => readiness.promise };
};

interface CensusParts {
  readonly api: Pick<ApiServer, 'pages'>;
  readonly places: Pick<Places, 'know'>;
  readonly trust: Trust;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
  readonly failed: (operation: string) => void;
}

/** Counts, and brings the authorities to where pods were counted; again and again. */
const startCensus = ({ api, places, trust, metrics, clock, log, failed }: CensusParts): Closer => {
  let isClosed = false;
  let cancel = (): void => undefined;
  const round = async (): Promise<void> => {
    try {
      const census = await takeCensus(api);
      showCensus(census, metrics);
      places.know(census.keys());
      metrics.set('outrider_injector_trust_published_namespaces', {}, await trust.reconcile(census.keys()));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      failed('census');
      log.warn({ error }, 'pods could not be counted; it is tried again');
    }
    if (!isClosed) cancel = clock.after(limits.censusPollMs, () => void (counting = round()));
  };
  let counting = round();
  return {
    name: 'census',
    close: () => {
      isClosed = true;
      cancel();
      return counting;
    },
  };
};
