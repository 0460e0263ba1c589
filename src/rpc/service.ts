/**
 * The methods on the wire: path, and whether each side streams. Messages pass as bytes: they are read and written in wire.ts, so that
 * what is malformed becomes a fault of ours and not a sentence of the library's.
 */
import { logVerbosity, type MethodDefinition, setLogVerbosity } from '@grpc/grpc-js';
import type { DescService } from '@bufbuild/protobuf';
import { Health } from '../proto/gen/grpc/health/v1/health_pb.js';
import { CredentialBroker } from '../proto/gen/outrider/v1/broker_pb.js';
import { AccessEvents } from '../proto/gen/outrider/v1/events_pb.js';

// By itself grpc-js writes to standard error, past our log and its rules; client and server both come by here.
setLogVerbosity(logVerbosity.NONE);

export type Method = MethodDefinition<Buffer, Buffer>;

const asIs = (bytes: Buffer): Buffer => bytes;

const methodOf = (service: DescService, name: string): Method => {
  const method = service.methods.find((candidate) => candidate.name === name);
  if (method === undefined) throw new TypeError(`${service.typeName} has no method ${name}`);
  const { methodKind } = method;
  return {
    path: `/${service.typeName}/${name}`,
    requestStream: methodKind === 'client_streaming' || methodKind === 'bidi_streaming',
    responseStream: methodKind === 'server_streaming' || methodKind === 'bidi_streaming',
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  };
};

export const brokerService = {
  name: CredentialBroker.typeName,
  methods: {
    attest: methodOf(CredentialBroker, 'Attest'),
    getGrant: methodOf(CredentialBroker, 'GetGrant'),
    watch: methodOf(CredentialBroker, 'Watch'),
  },
} as const;

export const eventsService = {
  name: AccessEvents.typeName,
  methods: { record: methodOf(AccessEvents, 'Record'), find: methodOf(AccessEvents, 'Find') },
} as const;

export const healthService = {
  name: Health.typeName,
  methods: { check: methodOf(Health, 'Check'), watch: methodOf(Health, 'Watch') },
} as const;
