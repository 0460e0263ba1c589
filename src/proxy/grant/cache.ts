/**
 * Grants in memory: one fetch for any number of waiters, refreshed ahead of expiry while it is being used, refusals and failures
 * remembered briefly, bounded. Time is counted from when the fetch began, by the monotonic clock, so that a wrong wall clock
 * can shorten a grant's life here but not stretch it. A grant is taken only if it was made under the configuration that the broker has
 * told of: brokers do not change theirs at the same moment, and neither do a broker's answers and its news.
 */
import { asFault, Fault } from '../../core/fault.ts';
import type { Grant } from '../../core/grant.ts';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';
import type { GrantKey, GrantSource } from '../grant.ts';

export type CacheResult = 'hit' | 'miss' | 'joined' | 'denied' | 'failed';

export interface GrantCacheOptions {
  /** `rejectedGrantId`: a grant whose credential the target has refused. */
  readonly fetch: (key: GrantKey, rejectedGrantId?: string) => Promise<Grant>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly onLookup?: (result: CacheResult) => void;
  readonly onRefresh?: (result: 'ok' | Fault, target: string) => void;
  /** The cache has changed: for gauges. */
  readonly onChange?: (grants: readonly Grant[]) => void;
}

export interface GrantCache extends GrantSource {
  readonly renew: NonNullable<GrantSource['renew']>;
  /** Forgets grants of a target; without ids, all of them. A fetch under way is not trusted either. */
  readonly revoke: (target: string, grantIds: readonly string[]) => void;
  /** The broker has told of this configuration: forgets everything of others, and takes no grant that was made under another. */
  readonly keepOnly: (configurationVersion: string) => void;
  readonly size: () => number;
}

type Entry =
  | {
      readonly kind: 'granted';
      readonly key: GrantKey;
      readonly grant: Grant;
      readonly refreshAt: number;
      readonly expiresAt: number;
      refreshing: boolean;
    }
  | { readonly kind: 'refused'; readonly key: GrantKey; readonly fault: Fault; readonly until: number }
  | { readonly kind: 'pending'; readonly key: GrantKey; readonly promise: Promise<Grant> };

/**
 * When to refresh and when to stop using a grant that lives `lifetimeMs` from `fetchedAt`: refresh at 70 to 80 % of life, spread
 * so that pods started together do not ask together; stop a little early, so that a credential does not expire on its way.
 */
export const grantSchedule = (fetchedAt: number, lifetimeMs: number, random: number): { refreshAt: number; expiresAt: number } => {
  const life = Math.min(Math.max(lifetimeMs, 0), limits.grantLifetimeMaxMs);
  return { refreshAt: fetchedAt + life * (0.7 + 0.1 * random), expiresAt: fetchedAt + life - Math.min(5_000, life * 0.1) };
};

/** Whether a target that refused the one may take the other. */
const differs = (one: Grant, other: Grant): boolean => fingerprintsOf(one) !== fingerprintsOf(other);
const fingerprintsOf = ({ credentials }: Grant): string => credentials.map(({ fingerprint }) => fingerprint).join();

