/**
 * The port of a gRPC server. TLS is ours, so that certificates change without a restart and a client certificate is optional; what has
 * shaken hands is handed to grpc-js. A client that shows a certificate which cannot be verified is told so, in every answer. Whoever has not
 * proved who it is, yet or at all, shares a small room with others of its kind, and not for long.
 */
import { strict as assert } from 'node:assert';
import { constants, type KeyObject } from 'node:crypto';
import type { AddressInfo, Socket } from 'node:net';
import { createServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { type ConnectionInjector, experimental, type Server, ServerCredentials, ServerInterceptingCall } from '@grpc/grpc-js';
import { Fault, type FaultCode } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import { listening } from '../../ops/admin.ts';
import type { Clock } from '../../ops/clock.ts';
import { destroyWhenLost } from '../../ops/connection-end.ts';
import type { Log } from '../../ops/log.ts';
import { createNews } from '../../ops/news.ts';
import { dersOf } from '../../pki/pem.ts';
import type { ListenAddress } from '../../settings/address.ts';
import { statusOf } from '../status.ts';
import { createRoom } from './room.ts';

export interface ServerIdentity {
  /** Leaf first; the leaf is an SVID. */
  readonly certificateChainPem: string;
  readonly privateKey: KeyObject;
  /** Whose SVIDs are believed. */
  readonly clientCaPem: string;
}

export interface Listener {
  readonly address: AddressInfo;
  readonly setIdentity: (identity: ServerIdentity) => void;
  /** No new connections; resolves when those that were handed over have ended. What is still shaking hands is dropped. */
  readonly stop: () => Promise<void>;
  readonly destroy: () => void;
}

const contextOf = ({ certificateChainPem, privateKey, clientCaPem }: ServerIdentity): SecureContextOptions => {
  // An empty list would make Node believe the system's authorities.
  assert(dersOf(clientCaPem).length > 0, 'there is an authority to verify clients by');
  return {
    cert: certificateChainPem,
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    ca: clientCaPem,
    minVersion: 'TLSv1.2',
    // No resumption: a resumed session would carry on what was verified under an authority that may be gone.
    secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
  };
};

/** Answers every call on a connection with one fault. */
const refusing = (server: Server, code: FaultCode): ConnectionInjector =>
  server.createConnectionInjector(
    experimental.createServerCredentialsWithInterceptors(ServerCredentials.createInsecure(), [
      (_, call) =>
        new ServerInterceptingCall(call, { start: () => call.sendStatus(statusOf(new Fault(code, { detail: 'It cannot be verified.' }))) }),
    ]),
  );

/** One connection among those that are open. */
const nameOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`;

export const startListener = async (o: {
  readonly listen: ListenAddress;
  readonly identity: ServerIdentity;
  /** For clients that TLS has verified. */
  readonly server: Server;
  /** For the others, with the same methods. */
  readonly anonymousServer: Server;
  readonly anonymousConnectionsMax: number;
  readonly clock: Clock;
  readonly log: Log;
}): Promise<Listener> => {
  const verified = o.server.createConnectionInjector(ServerCredentials.createInsecure());
  // Without a certificate a connection is good for Attest and Health alone: see callerOf.
  const anonymous = o.anonymousServer.createConnectionInjector(ServerCredentials.createInsecure());
  const refused = {
    expired: refusing(o.anonymousServer, 'identity_expired'),
    unverified: refusing(o.anonymousServer, 'identity_refused'),
  };
  const reclaimMs = limits.anonymousReclaimMs;
  const shaking = createRoom({ guestsMax: limits.grpcHandshakesMax, reclaimMs, clock: o.clock });
  const unproved = createRoom({ guestsMax: o.anonymousConnectionsMax, reclaimMs, clock: o.clock });
  const isNews = createNews(o.clock);
  const turnAway = (socket: Socket): void => {
    const what = 'too many clients at once that have not proved who they are; some are turned away';
    if (isNews(what)) o.log.warn({ peer: socket.remoteAddress }, what);
    socket.destroy();
  };
  const injectorFor = (socket: TLSSocket): ConnectionInjector => {
    if (socket.getPeerX509Certificate() === undefined) return anonymous;
    const reason = String(socket.authorizationError);
    o.log.info({ reason, peer: socket.remoteAddress }, 'a client certificate could not be verified');
    return reason === 'CERT_HAS_EXPIRED' ? refused.expired : refused.unverified;
  };
  const injectUnproved = (socket: TLSSocket): void => {
    const name = nameOf(socket);
    if (!unproved.enter(name, socket)) return turnAway(socket);
    const cancel = o.clock.after(limits.anonymousLifetimeMs, () => socket.destroy());
    socket.once('close', () => {
      unproved.leave(name);
      cancel();
    });
    injectorFor(socket).injectConnection(socket);
  };

  const tls = createServer({
    ...contextOf(o.identity),
    ALPNProtocols: ['h2'],
    requestCert: true,
    // A certificate is optional, because Attest is how one is obtained. One that is shown must verify: `injectorFor`.
    rejectUnauthorized: false,
    handshakeTimeout: limits.grpcHandshakeTimeoutMs,
  });
  tls.maxConnections = limits.grpcConnectionsMax;
  const sockets = new Set<Socket>();
  tls.on('connection', (socket: Socket) => {
    const name = nameOf(socket);
    if (!shaking.enter(name, socket)) return turnAway(socket);
    sockets.add(socket);
    destroyWhenLost(socket, limits.lostLookMs, o.clock);
    socket.once('close', () => {
      sockets.delete(socket);
      shaking.leave(name);
    });
  });
  tls.on('tlsClientError', (error, socket) => {
    o.log.debug({ error, peer: socket.remoteAddress }, 'a handshake failed');
    socket.destroy();
  });
  const handedOver = new Set<TLSSocket>();
  let onEmpty: () => void = () => undefined;
  tls.on('secureConnection', (socket) => {
    shaking.leave(nameOf(socket));
    socket.on('error', () => socket.destroy());
    handedOver.add(socket);
    socket.once('close', () => {
      handedOver.delete(socket);
      if (handedOver.size === 0) onEmpty();
    });
    if (!tls.listening || socket.alpnProtocol !== 'h2') return void socket.destroy();
    const cancel = o.clock.after(limits.grpcHandshakeTimeoutMs, () => {
      if (socket.bytesRead === 0) socket.destroy();
    });
    socket.once('close', cancel);
    if (socket.authorized) verified.injectConnection(socket);
    else injectUnproved(socket);
  });
  tls.on('error', (error) => o.log.error({ error }, 'accepting connections failed'));
  const destroy = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  await listening(tls, o.listen.host, o.listen.port);
  return {
    address: tls.address() as AddressInfo,
    setIdentity: (identity) => tls.setSecureContext(contextOf(identity)),
    stop: async () => {
      const closed = new Promise<void>((resolve) => tls.close(() => resolve()));
      if (handedOver.size > 0) await new Promise<void>((resolve) => (onEmpty = resolve));
      destroy();
      await closed;
    },
    destroy,
  };
};
