/** The standard gRPC health service, open to callers without a certificate: it says whether the server serves, and nothing else. */
import { type handleServerStreamingCall, type handleUnaryCall, Metadata, type ServerWritableStream, status } from '@grpc/grpc-js';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { statusOf } from '../status.ts';
import { malformed } from './answer.ts';
import { healthBytes, healthRequestOf } from '../wire.ts';

export interface HealthService {
  readonly handlers: { readonly check: handleUnaryCall<Buffer, Buffer>; readonly watch: handleServerStreamingCall<Buffer, Buffer> };
  readonly setServing: (isServing: boolean) => void;
  /** Ends the watches. */
  readonly close: () => void;
}

/** For the server as a whole ("") and for `service`. */
export const createHealthService = (service: string): HealthService => {
  let isServing = true;
  const watches = new Map<ServerWritableStream<Buffer, Buffer>, boolean>();
  const answer = (isKnown: boolean): Buffer => {
    const known = isServing ? 'SERVING' : 'NOT_SERVING';
    return healthBytes(isKnown ? known : 'SERVICE_UNKNOWN');
  };
  const isKnown = (request: Buffer): boolean => {
    const asked = healthRequestOf(request);
    return asked === '' || asked === service;
  };
  return {
    handlers: {
      check: ({ request }, callback) => {
        try {
          if (isKnown(request)) callback(null, answer(true));
          else callback({ code: status.NOT_FOUND, details: 'unknown service', metadata: new Metadata() });
        } catch (error) {
          callback(statusOf(malformed(error)));
        }
      },
      watch: (call) => {
        try {
          const known = isKnown(call.request);
          if (watches.size >= limits.healthWatchesMax) throw new Fault('overloaded', { detail: 'Too many watch its health.' });
          watches.set(call, known);
          call.write(answer(known));
          call.once('cancelled', () => watches.delete(call));
        } catch (error) {
          call.emit('error', statusOf(malformed(error)));
        }
      },
    },
    setServing: (now) => {
      if (now === isServing) return;
      isServing = now;
      for (const [call, known] of watches) {
        if (call.writableLength >= limits.watchBacklogMax) call.end();
        else if (known) call.write(answer(true));
      }
    },
    close: () => {
      for (const call of watches.keys()) call.end();
      watches.clear();
    },
  };
};
