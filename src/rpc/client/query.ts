/** What the collector has of the caller's own events. */
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { eventsService } from '../service.ts';
import type { Svid } from '../svid.ts';
import { type EventQuery, findRequestBytes, findResponseOf, type FoundEvents, WireError } from '../wire.ts';
import { openConnection } from './connection.ts';
import { type Peer, trustOf } from './peer.ts';

export interface FindOptions {
  readonly collector: Peer;
  readonly svid: Svid;
  readonly query: EventQuery;
}

/** Faults are named after the broker, as for any peer: the caller knows that it is the collector. */
export const findEvents = async ({ collector, svid, query }: FindOptions): Promise<FoundEvents> => {
  const connection = openConnection(trustOf(collector, svid));
  try {
    return findResponseOf(await connection.unary(eventsService.methods.find, findRequestBytes(query), limits.findTimeoutMs));
  } catch (error) {
    throw error instanceof WireError ? new Fault('broker_error', { cause: error }) : error;
  } finally {
    connection.close();
  }
};
