/**
 * What outlives a restart: the store, and what lives in it. Keys that several brokers share come from the API server: a broker that starts
 * waits for it, because it must not make keys of its own; one that runs goes on with those it has.
 */
import { limits } from '../../core/limits.ts';
import { ApiError, createApiServer } from '../../net/api-server.ts';
import type { Clock } from '../../ops/clock.ts';
import { type Closer, StartStopped } from '../../ops/drain.ts';
import type { Log } from '../../ops/log.ts';
import type { Metrics } from '../../ops/metrics.ts';
import type { BrokerSettings, SharedKeysSettings } from '../../settings/broker.ts';
import { openTrustDomain, type TrustDomain, writeBundle } from '../authority.ts';
import { createIssuer, type TokenIssuer } from '../issuer.ts';
import { startLeaseSweep } from '../lease.ts';
import { type BrokerStore, createSharedKeys, type KeyStore, openStore, withKeysFrom } from '../store.ts';
import { createPublication, type Publication } from './publication.ts';
import { startRotation } from './rotation.ts';

export interface State {
  readonly store: BrokerStore;
  readonly trustDomain: TrustDomain;
  readonly issuer: TokenIssuer;
  /** Calls back when another authority signs, and when another is trusted. */
  readonly onTrustChange: (changed: () => void) => void;
}

export interface StateContext {
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Pick<Metrics, 'add'>;
  readonly stopRequested: Promise<void> | undefined;
  /** Closed in reverse. */
  readonly closers: Closer[];
}

export const openState = async (settings: BrokerSettings, context: StateContext): Promise<State> => {
  const { clock, log, metrics, closers } = context;
  const leases = await openStore(settings.stateDir);
  closers.push({ name: 'store', close: leases.close });
  const shared = settings.sharedKeys && openShared(settings.sharedKeys, log);
  const store = shared === undefined ? leases : withKeysFrom(shared.keys, leases);
  const publish: Publication = shared?.publish ?? (async () => async () => undefined);

  const trustDomain = await patiently(() => openTrustDomain({ name: settings.trustDomain, store, clock, log }), context);
  const issuer = await patiently(() => createIssuer({ settings: settings.issuer, store, clock }), context);

  const listeners: (() => void)[] = [];
  let known = '';
  /** Tells of what changed, once the file has it. */
  const follow = (): void => {
    const bundlePem = trustDomain.bundlePem();
    const now = `${trustDomain.authority().certificatePem}\n${bundlePem}`;
    if (now === known) return;
    writeBundle(settings.bundleFile, bundlePem);
    known = now;
    for (const changed of listeners) changed();
  };
  const count = (result: 'ok' | 'failed'): void => metrics.add('outrider_broker_key_checks_total', { result });
  const rotate = async (): Promise<void> => {
    const finish = await publish();
    try {
      await trustDomain.rotate();
      await issuer.rotate();
      count('ok');
    } catch (error) {
      count('failed');
      throw error;
    } finally {
      // Which one signs is a matter of time as well, and that goes on when the store does not answer.
      follow();
    }
    await finish(trustDomain.bundlePem());
  };
  // At the start too the keys are read after the ConfigMap was (publication.ts): another broker may have changed both since they were opened.
  await patiently(rotate, context);
  const nextRotationMs = (): number => Math.min(trustDomain.nextRotationMs(), issuer.nextRotationMs());
  const rotation = startRotation({ rotate, nextRotationMs }, { clock, log, ...(shared && { pollMs: limits.sharedKeysPollMs }) });
  closers.push({ name: 'key rotation', close: rotation.close });
  closers.push({ name: 'lease sweep', close: startLeaseSweep(leases, { clock, log }).close });
  return { store, trustDomain, issuer, onTrustChange: (changed) => void listeners.push(changed) };
};

const openShared = (place: SharedKeysSettings, log: Log): { readonly keys: KeyStore; readonly publish: Publication } => {
  const api = createApiServer({ ...place, url: place.apiServer });
  return { keys: createSharedKeys(api, place), publish: createPublication(api, place, log) };
};

/** Again and again until the API server answers as it should; anything else that goes wrong is no matter of waiting. */
const patiently = async <T>(open: () => Promise<T>, { clock, log, stopRequested }: StateContext): Promise<T> => {
  for (let pauseMs: number = limits.reconnectPauseMinMs; ; pauseMs = Math.min(pauseMs * 2, limits.reconnectPauseMaxMs)) {
    try {
      return await open();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      log.warn({ error, pauseMs }, 'waiting for the keys that the brokers share');
    }
    const isStopped = await new Promise<boolean>((resolve) => {
      clock.after(pauseMs, () => resolve(false));
      void stopRequested?.then(() => resolve(true));
    });
    if (isStopped) throw new StartStopped('the keys that the brokers share');
  }
};
