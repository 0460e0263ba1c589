/**
 * The proxy that connections to targets go through (a company's way out): asks it for a tunnel with CONNECT (RFC 9110 section 9.3.6)
 * over a connection that dial.ts opened. What it answers is shown to nobody but for its status; the credential it is given is
 * written here and nowhere else, and never reaches a target.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import type { Socket } from 'node:net';
import { type Destination, hostPort, type Scheme } from '../core/destination.ts';
import { asFault, Fault } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import { Secret } from '../core/secret.ts';
import type { NoProxy } from './no-proxy.ts';

export interface ProxyChain {
  readonly proxy: { readonly scheme: Scheme; readonly host: string; readonly port: number };
  /** `user:password` now, or undefined for none. Called for each connection; what it throws ends that connection alone. */
  readonly credential: () => Secret | undefined;
  readonly noProxy: NoProxy;
  /** PEM of the authorities that an https proxy's certificate must chain to. */
  readonly trustPems: readonly string[];
}

/** Reads `user:password` from a file of one line, each time it is called. */
export const proxyCredentialFile = (file: string) => (): Secret => {
  const descriptor = openSync(file, 'r');
  try {
    const buffer = Buffer.alloc(limits.credentialBytesMax + 1);
    const size = readSync(descriptor, buffer);
    if (size > limits.credentialBytesMax) throw new Error(`${file} is longer than ${limits.credentialBytesMax} bytes`);
    return new Secret(buffer.toString('utf8', 0, size).replace(/\r?\n$/, ''));
  } finally {
    closeSync(descriptor);
  }
};

/**
 * Asks for a tunnel and waits for it; afterwards what came behind the answer's head is still in the socket.
 * Throws upstream_proxy_refused or upstream_proxy_unreachable; the socket is the caller's to destroy then.
 */
export const requestTunnel = async (socket: Socket, to: Pick<Destination, 'host' | 'port'>, chain: ProxyChain): Promise<void> => {
  const authority = hostPort(to);
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${authorization(chain)}\r\n`);
  await tunnelOpened(socket);
};

const authorization = ({ credential }: ProxyChain): string => {
  let secret: Secret | undefined;
  try {
    secret = credential();
  } catch (cause) {
    throw new Fault('upstream_proxy_refused', { detail: 'The credentials for it cannot be read.', cause });
  }
  if (secret === undefined) return '';
  const userAndPassword = secret.reveal();
  // A user cannot hold a colon, a password may (RFC 7617 section 2); neither may hold controls.
  if (!/^[^:\p{Cc}]+:[^\p{Cc}]*$/u.test(userAndPassword))
    throw new Fault('upstream_proxy_refused', { detail: 'The credentials for it are not one line of user:password.' });
  return `Proxy-Authorization: Basic ${Buffer.from(userAndPassword).toString('base64')}\r\n`;
};

const refusedFor = (detail: string): Fault => new Fault('upstream_proxy_refused', { detail });
const unreachableFor = (detail: string, cause?: unknown): Fault => new Fault('upstream_proxy_unreachable', { detail, cause });

const tunnelOpened = (socket: Socket): Promise<void> =>
  new Promise((resolve, reject) => {
    const reader = headReader();
    const settle = (how: () => void): void => {
      clearTimeout(timer);
      socket.off('readable', read).off('error', failed).off('close', closed).off('end', closed);
      how();
    };
    // Read rather than listened to: a stream that flowed once would stay paused for whoever listens next.
    const read = (): void => {
      try {
        for (let chunk: Buffer | null = socket.read(); chunk !== null; chunk = socket.read()) {
          const rest = reader(chunk);
          if (rest === undefined) continue;
          if (rest.length > 0) socket.unshift(rest);
          return settle(resolve);
        }
      } catch (fault) {
        settle(() => reject(asFault(fault)));
      }
    };
    const failed = (cause: Error): void => settle(() => reject(unreachableFor('The connection to it broke.', cause)));
    const closed = (): void => settle(() => reject(unreachableFor('It closed the connection before it answered.')));
    const timedOut = (): void => settle(() => reject(unreachableFor('It did not answer in time.')));
    const timer = setTimeout(timedOut, limits.upstreamProxyAnswerTimeoutMs);
    socket.on('readable', read).on('error', failed).on('close', closed).on('end', closed);
  });

/** Takes the answer piece by piece: gives what follows a 2xx head, undefined while there is more to come; throws for any other. */
const headReader = (): ((chunk: Buffer) => Buffer | undefined) => {
  let received = Buffer.alloc(0);
  let informational = 0;
  return (chunk) => {
    received = Buffer.concat([received, chunk]);
    for (;;) {
      const end = received.indexOf('\r\n\r\n');
      if (end > limits.headerBytesMax || (end < 0 && received.length > limits.headerBytesMax))
        throw refusedFor('The head of its answer is too large.');
      if (end < 0) return undefined;
      const status = statusOf(received.toString('latin1', 0, end));
      received = received.subarray(end + 4);
      // A 2xx to CONNECT has no content, whatever its fields say: from here on it is the tunnel.
      if (status >= 200 && status < 300) return received;
      informational += 1;
      if (status >= 200 || status === 101 || informational > limits.informationalResponsesMax)
        throw refusedFor(`It answered with status ${status}.`);
    }
  };
};

const statusOf = (head: string): number => {
  const status = /^HTTP\/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?(?:\r\n|$)/.exec(head)?.[1];
  if (status === undefined) throw refusedFor('Its answer is not HTTP/1.');
  return Number(status);
};
