/** What was recorded, asked of the collector: messages of Find. */
import { limits } from '../../core/limits.ts';
import { FindRequestSchema, FindResponseSchema } from '../../proto/gen/outrider/v1/events_pb.js';
import { decode, encode, list, text, WireError } from './field.ts';

export interface EventQuery {
  /** Name of a target; '' for any. */
  readonly target: string;
  /** W3C trace id; '' for any. */
  readonly traceId: string;
  /** The latest so many. */
  readonly limit: number;
}

export interface FoundEvents {
  /** JSON, oldest first; src/collector/event-json.ts has their form. */
  readonly events: readonly string[];
  /** Whether these are all that the store has. */
  readonly isComplete: boolean;
}

export const findRequestBytes = (query: EventQuery): Buffer => encode(FindRequestSchema, query);

export const findRequestOf = (bytes: Uint8Array): EventQuery => {
  const { target, traceId, limit } = decode(FindRequestSchema, bytes);
  if (limit > limits.foundEventsMax) throw new WireError('limit is too large');
  return { target: text(target, 'target'), traceId: text(traceId, 'trace_id'), limit: limit === 0 ? limits.foundEventsMax : limit };
};

export const findResponseBytes = ({ events, isComplete }: FoundEvents): Buffer =>
  encode(FindResponseSchema, { events: [...events], complete: isComplete });

export const findResponseOf = (bytes: Uint8Array): FoundEvents => {
  const { events, complete } = decode(FindResponseSchema, bytes);
  return { events: list(events, 'events'), isComplete: complete };
};
