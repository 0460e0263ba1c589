/**
 * Requests to targets: the last hop. Sends exactly what it is given (field order, case, duplicates and path included), never follows
 * redirects, never repeats what a target may have seen, and keeps connections apart by destination and terms. What carries an exchange
 * is chosen here and in outbound/lane.ts: undici (outbound/pooled.ts), node:http (dedicated.ts) or HTTP/2 (h2.ts).
 */
import type { Duplex } from 'node:stream';
import { type Destination, hostPort } from '../core/destination.ts';
import { asFault, type Fault } from '../core/fault.ts';
import type { HeaderList } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import type { Secret } from '../core/secret.ts';
import type { TargetProtocol, TlsVersion } from '../core/target.ts';
import type { DialAddress, Dialer } from './dial.ts';
import type { DialPolicy } from './guard.ts';
import { ordinaryPatience, type Patience } from './outbound/engine.ts';
import { createLane, type Lane } from './outbound/lane.ts';
import { Reception } from './outbound/reception.ts';
import { createTrust, trustKey } from './outbound/trust.ts';

/** What a connection to a target must be. Requests that differ in any of it never share a connection (THREATS E-19). */
export interface ConnectionTerms {
  readonly protocol: TargetProtocol;
  /** PEM to trust instead of the proxy's own store; '' for that. */
  readonly trustBundlePem: string;
  readonly tlsVersionMin: TlsVersion;
  /** Shown when the target asks for one; undefined for none. */
  readonly clientCertificate: ClientCertificate | undefined;
}

export interface ClientCertificate {
  /** PEM: the chain, leaf first, and its private key. */
  readonly pem: Secret;
  /** Names it in keys of caches: equal for equal certificates. */
  readonly fingerprint: string;
}

export interface OutboundBody {
  readonly chunks: AsyncIterable<Uint8Array>;
  /** The trailer fields, once the chunks have ended. */
  readonly trailers: () => HeaderList;
}

export interface OutboundRequest {
  readonly destination: Destination;
  readonly connection: ConnectionTerms;
  readonly dialPolicy: DialPolicy;
  /** Dialled instead of what the name resolves to: only for traffic without a credential. */
  readonly address: DialAddress | undefined;
  readonly method: string;
  /** Path and query, written as they are. */
  readonly path: string;
  /** Without Host, Expect, Transfer-Encoding and hop-by-hop fields. Content-Length, when present, frames the body. */
  readonly headers: HeaderList;
  readonly body: OutboundBody | undefined;
  /** The protocol to change to, written as `Connection: upgrade` and `Upgrade`; always over HTTP/1.1. */
  readonly upgrade: string | undefined;
  /** Sends `Expect: 100-continue` and the body only after the target's 100 (RFC 9110 section 10.1.1). */
  readonly expectsContinue: boolean;
}

/** Where a response goes as it arrives. */
export interface ResponseReceiver {
  /** An interim answer (1xx, never 101). A 100 is passed only when the request expects it. */
  readonly informational: (status: number, headers: HeaderList) => void;
  /** The final head, once. Throws a Fault to refuse it. */
  readonly head: (status: number, reason: string, headers: HeaderList) => void;
  /** Body bytes; false asks to pause until the function given to `onDrain` is called. */
  readonly data: (chunk: Uint8Array) => boolean;
  readonly onDrain: (resume: () => void) => void;
  /** The target answered 101 to our upgrade: the connection is the receiver's from here, bytes after the head still in it. */
  readonly upgraded: (headers: HeaderList, target: Duplex) => void;
}

export interface Sending {
  /** Settles with the trailer fields when the response is complete (or upgraded); rejects with a Fault. */
  readonly done: Promise<HeaderList>;
  /** Gives up: the connection (HTTP/2: the stream) to the target is ended, not reused. */
  readonly abort: (reason: Fault) => void;
}

export interface Outbound {
  readonly send: (request: OutboundRequest, receiver: ResponseReceiver) => Sending;
  readonly close: () => Promise<void>;
}

