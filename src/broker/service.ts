/**
 * The broker's answers, in the order verify → decide → issue → record. Transport, TLS and the mapping to messages are rpc/'s;
 * who vouches is attest/'s, who may is the registry's and core/policy's, how a credential is got is a provider's. Never logs a
 * credential: the fingerprint stands for it.
 */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { asFault, Fault } from '../core/fault.ts';
import { type CredentialForm, formOf, type Grant, type PlacedCredential } from '../core/grant.ts';
import { limits } from '../core/limits.ts';
import { type Decision, decideGrant, type Rule } from '../core/policy.ts';
import type { Secret } from '../core/secret.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import type { BrokerHandlers, CallerIdentity } from '../rpc/server.ts';
import type { TargetSettings } from '../settings/broker.ts';
import type { Attestation } from './attest.ts';
import type { TrustDomain } from './authority.ts';
import { identifyingText, type Obtained, type Provider } from './provider.ts';
import type { Registry, View } from './registry.ts';
import { admit, unknownWorkload } from './service/admission.ts';
import { type IssuedIdentity, issuedTo } from './service/attested.ts';
import { createGrantId, isGrantIdOf } from './service/grant-id.ts';
import { createWatchers } from './service/watchers.ts';
import type { LeaseStore } from './store.ts';

/** What a reload replaces, whole. */
export interface Configuration {
  readonly attestation: Attestation;
  /** Names of those there are: what an attestor that is gone has verified is worth nothing any more. */
  readonly attestors: ReadonlySet<string>;
  readonly registry: Registry;
  readonly providers: ReadonlyMap<string, Provider>;
  readonly svidLifetimeMs: number;
}

export interface ServiceDeps {
  readonly trustDomain: TrustDomain;
  readonly store: Pick<LeaseStore, 'saveLease'>;
  readonly metrics: Pick<Metrics, 'add'>;
  readonly clock: Clock;
  readonly log: Log;
}

export interface BrokerService extends BrokerHandlers {
  /** In force for everything decided from now on. Watchers whose view changed are told: the first of them before it returns, thousands in turns. */
  readonly apply: (configuration: Configuration) => void;
  readonly watcherCount: () => number;
  readonly close: () => void;
}

interface Decided {
  readonly issued: IssuedIdentity;
  readonly target: TargetSettings;
  readonly view: View;
  readonly rules: readonly Rule[];
  readonly decision: Decision;
  readonly providers: ReadonlyMap<string, Provider>;
  /** Until when the identity matches the same workloads. */
  readonly untilMs: number;
}

/** How often a grant is begun again because the configuration changed while its credentials were fetched. */
const attemptsMax = 3;

