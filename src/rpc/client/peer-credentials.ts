/**
 * TLS to a peer that is known by its SPIFFE ID. grpc-js' own TLS leaves a handshake without a deadline and its failure without a
 * code, so the handshake is ours: chain to the trust bundle, then the exact SPIFFE ID in place of the host name, h2 by ALPN, all
 * within a deadline. Why a peer was not trusted is kept, because a call only learns that there is no connection.
 */
import { isIP } from 'node:net';
import { connect, type ConnectionOptions, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls';
import { CallCredentials, ChannelCredentials, type experimental } from '@grpc/grpc-js';
import { limits } from '../../core/limits.ts';
import { destroyWhenLost } from '../../ops/connection-end.ts';
import { spiffeIdOf } from '../../pki/svid.ts';

/** Who is on the other side, and who we are. */
export interface PeerTrust {
  readonly address: string;
  readonly spiffeId: string;
  /** PEM, at least one certificate: without one Node would take the system's. */
  readonly trustBundlePem: string;
  readonly identity: { readonly certificateChainPem: string; readonly privateKeyPem: string } | undefined;
}

const contextOf = ({ trustBundlePem, identity }: PeerTrust): SecureContext =>
  createSecureContext({
    ca: trustBundlePem,
    minVersion: 'TLSv1.3',
    ...(identity === undefined ? {} : { cert: identity.certificateChainPem, key: identity.privateKeyPem }),
  });

export class PeerCredentials extends ChannelCredentials {
  readonly #peer: PeerTrust;
  readonly #context: SecureContext;
  readonly #handshakeTimeoutMs: number;
  #untrusted: Error | undefined;

  constructor(peer: PeerTrust, handshakeTimeoutMs: number = limits.grpcHandshakeTimeoutMs) {
    super();
    this.#handshakeTimeoutMs = handshakeTimeoutMs;
    this.#peer = peer;
    this.#context = contextOf(peer);
  }

  /** Why the peer's certificate was refused when it was last seen; undefined when it was accepted or not seen. */
  get untrusted(): Error | undefined {
    return this.#untrusted;
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return this === other;
  }

  override _createSecureConnector(): experimental.SecureConnector {
    const shaking = new Set<TLSSocket>();
    return {
      connect: async (socket) => {
        const secured = connect({ ...this.#optionsFor(this.#peer), socket });
        shaking.add(secured);
        try {
          await handshakeOf(secured, this.#handshakeTimeoutMs);
          this.#untrusted = undefined;
          destroyWhenLost(secured);
        } catch (error) {
          // Set by Node when the chain or our comparison failed, and by nothing else.
          if (secured.authorizationError) this.#untrusted = error as Error;
          throw error;
        } finally {
          shaking.delete(secured);
        }
        return { socket: secured, secure: true };
      },
      waitForReady: () => Promise.resolve(),
      getCallCredentials: () => CallCredentials.createEmpty(),
      destroy: () => {
        for (const socket of shaking) socket.destroy();
      },
    };
  }

  #optionsFor({ address, spiffeId }: PeerTrust): ConnectionOptions {
    const host = address.slice(0, address.lastIndexOf(':'));
    const isName = isIP(host) === 0 && !host.startsWith('[');
    return {
      secureContext: this.#context,
      ALPNProtocols: ['h2'],
      // Server names are never addresses (RFC 6066 section 3).
      ...(isName ? { servername: host } : {}),
      // Called once the chain has been verified, in place of the comparison with the host name.
      checkServerIdentity: (_, { raw }) =>
        spiffeIdOf(raw) === spiffeId ? undefined : new Error(`the certificate is not one for ${spiffeId}`),
    };
  }
}

/** Settles with the TLS handshake. A peer that is silent after it, too, loses the connection: grpc-js would wait for ever. */
const handshakeOf = (socket: TLSSocket, timeoutMs: number): Promise<void> =>
  new Promise((resolve, reject) => {
    const failed = (error: Error): void => {
      socket.destroy();
      reject(error);
    };
    const deadline = setTimeout(() => {
      // The peer's SETTINGS are the first bytes there are (RFC 9113 section 3.4).
      if (socket.bytesRead === 0) failed(new Error('the peer did not answer in time'));
    }, timeoutMs);
    deadline.unref();
    socket.once('secureConnect', () => {
      if (socket.authorized && socket.alpnProtocol === 'h2') resolve();
      else failed(new Error('the peer does not speak HTTP/2'));
    });
    socket.on('error', failed);
    socket.once('close', () => {
      clearTimeout(deadline);
      reject(new Error('the peer closed the connection'));
    });
  });
