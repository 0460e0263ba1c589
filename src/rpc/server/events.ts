/**
 * The collector's methods on the wire. Of Record, one batch of a stream is in the role's hands at a time; it is acknowledged when it is stored, and a
 * batch that cannot be stored ends the stream, so that nothing after it is acknowledged either. The next batch stays with its proxy until then.
 */
import type { handleBidiStreamingCall, handleUnaryCall, ServerDuplexStream } from '@grpc/grpc-js';
import type { AccessEvent } from '../../core/access-event.ts';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import { statusOf } from '../status.ts';
import {
  type Acknowledgement,
  acknowledgementBytes,
  type EventQuery,
  eventBatchOf,
  findRequestOf,
  findResponseBytes,
  type FoundEvents,
} from '../wire.ts';
import { faultFor, sendable } from './answer.ts';
import { type CallerIdentity, callerOf, checkStillValid } from './caller.ts';

/** Resolves with the highest sequence of `bootId` up to which all is stored. */
export type RecordEvents = (caller: CallerIdentity, bootId: string, events: readonly AccessEvent[]) => Promise<number>;

/** Of the events that `caller` reported, and of no others. */
export type FindEvents = (caller: CallerIdentity, query: EventQuery) => Promise<FoundEvents>;

export interface EventMethodsOptions {
  readonly record: RecordEvents;
  readonly find: FindEvents;
  readonly onStream: (delta: 1 | -1) => void;
  readonly trustDomain: string;
  readonly clock: Clock;
  readonly log: Log;
}

export interface EventMethods {
  readonly record: handleBidiStreamingCall<Buffer, Buffer>;
  readonly find: handleUnaryCall<Buffer, Buffer>;
  /** Ends the streams, each after the batch that is being stored. */
  readonly close: () => void;
}

type Stream = ServerDuplexStream<Buffer, Buffer>;

export const createEventMethods = ({ record, find, onStream, trustDomain, clock, log }: EventMethodsOptions): EventMethods => {
  const streams = new Set<AbortController>();
  /** How many streams each connection has. */
  const perConnection = new Map<string, number>();
  let heldBytes = 0;

  const join = (connection: string): void => {
    const count = perConnection.get(connection) ?? 0;
    if (count >= limits.recordStreamsMax) throw new Fault('overloaded', { detail: 'The connection has too many streams of events.' });
    perConnection.set(connection, count + 1);
  };
  const leave = (connection: string): void => {
    const count = (perConnection.get(connection) ?? 0) - 1;
    if (count > 0) perConnection.set(connection, count);
    else perConnection.delete(connection);
  };

  /** Stores one batch and says through which event all is stored; refuses it when too much is being stored already. */
  const store = async (caller: CallerIdentity, bytes: Buffer): Promise<Acknowledgement> => {
    heldBytes += bytes.length;
    try {
      if (heldBytes > limits.recordBytesMax) throw new Fault('overloaded', { detail: 'More events come than can be stored.' });
      const { bootId, events } = eventBatchOf(bytes);
      return { bootId, through: await record(caller, bootId, events) };
    } finally {
      heldBytes -= bytes.length;
    }
  };

  /** Stores and acknowledges batch after batch until the stream ends or `stopping` says so. */
  const serve = async (call: Stream, caller: CallerIdentity, stopping: AbortSignal): Promise<void> => {
    const wakes = wakeOn(call, stopping);
    while (!stopping.aborted) {
      const bytes = call.read() as Buffer | null;
      if (bytes !== null) {
        checkStillValid(caller, clock.now());
        const acknowledgement = await store(caller, bytes);
        if (!call.cancelled) call.write(acknowledgementBytes(acknowledgement));
      } else if (call.readableEnded) return;
      else await wakes.next();
      while (call.writableNeedDrain && !stopping.aborted) await wakes.next();
    }
    if (!call.cancelled) throw new Fault('broker_unavailable', { detail: 'It is shutting down.' });
  };

  return {
    record: (call) => {
      const stopping = new AbortController();
      streams.add(stopping);
      onStream(1);
      call.once('cancelled', () => stopping.abort());
      readNothingAhead(call);
      const connection = call.getPeer();
      const serveIt = async (): Promise<void> => {
        const caller = callerOf(call, trustDomain, clock.now());
        join(connection);
        try {
          await serve(call, caller, stopping.signal);
        } finally {
          leave(connection);
        }
      };
      const run = async (): Promise<void> => {
        try {
          await serveIt();
          call.end();
        } catch (error) {
          if (!call.cancelled) call.emit('error', statusOf(faultFor(error, 'Record', log)));
        } finally {
          streams.delete(stopping);
          onStream(-1);
        }
      };
      void run();
    },
    find: (call, callback) => {
      const answer = async (): Promise<Buffer> =>
        sendable(findResponseBytes(await find(callerOf(call, trustDomain, clock.now()), findRequestOf(call.request))));
      answer().then(
        (bytes) => callback(null, bytes),
        (error: unknown) => callback(statusOf(faultFor(error, 'Find', log))),
      );
    },
    close: () => {
      for (const stopping of streams) stopping.abort();
    },
  };
};

/** grpc-js would read 16 messages ahead, each of which may have a MiB, and has no option for it: with 0, a message is asked for when it is read. */
const readNothingAhead = (call: Stream): void => {
  const { _readableState: state } = call as unknown as { readonly _readableState: { highWaterMark: number } };
  state.highWaterMark = 0;
};

/** Resolves when something may have changed. Looking at the stream and waiting must follow without a pause between. */
const wakeOn = (call: Stream, stopping: AbortSignal): { next(): Promise<void> } => {
  let wake: () => void = () => undefined;
  for (const event of ['readable', 'end', 'drain', 'close']) call.on(event, () => wake());
  stopping.addEventListener('abort', () => wake(), { once: true });
  return {
    next: () =>
      new Promise((resolve) => {
        wake = resolve;
      }),
  };
};