export const createGrantCache = ({ fetch, clock, random, onLookup, onRefresh, onChange }: GrantCacheOptions): GrantCache => {
  const entries = new Map<string, Entry>();
  /** Of each key, the latest time that another grant was asked for because a target refused the credential, and who waits for it. */
  const renewals = new Map<string, { readonly startedAt: number; readonly promise: Promise<Grant | undefined>; isUnderWay: boolean }>();
  /** Counts revocations: a fetch that began before one may bring what was revoked. */
  let generation = 0;
  /** The configuration that the broker told of last, how often it told of one, and who waits for that. */
  let inForce: string | undefined;
  let tellings = 0;
  const waiting = new Set<() => void>();

  const keyOf = ({ workload, target, configurationVersion }: GrantKey): string => `${workload}\n${configurationVersion}\n${target}`;
  let cancelExpiry = (): void => undefined;
  const changed = (): void => {
    const granted = [...entries.values()].filter((entry) => entry.kind === 'granted');
    onChange?.(granted.map(({ grant }) => grant));
    cancelExpiry();
    if (granted.length === 0) return;
    const endsAt = granted.reduce((earliest, { expiresAt }) => Math.min(earliest, expiresAt), Number.POSITIVE_INFINITY);
    cancelExpiry = clock.after(endsAt - clock.monotonic(), forgetExpired);
  };
  /** What nobody asks for is not refreshed: at its end it is neither kept in memory nor counted among what there is. */
  const forgetExpired = (): void => {
    const now = clock.monotonic();
    for (const [id, entry] of entries) if (entry.kind === 'granted' && now >= entry.expiresAt) entries.delete(id);
    changed();
  };

  const keep = (id: string, entry: Entry): void => {
    entries.delete(id);
    if (entries.size >= limits.grantCacheMax) entries.delete(entries.keys().next().value as string);
    entries.set(id, entry);
  };

  /** Until the broker tells of a configuration, or has had the time to. */
  const nextTelling = (): Promise<void> =>
    new Promise((resolve) => {
      const done = (): void => {
        cancel();
        waiting.delete(done);
        resolve();
      };
      const cancel = clock.after(limits.grantAgreementWaitMs, done);
      waiting.add(done);
    });

  /**
   * Fetches, again if something was revoked meanwhile, or if the grant is not of the configuration in force: then the broker is ahead of
   * its own news, or it is another one, whose news has yet to come. What comes last is in force, be it the one that was asked for or not.
   */
  const fetchFresh = async (key: GrantKey, rejectedGrantId?: string): Promise<{ grant: Grant; fetchedAt: number }> => {
    for (let tries = 0; ; tries += 1) {
      const fetchedAt = clock.monotonic();
      const [generationBefore, tellingsBefore] = [generation, tellings];
      const grant = await fetch(key, rejectedGrantId);
      const agrees = (): boolean => grant.configurationVersion === (inForce ?? key.configurationVersion);
      if (!agrees() && tellings === tellingsBefore) await nextTelling();
      if (agrees() && generation === generationBefore) return { grant, fetchedAt };
      if (tries < 2) continue;
      throw new Fault('broker_error', {
        detail: agrees() ? 'It revokes as fast as it grants.' : 'It grants under another configuration than it told of.',
      });
    }
  };

  /** Under the key of a configuration there are only grants of that. */
  const store = (id: string, key: GrantKey, { grant, fetchedAt }: { grant: Grant; fetchedAt: number }): Grant => {
    if (grant.configurationVersion !== key.configurationVersion) entries.delete(id);
    else keep(id, { kind: 'granted', key, grant, ...grantSchedule(fetchedAt, grant.lifetimeMs, random()), refreshing: false });
    changed();
    return grant;
  };

  const fetchInto = (id: string, key: GrantKey): Promise<Grant> => {
    const promise: Promise<Grant> = fetchFresh(key).then(
      (fetched) => {
        const isCurrent = (entries.get(id) as { promise?: unknown } | undefined)?.promise === promise;
        return isCurrent ? store(id, key, fetched) : fetched.grant;
      },
      (thrown: unknown) => {
        const fault = asFault(thrown, 'broker_error');
        // A denial is an answer and may stand longer than a failure to get one.
        const forMs =
          fault.row.blame === 'policy' || fault.row.blame === 'identity' ? limits.grantDeniedCacheMs : limits.grantFailedCacheMs;
        if ((entries.get(id) as { promise?: unknown } | undefined)?.promise === promise)
          keep(id, { kind: 'refused', key, fault, until: clock.monotonic() + forMs });
        throw fault;
      },
    );
    keep(id, { kind: 'pending', key, promise });
    return promise;
  };

  const refresh = (id: string, entry: Entry & { kind: 'granted' }): void => {
    entry.refreshing = true;
    fetchFresh(entry.key).then(
      (fetched) => {
        if (entries.get(id) === entry) store(id, entry.key, fetched);
        onRefresh?.('ok', entry.key.target);
      },
      (thrown: unknown) => {
        const fault = asFault(thrown, 'broker_error');
        onRefresh?.(fault, entry.key.target);
        // A denial takes effect now; a failure leaves the grant in use until it expires, and is tried again after a pause.
        if (fault.row.blame === 'policy' || fault.row.blame === 'identity') {
          if (entries.get(id) === entry) entries.delete(id);
          changed();
        } else {
          clock.after(limits.grantDeniedCacheMs * (1 + random()), () => {
            entry.refreshing = false;
          });
        }
      },
    );
  };

  /** One fetch for all whose credential was refused; supersedes a refresh under way, whose answer may be the refused one. */
  const fetchInstead = async (id: string, key: GrantKey, rejected: Grant): Promise<Grant | undefined> => {
    try {
      const fetched = await fetchFresh(key, rejected.id);
      if (entries.get(id)?.kind === 'granted') store(id, key, fetched);
      onRefresh?.('ok', key.target);
      return fetched.grant;
    } catch (thrown) {
      const fault = asFault(thrown, 'broker_error');
      onRefresh?.(fault, key.target);
      if ((fault.row.blame === 'policy' || fault.row.blame === 'identity') && entries.get(id)?.kind === 'granted') {
        keep(id, { kind: 'refused', key, fault, until: clock.monotonic() + limits.grantDeniedCacheMs });
        changed();
      }
      throw fault;
    }
  };

  const renew = (key: GrantKey, rejected: Grant): Promise<Grant | undefined> | undefined => {
    const id = keyOf(key);
    const entry = entries.get(id);
    const now = clock.monotonic();
    // Another request was refused before, and what came of that is here.
    if (entry?.kind === 'granted' && now < entry.expiresAt && differs(entry.grant, rejected)) return Promise.resolve(entry.grant);
    const known = renewals.get(id);
    const isRecent = known !== undefined && (known.isUnderWay || now - known.startedAt < limits.grantRejectedIntervalMs);
    if (isRecent && !known.isUnderWay) return undefined;
    const promise = isRecent ? known.promise : fetchInstead(id, key, rejected);
    if (!isRecent) {
      const renewal = { startedAt: now, promise, isUnderWay: true };
      renewals.delete(id);
      if (renewals.size >= limits.grantCacheMax) renewals.delete(renewals.keys().next().value as string);
      renewals.set(id, renewal);
      const done = (): void => void (renewal.isUnderWay = false);
      promise.then(done, done);
    }
    return promise.then((grant) => (grant && differs(grant, rejected) ? grant : undefined));
  };

  return {
    renew,
    get: (key) => {
      const id = keyOf(key);
      const entry = entries.get(id);
      const now = clock.monotonic();
      if (entry?.kind === 'granted' && now < entry.expiresAt) {
        onLookup?.('hit');
        if (now >= entry.refreshAt && !entry.refreshing) refresh(id, entry);
        return entry.grant;
      }
      if (entry?.kind === 'pending') {
        onLookup?.('joined');
        return entry.promise;
      }
      if (entry?.kind === 'refused' && now < entry.until) {
        onLookup?.(entry.fault.row.blame === 'policy' || entry.fault.row.blame === 'identity' ? 'denied' : 'failed');
        throw entry.fault;
      }
      onLookup?.('miss');
      return fetchInto(id, key);
    },
    revoke: (target, grantIds) => {
      generation += 1;
      for (const [id, entry] of entries) {
        if (entry.key.target !== target || entry.kind === 'pending') continue;
        if (entry.kind === 'refused' || grantIds.length === 0 || grantIds.includes(entry.grant.id)) entries.delete(id);
      }
      changed();
    },
    keepOnly: (configurationVersion) => {
      inForce = configurationVersion;
      tellings += 1;
      for (const [id, entry] of entries) if (entry.key.configurationVersion !== configurationVersion) entries.delete(id);
      changed();
      for (const told of waiting) told();
    },
    size: () => entries.size,
  };
};
