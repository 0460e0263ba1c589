/** The program's end of TLS: the handshake as server, with a leaf for the name that the connection is for. */
import type { Socket } from 'node:net';
import { type SecureContext, TLSSocket } from 'node:tls';
import { limits } from '../../core/limits.ts';

/** What a program may speak after its handshake, by our preference; it must offer one, or gets the alert no_application_protocol (RFC 7301). */
export type Spoken = 'h2' | 'http/1.1' | 'http/1.0';

/** HTTP/1.1 unless the program speaks nothing but HTTP/2, or the target needs HTTP/2 (DESIGN section 9). */
const preferences = (prefersH2: boolean): readonly Spoken[] =>
  prefersH2 ? ['h2', 'http/1.1', 'http/1.0'] : ['http/1.1', 'http/1.0', 'h2'];

export interface TlsTerms {
  readonly secureContext: SecureContext;
  readonly prefersH2: boolean;
}

/** The handshake as server; undefined when it failed or took too long. */
export const acceptTls = (socket: Socket, { secureContext, prefersH2 }: TlsTerms): Promise<TLSSocket | undefined> =>
  new Promise((resolve) => {
    const secured = new TLSSocket(socket, {
      isServer: true,
      secureContext,
      ALPNCallback: ({ protocols }) => preferences(prefersH2).find((one) => protocols.includes(one)),
    });
    const failed = (): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(undefined);
    };
    const timer = setTimeout(failed, limits.clientHandshakeTimeoutMs);
    // Stays: a connection that breaks later must not end the process.
    secured.on('error', failed);
    socket.once('close', failed);
    secured.once('secure', () => {
      clearTimeout(timer);
      socket.off('close', failed);
      // As tls.Server does for its own sockets: node:http2 waits for it.
      (secured as { secureConnecting?: boolean }).secureConnecting = false;
      resolve(secured);
    });
  });
