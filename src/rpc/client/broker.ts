/** Calls to the broker under one SVID: grants, and the watch over targets and revocations. */
import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import { Fault } from '../../core/fault.ts';
import type { Grant } from '../../core/grant.ts';
import { limits } from '../../core/limits.ts';
import type { TargetSnapshot } from '../../core/target.ts';
import { systemClock } from '../../ops/clock.ts';
import { brokerService } from '../service.ts';
import type { Svid } from '../svid.ts';
import { grantOf, grantRequestBytes, type Revocation, updateOf, WireError, watchRequestBytes } from '../wire.ts';
import { type Connection, openConnection } from './connection.ts';
import { type Peer, trustOf } from './peer.ts';

export interface WatchListener {
  snapshot(snapshot: TargetSnapshot): void;
  revocation(revocation: Revocation): void;
  /** Once, and nothing after it. Not after cancel() or close(). */
  ended(fault: Fault): void;
}

export interface BrokerChannel {
  /**
   * `rejectedGrantId`: a grant whose credential the target refused, so that the broker obtains another where it can.
   * Faults: those of the broker, broker_unavailable, broker_timeout, broker_untrusted, broker_error, credential_invalid.
   */
  getGrant(target: string, configurationVersion: string, rejectedGrantId?: string): Promise<Grant>;
  watch(on: WatchListener): { cancel(): void };
  /** Calls in flight finish; watches end without a word. */
  close(): void;
}

export const openBroker = ({ broker, svid }: { readonly broker: Peer; readonly svid: Svid }): BrokerChannel => {
  const connection = openConnection(trustOf(broker, svid));
  const watches = new Set<{ cancel(): void }>();
  let callsInFlight = 0;
  let isClosing = false;
  const closeWhenIdle = (): void => {
    if (isClosing && callsInFlight === 0) connection.close();
  };

  return {
    getGrant: async (target, configurationVersion, rejectedGrantId) => {
      if (isClosing) throw new Fault('broker_unavailable', { cause: new Error('this channel was closed') });
      callsInFlight += 1;
      try {
        const request = grantRequestBytes(target, configurationVersion, rejectedGrantId);
        const grant = grantOf(await connection.unary(brokerService.methods.getGrant, request, limits.getGrantTimeoutMs));
        if (grant.target !== target) throw new WireError('the grant is for another target');
        return grant;
      } catch (error) {
        throw error instanceof WireError ? new Fault('broker_error', { cause: error }) : error;
      } finally {
        callsInFlight -= 1;
        closeWhenIdle();
      }
    },
    watch: (on) => {
      if (isClosing) {
        queueMicrotask(() => on.ended(new Fault('broker_unavailable', { cause: new Error('this channel was closed') })));
        return { cancel: () => undefined };
      }
      const watch = watchOver(connection, {
        snapshot: (snapshot) => on.snapshot(snapshot),
        revocation: (revocation) => on.revocation(revocation),
        ended: (fault) => {
          watches.delete(watch);
          on.ended(fault);
        },
      });
      watches.add(watch);
      return {
        cancel: () => {
          watches.delete(watch);
          watch.cancel();
        },
      };
    },
    close: () => {
      isClosing = true;
      for (const watch of watches) watch.cancel();
      watches.clear();
      closeWhenIdle();
    },
  };
};

const watchOver = (connection: Connection, on: WatchListener): { cancel(): void } => {
  const stream: ClientReadableStream<Buffer> = connection.serverStream(brokerService.methods.watch, watchRequestBytes());
  let isEnded = false;
  const finish = (): boolean => {
    if (isEnded) return false;
    isEnded = true;
    stopWaiting();
    stream.cancel();
    return true;
  };
  const end = (fault: Fault): void => {
    if (finish()) on.ended(fault);
  };
  // The broker sends a snapshot at once; a connection that brings none is not one.
  const stopWaiting = systemClock.after(limits.getGrantTimeoutMs, () =>
    end(new Fault('broker_timeout', { cause: new Error('no snapshot came') })),
  );
  stream.on('data', (bytes: Buffer) => {
    if (isEnded) return;
    stopWaiting();
    try {
      const update = updateOf(bytes);
      if (update.kind === 'snapshot') on.snapshot(update.snapshot);
      else on.revocation(update.revocation);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      end(new Fault('broker_error', { cause: error }));
    }
  });
  stream.on('error', (error: Error) => end(connection.faultOf(error as ServiceError)));
  stream.on('end', () => end(new Fault('broker_unavailable', { cause: new Error('the broker ended the watch') })));
  return { cancel: () => void finish() };
};
