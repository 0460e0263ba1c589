/**
 * What every way in comes to: a connection that is for one place is looked at, spoken TLS with when the program does, and given to the
 * HTTP engine of its protocol. Knows sockets; nothing of policy or credentials.
 */
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { DialAddress } from '../../net/dial.ts';
import type { Scheme } from '../../core/destination.ts';
import type { ConnectionClaims, Connections } from './connection.ts';
import { acceptTls, type TlsTerms } from './handshake.ts';
import type { Http1Engine } from './http1.ts';
import type { Http2Engine } from './http2.ts';
import { sniff } from './sniff.ts';

/** What a connection is for, whatever way it came in. */
export interface Purpose {
  /** `host:port`; undefined where only its requests say. */
  readonly connect: string | undefined;
  /** Scheme of requests inside TLS with the program, and outside of it. */
  readonly schemes: { readonly tls: Scheme; readonly clear: Scheme };
  /** Undefined: TLS is not spoken with the program. */
  readonly tls: TlsTerms | undefined;
  readonly ownAuthorities?: readonly string[];
  readonly originalAddress?: DialAddress | undefined;
}

export interface ServingParts {
  readonly connections: Connections;
  readonly http1: Http1Engine;
  readonly http2: Http2Engine;
  readonly refused: (fault: Fault) => void;
  /** The engine's end of a connection whose TLS was taken off. */
  readonly secured: (socket: Socket, inner: TLSSocket) => void;
}

export type Serve = (socket: Socket, head: Buffer, purpose: Purpose) => Promise<void>;

export const createServing = ({ connections, http1, http2, refused, secured: onSecured }: ServingParts): Serve => {
  const giveUp = (socket: Socket, detail: string): void => {
    refused(new Fault('request_malformed', { detail }));
    socket.destroySoon();
  };

  return async (socket, head, { connect, schemes, tls, ownAuthorities = [], originalAddress }) => {
    const claims = (scheme: Scheme, sni?: string): ConnectionClaims => ({ connect, sni, scheme, ownAuthorities, originalAddress });
    const kind = await sniff(socket, head, limits.firstByteTimeoutMs);
    if (kind === 'gone') return void socket.destroy();
    if (kind === 'silent') return giveUp(socket, 'Nothing was sent.');
    if (kind === 'other') return giveUp(socket, 'It is neither TLS nor HTTP.');
    if (kind !== 'tls') {
      connections.set(socket, claims(schemes.clear));
      return kind === 'h2' ? http2.serve(socket) : http1.serve(socket);
    }
    if (!tls) {
      // Said in its own language; HTTP would look like a broken handshake.
      socket.write(handshakeFailure);
      return giveUp(
        socket,
        'TLS is not spoken here: this port is for plain http on this machine, and the proxy speaks TLS with the target.',
      );
    }
    const secured = await acceptTls(socket, tls);
    if (!secured) return undefined;
    onSecured(socket, secured);
    // `servername` is false when the program sent none.
    connections.set(secured, claims(schemes.tls, (secured as { servername?: string | false }).servername || undefined));
    if (secured.alpnProtocol === 'h2') return http2.serve(secured);
    return http1.serve(secured);
  };
};

/** A TLS record with the fatal alert handshake_failure (RFC 8446 section 6). */
const handshakeFailure = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28]);
