/** The standard health service's messages (grpc.health.v1). */
import {
  HealthCheckRequestSchema,
  HealthCheckResponse_ServingStatus as Serving,
  HealthCheckResponseSchema,
} from '../../proto/gen/grpc/health/v1/health_pb.js';
import { decode, encode } from './field.ts';

export type Health = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

/** The service that is asked about; '' for the server as a whole. */
export const healthRequestOf = (bytes: Uint8Array): string => decode(HealthCheckRequestSchema, bytes).service;

export const healthBytes = (health: Health): Buffer => encode(HealthCheckResponseSchema, { status: Serving[health] });
