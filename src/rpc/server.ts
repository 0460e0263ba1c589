/**
 * The gRPC servers of broker and collector: one port, TLS, the role's methods and the health service. Here is who may call what: Attest
 * and Health are open, everything else takes an SVID. What a call means is the role's business.
 */
import { strict as assert } from 'node:assert';
import type { AddressInfo } from 'node:net';
import { Server, type ServerOptions, type UntypedServiceImplementation } from '@grpc/grpc-js';
import { limits } from '../core/limits.ts';
import { parseSpiffeId } from '../core/spiffe-id.ts';
import { type Clock, systemClock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import { dersOf } from '../pki/pem.ts';
import { spiffeIdOf } from '../pki/svid.ts';
import type { ListenAddress } from '../settings/address.ts';
import { type BrokerHandlers, createBrokerMethods, type OnCall } from './server/broker.ts';
import { createEventMethods, type FindEvents, type RecordEvents } from './server/events.ts';
import { createHealthService } from './server/health.ts';
import { type ServerIdentity, startListener } from './server/listener.ts';
import { brokerService, eventsService, healthService, type Method } from './service.ts';

export type { BrokerHandlers, BrokerMethod, OnCall, WatchSender } from './server/broker.ts';
export type { CallerIdentity } from './server/caller.ts';
export type { FindEvents, RecordEvents } from './server/events.ts';
export type { ServerIdentity } from './server/listener.ts';
export type { Attestation, EventQuery, FoundEvents, Revocation } from './wire.ts';

export interface RpcServer {
  readonly address: AddressInfo;
  /** For new connections; open ones go on. */
  setIdentity(identity: ServerIdentity): void;
  /** What the health service says; at first true. Calls are answered either way. */
  setServing(serving: boolean): void;
  /** Streams are told to go elsewhere, unary calls in flight finish, each within its own deadline. */
  close(): Promise<void>;
}

interface Common {
  readonly listen: ListenAddress;
  readonly identity: ServerIdentity;
  readonly log: Log;
  readonly clock: Clock;
}

export interface BrokerServerOptions extends Common {
  readonly handlers: BrokerHandlers;
  readonly onCall?: OnCall;
}

export interface EventsServerOptions extends Common {
  readonly record: RecordEvents;
  readonly find: FindEvents;
  readonly onStream?: (delta: 1 | -1) => void;
}

export const startBrokerServer = ({ handlers, onCall = () => undefined, ...common }: BrokerServerOptions): Promise<RpcServer> => {
  const { clock, log, identity } = common;
  const { attest, getGrant, watch, close } = createBrokerMethods({ handlers, onCall, trustDomain: trustDomainOf(identity), clock, log });
  return start(common, {
    ...brokerService,
    anonymousConnectionsMax: limits.anonymousConnectionsMax,
    implementation: { attest, getGrant, watch },
    close,
  });
};

export const startEventsServer = ({ record, find, onStream = () => undefined, ...common }: EventsServerOptions): Promise<RpcServer> => {
  const { clock, log, identity } = common;
  const methods = createEventMethods({ record, find, onStream, trustDomain: trustDomainOf(identity), clock, log });
  return start(common, {
    ...eventsService,
    anonymousConnectionsMax: limits.healthConnectionsMax,
    implementation: { record: methods.record, find: methods.find },
    close: methods.close,
  });
};

/** Callers are of the server's own trust domain: what its certificate says. */
const trustDomainOf = ({ certificateChainPem }: ServerIdentity): string => {
  const [leaf] = dersOf(certificateChainPem);
  const id = leaf === undefined ? undefined : spiffeIdOf(leaf);
  assert(id !== undefined, "the server's certificate is an SVID");
  return (parseSpiffeId(id) as { trustDomain: string }).trustDomain;
};

const serverOptions: ServerOptions = {
  'grpc.enable_channelz': 0,
  'grpc.max_receive_message_length': limits.messageBytesMax,
  'grpc.max_send_message_length': limits.messageBytesMax,
  'grpc.max_concurrent_streams': limits.grpcStreamsMax,
  'grpc.keepalive_time_ms': limits.grpcKeepAliveIntervalMs,
  'grpc.keepalive_timeout_ms': limits.grpcKeepAliveTimeoutMs,
  'grpc.max_connection_idle_ms': limits.grpcIdleTimeoutMs,
  'grpc-node.max_session_memory': limits.grpcSessionMemoryMaxMb,
};

/** For clients that have not proved who they are: few calls, small ones, and an end that is told of with GOAWAY before it comes. */
const anonymousServerOptions: ServerOptions = {
  ...serverOptions,
  'grpc.max_receive_message_length': limits.anonymousMessageBytesMax,
  'grpc.max_concurrent_streams': limits.anonymousStreamsMax,
  'grpc.max_connection_age_ms': limits.anonymousAgeMs,
  'grpc-node.max_session_memory': limits.anonymousSessionMemoryMaxMb,
};

interface Role {
  readonly anonymousConnectionsMax: number;
  readonly name: string;
  readonly methods: Readonly<Record<string, Method>>;
  readonly implementation: UntypedServiceImplementation;
  /** Ends the streams. */
  readonly close: () => void;
}

const start = async ({ listen, identity, clock, log }: Common, role: Role): Promise<RpcServer> => {
  const health = createHealthService(role.name);
  const serverOf = (options: ServerOptions): Server => {
    const server = new Server(options);
    server.addService(role.methods, role.implementation);
    server.addService(healthService.methods, health.handlers);
    return server;
  };
  const [server, anonymousServer] = [serverOf(serverOptions), serverOf(anonymousServerOptions)];
  const { anonymousConnectionsMax } = role;
  const listener = await startListener({ listen, identity, server, anonymousServer, anonymousConnectionsMax, clock, log });

  const shutDown = async (): Promise<void> => {
    health.setServing(false);
    const stopped = listener.stop();
    role.close();
    health.close();
    // Its callback comes at once since Node closes sessions with their server (grpc-js 1.14): connections are what to wait for.
    for (const one of [server, anonymousServer]) one.tryShutdown(() => undefined);
    // Past the longest deadline of a call nobody waits for an answer any more.
    const cancel = systemClock.after(limits.attestTimeoutMs, listener.destroy);
    await stopped;
    cancel();
  };
  let closing: Promise<void> | undefined;
  return {
    address: listener.address,
    setIdentity: listener.setIdentity,
    setServing: health.setServing,
    close: () => (closing ??= shutDown()),
  };
};