export const createBrokerService = (first: Configuration, { trustDomain, store, metrics, clock, log }: ServiceDeps): BrokerService => {
  let current = first;
  const watchers = createWatchers(log);
  /** Equal credentials have equal ones at all brokers of the trust domain, which mean nothing to anyone who is none of them. */
  const fingerprintOf = (form: CredentialForm, value: Secret): string =>
    createHmac('sha256', trustDomain.derivedKeys('fingerprints')[0])
      .update(identifyingText(form, value.reveal()))
      .digest('hex')
      .slice(0, 32);

  // Attest ----------------------------------------------------------------------------------------------------------

  const attest: BrokerHandlers['attest'] = async (evidence, certificateRequest) => {
    const attested = await current.attestation.attest(evidence);
    const count = (result: string): void => metrics.add('outrider_broker_attestations_total', { attestor: attested.attestor, result });
    try {
      const answer = admit(attested, certificateRequest, current, { trustDomain, clock, log });
      count('ok');
      return answer;
    } catch (thrown) {
      const fault = asFault(thrown);
      count(fault.code);
      log.warn({ error: fault, attestor: attested.attestor, attributes: attested.attributes }, 'workload refused');
      throw fault;
    }
  };

  // GetGrant --------------------------------------------------------------------------------------------------------

  const verify = (caller: CallerIdentity): IssuedIdentity => {
    const issued = issuedTo(caller, clock.now());
    if (current.attestors.has(issued.identity.attestor)) return issued;
    throw new Fault('identity_refused', { detail: 'What attested it is no longer in the configuration.' });
  };

  const decide = (issued: IssuedIdentity, targetName: string): Decided => {
    const { registry, providers } = current;
    const { workloads, untilMs } = registry.match(issued.identity, clock.now());
    if (workloads.length === 0) throw unknownWorkload(issued.identity);
    const target = registry.target(targetName);
    if (target === undefined) throw new Fault('target_unknown');
    const view = registry.viewOf(workloads);
    const rules = view.rulesFor(targetName);
    const decision = decideGrant(rules, issued.spiffeId, targetName);
    if (decision.verdict !== 'allow') throw new Fault('policy_denied', { decision });
    return { issued, target, view, rules, decision, providers, untilMs };
  };

  /** All placements at once; a provider that serves two of them is asked once. */
  const issue = async ({ issued, target, providers }: Decided, fresh: boolean): Promise<readonly PlacedCredential[]> => {
    const asked = new Map<string, Promise<Obtained>>();
    const obtain = (provider: Provider, form: CredentialForm): Promise<Obtained> => {
      const key = `${form} ${provider.name}`;
      const obtained = asked.get(key) ?? provider.obtain({ workload: issued.spiffeId, target: target.name, form, ...(fresh && { fresh }) });
      asked.set(key, obtained);
      return obtained;
    };
    return Promise.all(
      target.credentials.map(async ({ provider: name, placement }) => {
        const provider = providers.get(name);
        assert(provider, `target ${target.name} names a provider that is there`);
        const form = formOf(placement);
        const { value, expiresAtMs } = await obtain(provider, form);
        return { placement, value, providerKind: provider.kind, provider: name, fingerprint: fingerprintOf(form, value), expiresAtMs };
      }),
    );
  };

  /** A grant that cannot be recorded is not given. */
  const record = async (decided: Decided, credentials: readonly PlacedCredential[]): Promise<Grant> => {
    const nowMs = clock.now();
    const grant = grantOf(decided, credentials, nowMs, trustDomain.derivedKeys('grant ids')[0]);
    const { policy, policyVersion, rule } = decided.decision;
    const { spiffeId: workload, attestationId: attestation } = decided.issued;
    const about = { workload, target: grant.target, policy, policyVersion, rule, expiresAtMs: grant.expiresAtMs };
    await store.saveLease({ ...about, grantId: grant.id, createdAtMs: nowMs });
    log.info({ ...about, grant: grant.id, attestation, fingerprints: credentials.map(({ fingerprint }) => fingerprint) }, 'grant made');
    return grant;
  };

  /**
   * Whether the credential of this grant was refused, as far as the caller can say: it must be one of its own, for this target. Any other
   * id is passed over in silence, so that nobody learns from the answer whether it exists. Any broker of the trust domain may have made it.
   */
  const isRefused = (grantId: string, { issued, target }: Decided): boolean =>
    isGrantIdOf(grantId, { workload: issued.spiffeId, target: target.name }, trustDomain.derivedKeys('grant ids'));

  const grantOnce = async (caller: CallerIdentity, targetName: string, rejectedGrantId: string): Promise<Grant | undefined> => {
    const decided = decide(verify(caller), targetName);
    const credentials = await issue(decided, isRefused(rejectedGrantId, decided));
    // Credentials may have taken seconds: what was decided must still be so.
    const again = decide(verify(caller), targetName);
    return again.view.configurationVersion === decided.view.configurationVersion ? record(again, credentials) : undefined;
  };

  const getGrant: BrokerHandlers['getGrant'] = async (caller, targetName, _version, rejectedGrantId = '') => {
    // Other names would let a caller fill the metric with its own.
    const target = current.registry.target(targetName) === undefined ? '' : targetName;
    const count = (result: string): void => metrics.add('outrider_broker_grants_total', { target, result });
    try {
      for (let attempt = 1; attempt <= attemptsMax; attempt += 1) {
        const grant = await grantOnce(caller, targetName, rejectedGrantId);
        if (grant === undefined) continue;
        count('ok');
        return grant;
      }
      throw new Fault('broker_error', { detail: 'Its configuration keeps changing.' });
    } catch (thrown) {
      const fault = asFault(thrown, 'broker_error');
      count(fault.code);
      log.warn(
        { error: fault, workload: caller.spiffeId, target: targetName.slice(0, limits.eventFieldBytesMax), decision: fault.decision },
        'grant refused',
      );
      throw fault;
    }
  };

  // Watch -----------------------------------------------------------------------------------------------------------

  const watch: BrokerHandlers['watch'] = (caller, send, ended) => {
    const { identity } = verify(caller);
    const workloads = (): readonly string[] =>
      current.attestors.has(identity.attestor) ? current.registry.match(identity, clock.now()).workloads : [];
    if (workloads().length === 0) throw unknownWorkload(identity);
    watchers.add(
      () => current.registry.viewOf(workloads()),
      (snapshot) => send.snapshot(snapshot),
      ended,
    );
  };

  /** A workload's expiry changes views as a reload does, only that no one calls `apply`. */
  let cancelExpiry = (): void => undefined;
  const awaitExpiry = (): void => {
    cancelExpiry();
    const expiryMs = current.registry.nextExpiryMs(clock.now());
    if (expiryMs === undefined) return;
    cancelExpiry = clock.after(expiryMs - clock.now(), () => {
      watchers.refresh();
      awaitExpiry();
    });
  };
  awaitExpiry();

  return {
    attest,
    getGrant,
    watch,
    apply: (configuration) => {
      current = configuration;
      watchers.refresh();
      awaitExpiry();
    },
    watcherCount: watchers.count,
    close: () => cancelExpiry(),
  };
};

/** Lives as long as everything it rests on: its credentials, the workload's registration, and our own bound. */
const grantOf = (
  { issued, target, view, rules, untilMs }: Decided,
  credentials: readonly PlacedCredential[],
  nowMs: number,
  idKey: Buffer,
): Grant => {
  const expiresAtMs = Math.min(nowMs + limits.grantLifetimeMaxMs, untilMs, ...credentials.map((credential) => credential.expiresAtMs));
  if (expiresAtMs <= nowMs) throw new Fault('credential_unavailable', { detail: 'It expired while it was being granted.' });
  return {
    id: createGrantId({ workload: issued.spiffeId, target: target.name }, nowMs, idKey),
    target: target.name,
    binding: { hosts: target.hosts, ports: target.ports, cleartextAllowed: target.cleartext === 'allowed' },
    configurationVersion: view.configurationVersion,
    expiresAtMs,
    lifetimeMs: expiresAtMs - nowMs,
    credentials,
    rules,
  };
};
