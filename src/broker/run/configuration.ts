/**
 * Settings made ready to answer by: everything that a reload replaces, built whole before any of it is put in force. What has
 * not changed is kept, with the keys and tokens it holds.
 */
import { limits } from '../../core/limits.ts';
import { versionOf } from '../../core/version.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import type { Metrics } from '../../ops/metrics.ts';
import type { Authority } from '../../pki/authority.ts';
import type { BrokerSettings } from '../../settings/broker.ts';
import { createAttestation } from '../attest.ts';
import type { ServingCertificate, TokenIssuer } from '../issuer.ts';
import { createProviders } from '../provider.ts';
import { snapshotBytes } from '../../rpc/wire.ts';
import { compileRegistry, type Registry } from '../registry.ts';
import type { Configuration } from '../service.ts';
import { ConfigurationError, readIssuerCertificate, readTrustBundles } from './files.ts';

export interface BuildDeps {
  readonly issuer: Pick<TokenIssuer, 'mint'>;
  /** Of the trust domain: what signs now. */
  readonly authority: () => Authority;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Built {
  readonly settings: BrokerSettings;
  /** Of the settings and of the trust bundles they name. */
  readonly version: string;
  readonly configuration: Configuration;
  /** Undefined: the trust domain's. */
  readonly issuerCertificate: ServingCertificate | undefined;
}

/** Throws ConfigurationError when a file that the settings name cannot be used. */
export const buildConfiguration = (
  settings: BrokerSettings,
  { issuer, authority, metrics, clock, log }: BuildDeps,
  before?: Built,
): Built => {
  const trustBundles = readTrustBundles(settings);
  const issuerCertificate = readIssuerCertificate(settings);
  const isSameAttestors = before !== undefined && versionOf(before.settings.attestors) === versionOf(settings.attestors);
  const attestation = isSameAttestors
    ? before.configuration.attestation
    : createAttestation(settings.attestors, {
        clock,
        log,
        // Those that succeed are counted by the service, which may still refuse them.
        onAttempt: (attestor, result) => result !== 'ok' && metrics.add('outrider_broker_attestations_total', { attestor, result }),
      });
  const providers = createProviders(
    settings.providers,
    {
      issuer,
      authority,
      clock,
      log,
      env: process.env,
      onRequest: (provider, result, seconds) => {
        metrics.add('outrider_broker_provider_requests_total', { provider, result });
        metrics.observe('outrider_broker_provider_duration_seconds', { provider }, seconds);
      },
    },
    before?.configuration.providers,
  );
  const registry = compileRegistry(settings, trustBundles);
  refuseTooLong(registry);
  return {
    settings,
    version: versionOf({ settings, trustBundles: [...trustBundles] }),
    configuration: {
      attestation,
      attestors: new Set(settings.attestors.map(({ name }) => name)),
      registry,
      providers,
      svidLifetimeMs: settings.svidLifetimeMs,
    },
    issuerCertificate,
  };
};

/**
 * What no proxy could be sent must not be in force: proxies would go on with what they have, rules that were taken away included. Of a
 * pod that is several workloads at once each is looked at alone.
 */
const refuseTooLong = (registry: Registry): void => {
  const longest = registry.longest((target) => snapshotBytes({ configurationVersion: '', targets: [target] }).length);
  if (longest === undefined || longest.bytes <= limits.snapshotBytesMax) return;
  throw new ConfigurationError([
    `workload ${longest.workload}: the targets that its rules name make ${longest.bytes} bytes, and a proxy can be sent ${limits.snapshotBytesMax}: ` +
      'name fewer targets in its rules, or fewer certificates in their caFile',
  ]);
};

/** Migration debt, as it is in force. */
export const countStaticCredentials = ({ settings, configuration }: Built, metrics: Metrics): void => {
  metrics.reset('outrider_broker_static_credentials');
  for (const { kind, name } of settings.providers) {
    if (kind !== 'static_file') continue;
    metrics.set('outrider_broker_static_credentials', { provider: name }, configuration.registry.targetsPerProvider.get(name) ?? 0);
  }
};
