/**
 * The calls that proxies and collectors make. Every peer is known by its SPIFFE ID, every call has a deadline, and whatever goes wrong
 * is a Fault: the peer's own, or what became of the connection. No type of the library's leaves this folder.
 */
export { type AttestOptions, attest } from './client/attest.ts';
export { type BrokerChannel, openBroker, type WatchListener } from './client/broker.ts';
export { type EventChannel, type EventChannelOptions, type EventListener, openEvents } from './client/events.ts';
export { findEvents, type FindOptions } from './client/query.ts';
export type { Peer } from './client/peer.ts';
export type { Revocation } from './wire.ts';
