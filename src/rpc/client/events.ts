/** The stream of access events to the collector under one SVID: batches out, acknowledgements in, back-pressure between. */
import { strict as assert } from 'node:assert';
import type { ServiceError } from '@grpc/grpc-js';
import type { AccessEvent } from '../../core/access-event.ts';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { systemClock } from '../../ops/clock.ts';
import { eventsService } from '../service.ts';
import type { Svid } from '../svid.ts';
import { acknowledgementOf, eventBatchBytes, WireError } from '../wire.ts';
import { openConnection } from './connection.ts';
import { type Peer, trustOf } from './peer.ts';

export interface EventListener {
  stored(bootId: string, through: number): void;
  drained(): void;
  /** Once, and nothing after it. After close() only when the stream broke before everything was answered. */
  ended(fault: Fault): void;
}

export interface EventChannel {
  /** false: wait for `drained` before writing more. */
  write(bootId: string, events: readonly AccessEvent[]): boolean;
  /** What was written is still stored and acknowledged; then the connection closes. */
  close(): void;
}

export interface EventChannelOptions {
  readonly collector: Peer;
  readonly svid: Svid;
  readonly on: EventListener;
}

/** Faults (to `ended`) are named after the broker, as for any peer: the caller knows that it is the collector. */
export const openEvents = ({ collector, svid, on }: EventChannelOptions): EventChannel => {
  const connection = openConnection(trustOf(collector, svid));
  const stream = connection.bidiStream(eventsService.methods.record);
  let isClosing = false;
  let isEnded = false;
  const end = (fault: Fault | undefined): void => {
    if (isEnded) return;
    isEnded = true;
    stopWaiting();
    stream.cancel();
    connection.close();
    if (fault !== undefined) on.ended(fault);
  };
  let stopWaiting = systemClock.after(limits.getGrantTimeoutMs, () => {
    if (!connection.isConnected()) end(new Fault('broker_timeout', { cause: new Error('no connection came about') }));
  });
  stream.on('data', (bytes: Buffer) => {
    if (isEnded) return;
    try {
      const { bootId, through } = acknowledgementOf(bytes);
      on.stored(bootId, through);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      end(new Fault('broker_error', { cause: error }));
    }
  });
  stream.on('drain', () => {
    if (!isEnded && !isClosing) on.drained();
  });
  stream.on('error', (error: Error) => end(connection.faultOf(error as ServiceError)));
  stream.on('end', () =>
    end(isClosing ? undefined : new Fault('broker_unavailable', { cause: new Error('the collector ended the stream') })),
  );

  const write = (bootId: string, events: readonly AccessEvent[]): boolean => {
    assert(!isClosing, 'nothing is written after close()');
    if (isEnded) return false;
    const bytes = eventBatchBytes({ bootId, events });
    if (bytes.length <= limits.messageBytesMax || events.length < 2) return stream.write(bytes);
    const middle = events.length >> 1;
    write(bootId, events.slice(0, middle));
    return write(bootId, events.slice(middle));
  };
  return {
    write,
    close: () => {
      if (isClosing) return;
      isClosing = true;
      if (isEnded) return;
      stream.end();
      // A collector that takes everything and answers nothing would hold the connection for ever.
      stopWaiting();
      stopWaiting = systemClock.after(limits.eventAcknowledgeTimeoutMs, () => end(undefined));
    },
  };
};
