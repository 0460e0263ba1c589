/** The broker's methods on the wire: who calls, what is asked, the role's handler, its answer as a message. */
import type { handleServerStreamingCall, handleUnaryCall, ServerUnaryCall, ServerWritableStream } from '@grpc/grpc-js';
import type { Evidence } from '../../core/evidence.ts';
import { Fault, type FaultCode } from '../../core/fault.ts';
import type { Grant } from '../../core/grant.ts';
import { limits } from '../../core/limits.ts';
import type { TargetSnapshot } from '../../core/target.ts';
import type { Clock } from '../../ops/clock.ts';
import type { Log } from '../../ops/log.ts';
import { statusOf } from '../status.ts';
import {
  type Attestation,
  attestationBytes,
  attestRequestOf,
  checkWatchRequest,
  grantBytes,
  grantRequestOf,
  type Revocation,
  revocationBytes,
  snapshotBytes,
} from '../wire.ts';
import { faultFor, sendable } from './answer.ts';
import { type Authenticated, type CallerIdentity, callerOf } from './caller.ts';

export interface WatchSender {
  snapshot(snapshot: TargetSnapshot): void;
  revocation(revocation: Revocation): void;
}

export interface BrokerHandlers {
  attest(evidence: Evidence, certificateRequest: Buffer): Promise<Attestation>;
  /** `rejectedGrantId`: what the caller says its target refused; none or '' where it says nothing. Not to be believed before the id says whose it was. */
  getGrant(caller: CallerIdentity, target: string, configurationVersion: string, rejectedGrantId?: string): Promise<Grant>;
  /** Throws a Fault to refuse. `ended` aborts once nobody listens any more. */
  watch(caller: CallerIdentity, send: WatchSender, ended: AbortSignal): void;
}

export type BrokerMethod = 'Attest' | 'GetGrant' | 'Watch';
/** Called once for each call, at its end. */
export type OnCall = (method: BrokerMethod, code: 'ok' | FaultCode, seconds: number) => void;

export interface BrokerMethodsOptions {
  readonly handlers: BrokerHandlers;
  readonly onCall: OnCall;
  readonly trustDomain: string;
  readonly clock: Clock;
  readonly log: Log;
}

export interface BrokerMethods {
  readonly attest: handleUnaryCall<Buffer, Buffer>;
  readonly getGrant: handleUnaryCall<Buffer, Buffer>;
  readonly watch: handleServerStreamingCall<Buffer, Buffer>;
  /** Ends the watches, so that their proxies look for another broker. */
  readonly close: () => void;
}

type UnaryCall = ServerUnaryCall<Buffer, Buffer>;

export const createBrokerMethods = ({ handlers, onCall, trustDomain, clock, log }: BrokerMethodsOptions): BrokerMethods => {
  const watches = new Set<(fault: Fault) => void>();
  const caller = (call: Authenticated): CallerIdentity => callerOf(call, trustDomain, clock.now());

  const answering =
    (method: BrokerMethod, answer: (call: UnaryCall) => Promise<Buffer>): handleUnaryCall<Buffer, Buffer> =>
    (call, callback) => {
      const startedAt = clock.monotonic();
      const done = (code: 'ok' | FaultCode): void => onCall(method, code, (clock.monotonic() - startedAt) / 1000);
      answer(call).then(
        (bytes) => {
          callback(null, bytes);
          done('ok');
        },
        (error: unknown) => {
          const fault = faultFor(error, method, log);
          callback(statusOf(fault));
          done(fault.code);
        },
      );
    };

  return {
    attest: answering('Attest', async ({ request }) => {
      const { evidence, certificateRequest } = attestRequestOf(request);
      return sendable(attestationBytes(await handlers.attest(evidence, certificateRequest)));
    }),
    getGrant: answering('GetGrant', async (call) => {
      const who = caller(call);
      const { target, configurationVersion, rejectedGrantId } = grantRequestOf(call.request);
      return sendable(grantBytes(await handlers.getGrant(who, target, configurationVersion, rejectedGrantId)));
    }),
    watch: (call) => {
      const startedAt = clock.monotonic();
      const watch = createWatch(call, log, (code) => {
        watches.delete(watch.end);
        onCall('Watch', code, (clock.monotonic() - startedAt) / 1000);
      });
      try {
        const who = caller(call);
        checkWatchRequest(call.request);
        if (watches.size >= limits.watchersMax) throw new Fault('overloaded', { detail: 'Too many proxies watch this broker.' });
        watches.add(watch.end);
        watch.endAt(clock.after(who.certificateExpiresAtMs - clock.now(), () => watch.end(new Fault('identity_expired'))));
        handlers.watch(who, watch.send, watch.ended);
      } catch (error) {
        watch.end(faultFor(error, 'Watch', log));
      }
    },
    close: () => {
      for (const end of watches) end(new Fault('broker_unavailable', { detail: 'It is shutting down.' }));
    },
  };
};

/** As long as somebody is being sent it: a view that thousands watch is written once, and a broker does not keep what each of its views would be. */
const written = new WeakMap<TargetSnapshot, WeakRef<Buffer>>();
const sharedBytes = (snapshot: TargetSnapshot): Buffer => {
  const known = written.get(snapshot)?.deref();
  if (known !== undefined) return known;
  const bytes = snapshotBytes(snapshot);
  written.set(snapshot, new WeakRef(bytes));
  return bytes;
};

interface WatchStream {
  readonly send: WatchSender;
  readonly ended: AbortSignal;
  readonly end: (fault: Fault) => void;
  /** What to cancel at the end. */
  readonly endAt: (cancel: () => void) => void;
}

const createWatch = (call: ServerWritableStream<Buffer, Buffer>, log: Log, onEnd: (code: 'ok' | FaultCode) => void): WatchStream => {
  const controller = new AbortController();
  let cancelTimer: () => void = () => undefined;
  const finish = (code: 'ok' | FaultCode): boolean => {
    if (controller.signal.aborted) return false;
    controller.abort();
    cancelTimer();
    onEnd(code);
    return true;
  };
  const end = (fault: Fault): void => {
    if (finish(fault.code)) call.emit('error', statusOf(fault));
  };
  const write = (make: () => Buffer): void => {
    if (controller.signal.aborted) return;
    try {
      if (call.writableLength >= limits.watchBacklogMax) end(new Fault('broker_unavailable', { detail: 'Updates were not read.' }));
      else call.write(sendable(make()));
    } catch (error) {
      end(faultFor(error, 'Watch', log));
    }
  };
  call.once('cancelled', () => finish('ok'));
  return {
    send: {
      snapshot: (snapshot) => write(() => sharedBytes(snapshot)),
      revocation: (revocation) => write(() => revocationBytes(revocation)),
    },
    ended: controller.signal,
    end,
    endAt: (cancel) => {
      cancelTimer = cancel;
    },
  };
};
