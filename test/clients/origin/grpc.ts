/**
 * gRPC at the origin: a call of each kind on text (google.protobuf.StringValue, so that no client needs generated code), one that
 * fails, one that never answers. Keeps which calls were cancelled.
 */
import type { Duplex } from 'node:stream';
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { StringValueSchema } from '@bufbuild/protobuf/wkt';
import {
  type handleBidiStreamingCall,
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  status,
} from '@grpc/grpc-js';
import type { Arrival } from '../origin.ts';

export interface GrpcService {
  /** Takes a connection that speaks HTTP/2. */
  readonly serve: (socket: Duplex) => void;
  /** Methods whose unanswered calls were cancelled, in order; cleared when asked. */
  readonly cancelled: () => readonly string[];
  readonly close: () => void;
}

export const service = 'outrider.test.Echo';

const serialize = (value: string): Buffer => Buffer.from(toBinary(StringValueSchema, { $typeName: 'google.protobuf.StringValue', value }));
const deserialize = (bytes: Buffer): string => fromBinary(StringValueSchema, bytes).value;

const method = (name: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/${service}/${name}`,
  requestStream,
  responseStream,
  requestSerialize: serialize,
  requestDeserialize: deserialize,
  responseSerialize: serialize,
  responseDeserialize: deserialize,
});

const definition: ServiceDefinition = {
  Unary: method('Unary', false, false),
  Fails: method('Fails', false, false),
  Silent: method('Silent', false, false),
  Forbidden: method('Forbidden', false, false),
  ServerStream: method('ServerStream', false, true),
  ClientStream: method('ClientStream', true, false),
  Bidi: method('Bidi', true, true),
};

const trailers = (): Metadata => {
  const metadata = new Metadata();
  metadata.set('x-outrider-trailer', 'from the origin');
  return metadata;
};

const unauthenticated = { code: status.UNAUTHENTICATED, details: 'no credential' };

interface AnyCall {
  readonly metadata: Metadata;
  readonly on: (event: 'cancelled', listener: () => void) => unknown;
}

export const createGrpcService = (arrived: (arrival: Arrival) => boolean): GrpcService => {
  let cancelled: string[] = [];
  const admits = (call: AnyCall, name: string): boolean => {
    const authorization = call.metadata.get('authorization').map(String);
    return arrived({ protocol: 'grpc', method: 'POST', path: `/${service}/${name}`, authorization, expect: undefined });
  };

  /** The end of a call that was never answered to its end: grpc-js tells of it as of one that was. */
  const keepOpen = (call: AnyCall, name: string): void => void call.on('cancelled', () => cancelled.push(name));

  const Unary: handleUnaryCall<string, string> = (call, done) =>
    admits(call, 'Unary') ? done(null, `echo ${call.request}`, trailers()) : done(unauthenticated);
  const Fails: handleUnaryCall<string, string> = (call, done) => {
    admits(call, 'Fails');
    done({ code: status.RESOURCE_EXHAUSTED, details: 'none left: 100 %', metadata: trailers() });
  };
  const Silent: handleUnaryCall<string, string> = (call) => {
    if (admits(call, 'Silent')) keepOpen(call, 'Silent');
  };
  // What policy denies never comes here.
  const Forbidden: handleUnaryCall<string, string> = (call, done) => {
    admits(call, 'Forbidden');
    done(null, 'reached the origin');
  };
  /** Counts up to the number asked for; for ever when that is 0. */
  const ServerStream: handleServerStreamingCall<string, string> = (call) => {
    if (!admits(call, 'ServerStream')) return void call.destroy(Object.assign(new Error('no credential'), unauthenticated));
    const wanted = Number(call.request);
    for (let n = 1; n <= Math.max(wanted, 1); n += 1) call.write(String(n));
    if (wanted > 0) call.end(trailers());
    else keepOpen(call, 'ServerStream');
  };
  const ClientStream: handleClientStreamingCall<string, string> = (call, done) => {
    if (!admits(call, 'ClientStream')) return done(unauthenticated);
    const parts: string[] = [];
    call.on('data', (part: string) => parts.push(part));
    call.on('end', () => done(null, parts.join('+'), trailers()));
  };
  const Bidi: handleBidiStreamingCall<string, string> = (call) => {
    if (!admits(call, 'Bidi')) return void call.destroy(Object.assign(new Error('no credential'), unauthenticated));
    call.on('data', (part: string) => call.write(`echo ${part}`));
    call.on('end', () => call.end(trailers()));
  };

  const server = new Server({ 'grpc.enable_channelz': 0 });
  server.addService(definition, { Unary, Fails, Silent, Forbidden, ServerStream, ClientStream, Bidi });
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  return {
    serve: (socket) => injector.injectConnection(socket),
    cancelled: () => {
      const taken = cancelled;
      cancelled = [];
      return taken;
    },
    close: () => {
      server.forceShutdown();
      injector.destroy();
    },
  };
};
