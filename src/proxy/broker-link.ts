/**
 * The proxy's standing connection to the broker: one channel per SVID, replaced on renewal without breaking calls in flight, and
 * a Watch on it that is reopened, with pauses, for as long as the proxy runs. Where the connection was lost, so is all that was known of it:
 * the next one begins with the name, and ends at whichever broker that leads to.
 */
import { asFault, Fault, type FaultCode } from '../core/fault.ts';
import type { Grant } from '../core/grant.ts';
import { limits } from '../core/limits.ts';
import type { TargetSnapshot } from '../core/target.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import type { Metrics } from '../ops/metrics.ts';
import { type BrokerChannel, openBroker, type Peer, type Revocation } from '../rpc/client.ts';
import type { Svid } from '../rpc/svid.ts';
import type { SvidSource } from '../rpc/svid-source.ts';

export interface BrokerLink {
  readonly getGrant: (target: string, configurationVersion: string, rejectedGrantId?: string) => Promise<Grant>;
  /** Why no snapshot is coming; undefined while the watch is open. */
  readonly fault: () => Fault | undefined;
  readonly close: () => void;
}

export interface BrokerLinkOptions {
  readonly broker: Peer;
  readonly svids: SvidSource;
  readonly onSnapshot: (snapshot: TargetSnapshot) => void;
  readonly onRevocation: (revocation: Revocation) => void;
  readonly clock: Clock;
  readonly random: () => number;
  readonly metrics: Metrics;
  readonly log: Log;
}

/** The broker does not know this certificate, or we do not know the broker's: one of the two was replaced, and only fresh evidence helps. */
const needsAttestation = (code: FaultCode): boolean =>
  code === 'identity_refused' || code === 'identity_expired' || code === 'broker_untrusted';

/** A channel that lost its broker may go on for minutes with an address that swallows what it is sent, and looks at the name only now and then. */
const needsConnection = (code: FaultCode): boolean => code === 'broker_unavailable' || code === 'broker_timeout';

/** What alerts compare, exported from the start: a series that begins with its first event hides that from rate(). */
const startMetrics = (metrics: Metrics): void => {
  for (const method of ['Attest', 'GetGrant', 'Watch'])
    for (const code of ['ok', 'broker_unavailable', 'broker_timeout', 'broker_untrusted', 'broker_error'])
      metrics.add('outrider_proxy_broker_calls_total', { method, code }, 0);
};

/** The n-th pause, doubled each time, spread over its upper half. */
const reconnectPauseMs = (attempt: number, random: number): number =>
  Math.min(limits.reconnectPauseMaxMs, limits.reconnectPauseMinMs * 2 ** Math.min(attempt, 16)) * (0.5 + random / 2);

export const startBrokerLink = ({
  broker,
  svids,
  onSnapshot,
  onRevocation,
  clock,
  random,
  metrics,
  log,
}: BrokerLinkOptions): BrokerLink => {
  let channel: BrokerChannel | undefined;
  let watch: { cancel(): void } | undefined;
  let fault: Fault | undefined;
  let attempt = 0;
  let cancelRetry: () => void = () => undefined;
  /** Ends the pause before the next watch; undefined where there is none, and where one was ended since the last snapshot. */
  let endPause: (() => void) | undefined;
  let mayEndPause = true;
  let isClosed = false;
  startMetrics(metrics);

  const openWatch = (on: BrokerChannel, svid: Svid): void => {
    cancelRetry();
    endPause = undefined;
    let isTold = false;
    watch = on.watch({
      snapshot: (snapshot) => {
        attempt = 0;
        mayEndPause = true;
        fault = undefined;
        if (!isTold) {
          isTold = true;
          metrics.add('outrider_proxy_broker_calls_total', { method: 'Watch', code: 'ok' });
          metrics.set('outrider_proxy_broker_connected', {}, 1);
        }
        onSnapshot(snapshot);
      },
      revocation: onRevocation,
      ended: (ended) => {
        if (isClosed || on !== channel) return;
        fault = ended;
        metrics.set('outrider_proxy_broker_connected', {}, 0);
        metrics.add('outrider_proxy_broker_calls_total', { method: 'Watch', code: ended.code });
        log.warn({ code: ended.code, detail: ended.detail, error: ended }, 'the watch at the broker ended; opening it again');
        if (needsAttestation(ended.code)) svids.renew();
        const pause = reconnectPauseMs(attempt, random());
        attempt += 1;
        if (mayEndPause) endPause = () => openWatch(on, svid);
        cancelRetry = clock.after(pause, () => {
          if (isClosed || on !== channel) return;
          if (needsConnection(ended.code)) useSvid(svid);
          else openWatch(on, svid);
        });
      },
    });
  };

  const useSvid = (svid: Svid): void => {
    if (isClosed) return;
    const [oldChannel, oldWatch] = [channel, watch];
    channel = openBroker({ broker, svid });
    openWatch(channel, svid);
    oldWatch?.cancel();
    oldChannel?.close();
  };

  /** The broker has granted since its watch was lost: it is back, and its news are not to be waited for. Once, lest failing watches be many. */
  const watchNow = (end: () => void): void => {
    mayEndPause = false;
    if (!isClosed) end();
  };

  const stopListening = svids.onChange(useSvid);
  const first = svids.current();
  if (first) useSvid(first);

  return {
    getGrant: async (target, configurationVersion, rejectedGrantId) => {
      if (!channel) throw svids.fault() ?? new Fault('not_ready');
      const startedAt = clock.monotonic();
      let code: FaultCode | 'ok' = 'ok';
      const end = endPause;
      try {
        const grant = await channel.getGrant(target, configurationVersion, rejectedGrantId);
        if (end !== undefined && end === endPause) watchNow(end);
        return grant;
      } catch (thrown) {
        const failed = asFault(thrown, 'broker_error');
        code = failed.code;
        if (needsAttestation(code)) svids.renew();
        throw failed;
      } finally {
        metrics.add('outrider_proxy_broker_calls_total', { method: 'GetGrant', code });
        metrics.observe('outrider_proxy_broker_call_duration_seconds', { method: 'GetGrant' }, (clock.monotonic() - startedAt) / 1000);
      }
    },
    fault: () => fault,
    close: () => {
      isClosed = true;
      stopListening();
      cancelRetry();
      watch?.cancel();
      channel?.close();
    },
  };
};