export interface OutboundOptions {
  readonly dialer: Dialer;
  /** The proxy's own trust store, PEM. Must not contain the interception authority. */
  readonly trustPems: readonly string[];
  /** How long to wait for what; limits.ts unless a test says otherwise. */
  readonly patience?: Partial<Patience>;
  /** Monotonic ms. */
  readonly now?: () => number;
}

export const createOutbound = ({ dialer, trustPems, patience, now = () => performance.now() }: OutboundOptions): Outbound => {
  const parts = { dialer, trust: createTrust(trustPems), patience: { ...ordinaryPatience, ...patience }, now };
  const lanes = new Map<string, Held>();
  /** Given up while something was under way on them. */
  const retiring = new Set<Lane>();
  /** Where the last request under the same terms went: the key of a lane may hold a bundle of certificates, and most requests repeat. */
  const latest = new WeakMap<ConnectionTerms, { readonly shared: Shared; readonly held: Held }>();
  let uses = 0;

  const laneFor = (request: OutboundRequest): Lane => {
    uses += 1;
    const before = latest.get(request.connection);
    if (before && !before.held.isRetired && isAlike(before.shared, request)) {
      before.held.usedAt = uses;
      return before.held.lane;
    }
    const key = keyOf(request);
    const held = lanes.get(key) ?? { lane: createLane(request, parts), usedAt: 0, isRetired: false };
    if (lanes.size >= limits.targetPoolsMax && !lanes.has(key)) retireOldest();
    lanes.set(key, held);
    held.usedAt = uses;
    // Not the request itself, which would keep its body and its credential.
    const { destination, connection, dialPolicy, address } = request;
    latest.set(connection, { shared: { destination, dialPolicy, address }, held });
    return held.lane;
  };
  const retireOldest = (): void => {
    const [key, oldest] = [...lanes].reduce((one, other) => (other[1].usedAt < one[1].usedAt ? other : one));
    lanes.delete(key);
    oldest.isRetired = true;
    retiring.add(oldest.lane);
    const gone = (): void => void retiring.delete(oldest.lane);
    oldest.lane.retire().then(gone, gone);
  };

  return {
    send: (request, receiver) => {
      const reception = new Reception(receiver, request.expectsContinue);
      try {
        laneFor(request).send(request, reception);
      } catch (thrown) {
        reception.fail(asFault(thrown));
      }
      return { done: reception.done, abort: (reason) => reception.fail(reason) };
    },
    close: async () => {
      const all = [...[...lanes.values()].map(({ lane }) => lane), ...retiring];
      for (const held of lanes.values()) held.isRetired = true;
      lanes.clear();
      await Promise.all(all.map((lane) => lane.destroy()));
    },
  };
};

type Shared = Pick<OutboundRequest, 'destination' | 'dialPolicy' | 'address'>;

interface Held {
  readonly lane: Lane;
  /** Counts requests: the lane with the lowest is the one to give up. */
  usedAt: number;
  isRetired: boolean;
}

/** What decides about a connection, by identity where that is enough to be sure: then the keys are equal. */
const isAlike = (one: Shared, other: Shared): boolean =>
  one.destination.host === other.destination.host &&
  one.destination.port === other.destination.port &&
  one.destination.scheme === other.destination.scheme &&
  one.dialPolicy === other.dialPolicy &&
  one.address === other.address;

/** Equal only for requests that may share a connection: every input of dialling and of trust is in it (THREATS E-19). */
const keyOf = ({ destination: { scheme, host, port }, dialPolicy, connection, address }: OutboundRequest): string =>
  [
    scheme,
    hostPort({ host, port }),
    address ? hostPort({ host: address.address, port: address.port }) : '',
    dialPolicy.isForTarget === true,
    dialPolicy.privateAllowed,
    dialPolicy.named.join(),
    connection.protocol,
    trustKey(connection),
  ].join('\n');
