/**
 * Everything open towards one destination under one set of terms: the engines, made when first needed, the TLS session to resume, and
 * which protocol the target was found to speak. Whoever holds a lane has already made sure that the requests may share it.
 */
import type { Socket } from 'node:net';
import { Fault } from '../../core/fault.ts';
import { isGrpc } from '../../core/grpc.ts';
import { valuesOf } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { Alpn, Dialer } from '../dial.ts';
import type { ConnectionTerms, OutboundRequest } from '../outbound.ts';
import { createDedicated } from './dedicated.ts';
import type { Elsewhere, Engine, Open, Patience } from './engine.ts';
import { createH2 } from './h2.ts';
import { createPooled } from './pooled.ts';
import type { Reception } from './reception.ts';
import type { createTrust } from './trust.ts';

export interface Lane {
  readonly send: (request: OutboundRequest, reception: Reception) => void;
  readonly retire: () => Promise<void>;
  readonly destroy: () => Promise<void>;
}

export interface LaneParts {
  readonly dialer: Dialer;
  readonly trust: ReturnType<typeof createTrust>;
  readonly patience: Patience;
  /** Monotonic ms. */
  readonly now: () => number;
}

type EngineKind = 'pooled' | 'dedicated' | 'h2';

/** `shared`: what all requests of this lane have in common is taken from it. */
export const createLane = (shared: OutboundRequest, parts: LaneParts): Lane => {
  const { destination, connection } = shared;
  const { patience, now } = parts;
  const open = opener(shared, parts);
  const engines = new Map<EngineKind, Engine>();
  let underWay = 0;
  let learned: { readonly alpn: Alpn; readonly until: number } | undefined;

  const engine = (kind: EngineKind): Engine => {
    const known = engines.get(kind);
    if (known) return known;
    const made =
      kind === 'pooled' ? createPooled(destination, open, patience) : { dedicated: createDedicated, h2: createH2 }[kind](open, patience);
    engines.set(kind, made);
    return made;
  };
  const found = (): Alpn | undefined => (learned && now() < learned.until ? learned.alpn : undefined);

  const wanted = (request: OutboundRequest): Alpn => {
    const needsH2 = isGrpc(request.headers);
    const isH1 = connection.protocol === 'http1' || request.upgrade !== undefined;
    if (needsH2 && isH1) throw new Fault('target_protocol', { detail: 'gRPC needs HTTP/2, and this target is configured for HTTP/1.1.' });
    if (request.upgrade !== undefined && connection.protocol === 'h2') {
      throw new Fault('target_protocol', { detail: 'An upgrade needs HTTP/1.1, and this target is configured for HTTP/2.' });
    }
    if (isH1) return 'http/1.1';
    if (needsH2 || connection.protocol === 'h2') return 'h2';
    return found() ?? 'http/1.1';
  };

  /** The other protocol, once, where the choice is ours: what was refused in the handshake has not been sent. */
  const otherwise = (request: OutboundRequest, reception: Reception, refused: Alpn): Elsewhere | undefined => {
    const isFree =
      connection.protocol === 'auto' && destination.scheme === 'https' && request.upgrade === undefined && !isGrpc(request.headers);
    if (!isFree) return undefined;
    return () => {
      const alpn = refused === 'h2' ? 'http/1.1' : 'h2';
      learned = { alpn, until: now() + limits.targetProtocolLearnedMs };
      engine(kindOf(request, alpn)).send(request, reception);
      return true;
    };
  };

  const admit = (reception: Reception): void => {
    if (underWay >= limits.targetConnectionsMax + limits.targetQueueMax)
      throw new Fault('overloaded', { detail: 'Too many requests wait for this target.' });
    underWay += 1;
    reception.onSettled(() => {
      underWay -= 1;
    });
  };

  return {
    send: (request, reception) => {
      const alpn = wanted(request);
      const kind = kindOf(request, alpn);
      admit(reception);
      engine(kind).send(request, reception, otherwise(request, reception, alpn));
    },
    retire: async () => {
      await Promise.all([...engines.values()].map((one) => one.retire()));
    },
    destroy: async () => {
      await Promise.all([...engines.values()].map((one) => one.destroy()));
    },
  };
};

/** undici, unless the exchange needs what it cannot do: wait for 100, write trailers (only a chunked body has any), change protocols. */
const kindOf = ({ headers, body, upgrade, expectsContinue }: OutboundRequest, alpn: Alpn): EngineKind => {
  if (alpn === 'h2') return 'h2';
  const isChunked = body !== undefined && valuesOf(headers, 'content-length').length === 0;
  return upgrade !== undefined || (expectsContinue && body) || isChunked ? 'dedicated' : 'pooled';
};

const opener = ({ destination, dialPolicy, address, connection }: OutboundRequest, { dialer, trust }: LaneParts): Open => {
  let session: Buffer | undefined;
  const terms = (alpn: Alpn, { tlsVersionMin }: ConnectionTerms) => ({
    secureContext: trust(connection),
    alpn: [alpn],
    versionMin: tlsVersionMin,
    session,
    onSession: (latest: Buffer): void => {
      session = latest;
    },
  });
  return async (alpn): Promise<Socket> => {
    const isTls = destination.scheme === 'https';
    const { socket, alpn: chosen } = await dialer.open(destination, dialPolicy, isTls ? terms(alpn, connection) : undefined, address);
    // A target that chooses nothing speaks HTTP/1.1 (RFC 9112 has no other way to say it); without TLS there is no choosing.
    if (!isTls || chosen === alpn || (chosen === '' && alpn === 'http/1.1')) return socket;
    socket.on('error', () => undefined);
    socket.destroy();
    throw new Fault('target_protocol', { detail: `It chose ${chosen === '' ? 'no protocol' : 'another protocol'} in the TLS handshake.` });
  };
};
