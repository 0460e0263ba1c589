/**
 * The program's end of a tunnel that is intercepted: looks at the first byte, speaks TLS when the program does, and plain HTTP when
 * it does not (Node's env-proxy fetch tunnels http:// URLs too; LESSONS 2).
 */
import type { Socket } from 'node:net';
import { type SecureContext, TLSSocket } from 'node:tls';
import { limits } from '../../core/limits.ts';

const tlsHandshakeRecord = 0x16;

/** Whether the first byte begins a TLS handshake; the byte stays in the socket. Undefined when none came in time. */
export const startsWithTls = (socket: Socket, head: Buffer): Promise<boolean | undefined> => {
  if (head.length > 0) {
    socket.unshift(head);
    return Promise.resolve(head[0] === tlsHandshakeRecord);
  }
  return new Promise((resolve) => {
    const done = (answer: boolean | undefined): void => {
      clearTimeout(timer);
      socket.off('readable', look);
      socket.off('close', gone);
      resolve(answer);
    };
    const look = (): void => {
      const chunk = socket.read() as Buffer | null;
      if (chunk === null) return;
      socket.unshift(chunk);
      done(chunk[0] === tlsHandshakeRecord);
    };
    const gone = (): void => done(undefined);
    const timer = setTimeout(gone, limits.firstByteTimeoutMs);
    socket.on('readable', look);
    socket.once('close', gone);
  });
};

/** By preference. A client that offers none of them (h2 alone) gets the alert no_application_protocol (RFC 7301 section 3.2). */
const spoken = ['http/1.1', 'http/1.0'];

/** The handshake as server; undefined when it failed or took too long. */
export const acceptTls = (socket: Socket, secureContext: SecureContext): Promise<TLSSocket | undefined> =>
  new Promise((resolve) => {
    const secured = new TLSSocket(socket, {
      isServer: true,
      secureContext,
      ALPNCallback: ({ protocols }) => spoken.find((one) => protocols.includes(one)),
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
      resolve(secured);
    });
  });
