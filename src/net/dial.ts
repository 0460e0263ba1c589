/**
 * Opens a connection to a destination: resolve once, validate every answer, dial a validated address, verify TLS against the
 * canonical name. Nothing else in the proxy resolves or dials.
 */
import { lookup } from 'node:dns/promises';
import { connect, isIP, type Socket } from 'node:net';
import { connect as connectTls, type SecureContext, type TLSSocket } from 'node:tls';
import type { Destination } from '../core/destination.ts';
import { Fault } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import { type DialPolicy, dialProblem } from './guard.ts';

export interface DialAddress {
  readonly address: string;
  readonly port: number;
}

export interface Resolver {
  /** Where to dial for a destination; throws Fault target_unresolved or destination_prohibited. Never empty. */
  readonly resolve: (destination: Destination, policy: DialPolicy) => Promise<readonly DialAddress[]>;
}

export interface PinnedAddress {
  readonly host: string;
  readonly port: number;
  readonly address: string;
  readonly addressPort: number;
}

/** The system's resolver behind pins of the operator (`upstream.resolve`) and the guard. `isOwn` refuses our own listeners. */
export const createResolver = (
  pins: readonly PinnedAddress[],
  isOwn: (address: DialAddress) => boolean = () => false,
  lookupAll: (host: string) => Promise<readonly string[]> = systemLookup,
): Resolver => {
  const pinned = new Map(pins.map((pin) => [`${pin.host} ${pin.port}`, { address: pin.address, port: pin.addressPort }]));
  const notOwn = (candidate: DialAddress): DialAddress => {
    if (isOwn(candidate)) throw new Fault('destination_prohibited', { detail: 'It is this proxy itself.' });
    return candidate;
  };
  return {
    resolve: async ({ host, port }, policy) => {
      const pin = pinned.get(`${host} ${port}`);
      if (pin) return [notOwn(pin)];
      const answers = isIP(host) === 0 ? await lookupAll(host) : [host];
      if (answers.length === 0) throw new Fault('target_unresolved');
      // One bad answer spoils all: a name that resolves to public and private addresses at once is an attack or a mistake.
      for (const answer of answers) {
        const problem = dialProblem(answer, policy);
        if (problem !== undefined) throw new Fault('destination_prohibited', { detail: problem });
      }
      return answers.slice(0, limits.dnsAnswersMax).map((address) => notOwn({ address, port }));
    },
  };
};

const systemLookup = async (host: string): Promise<readonly string[]> => {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limits.dnsTimeoutMs} ms`)), limits.dnsTimeoutMs);
  });
  try {
    const answers = await Promise.race([lookup(host, { all: true, order: 'verbatim' }), deadline]);
    return answers.map(({ address }) => address);
  } catch (cause) {
    throw new Fault('target_unresolved', { cause });
  } finally {
    clearTimeout(timer);
  }
};

/** TCP to the first address that accepts, all within one deadline. Throws target_refused, target_unreachable, target_connect_timeout. */
export const dialTcp = async (addresses: readonly DialAddress[]): Promise<Socket> => {
  const deadline = performance.now() + limits.targetConnectTimeoutMs;
  let failure: unknown;
  for (const [i, candidate] of addresses.entries()) {
    // What is left is shared among the addresses still to try, so that a black hole first in line does not eat it all.
    const budgetMs = (deadline - performance.now()) / (addresses.length - i);
    if (budgetMs <= 0) break;
    try {
      return await connectOnce(candidate, budgetMs);
    } catch (error) {
      failure = error;
    }
  }
  throw dialFault(failure);
};

const connectOnce = ({ address, port }: DialAddress, timeoutMs: number): Promise<Socket> =>
  new Promise((resolve, reject) => {
    const socket = connect({ host: address, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 });
    const timer = setTimeout(() => {
      socket.destroy();
      reject(Object.assign(new Error(`no connection within ${Math.round(timeoutMs)} ms`), { code: 'ETIMEDOUT' }));
    }, timeoutMs);
    const failed = (error: Error): void => {
      clearTimeout(timer);
      reject(error);
    };
    socket.once('error', failed);
    socket.once('connect', () => {
      clearTimeout(timer);
      socket.off('error', failed);
      resolve(socket);
    });
  });

const dialFault = (cause: unknown): Fault => {
  const { code } = (cause ?? {}) as { code?: string };
  if (code === 'ECONNREFUSED') return new Fault('target_refused', { cause });
  return new Fault(code === 'ETIMEDOUT' || cause === undefined ? 'target_connect_timeout' : 'target_unreachable', { cause });
};

/**
 * TLS over a connected socket; the peer must prove `host`. Throws target_certificate_invalid when it does not,
 * target_tls_failed when there is no handshake.
 */
export const startTls = (socket: Socket, host: string, secureContext: SecureContext): Promise<TLSSocket> =>
  new Promise((resolve, reject) => {
    const secured = connectTls({
      socket,
      // SNI carries names only (RFC 6066 section 3); an IP literal is checked against the certificate's IP entries.
      ...(isIP(host) === 0 ? { servername: host } : { host }),
      secureContext,
      ALPNProtocols: ['http/1.1'],
      minVersion: 'TLSv1.2',
    });
    const timer = setTimeout(
      () => secured.destroy(new Error(`no handshake within ${limits.targetHandshakeTimeoutMs} ms`)),
      limits.targetHandshakeTimeoutMs,
    );
    const failed = (cause: Error): void => {
      clearTimeout(timer);
      // Node sets authorizationError only when the handshake went through and the certificate did not.
      const isCertificate = Boolean(secured.authorizationError);
      const detail = isCertificate ? certificateDetail(secured.authorizationError) : '';
      socket.destroy();
      reject(new Fault(isCertificate ? 'target_certificate_invalid' : 'target_tls_failed', { detail, cause }));
    };
    secured.once('error', failed);
    const closed = (): void => failed(new Error('closed during the handshake'));
    secured.once('close', closed);
    secured.once('secureConnect', () => {
      clearTimeout(timer);
      secured.off('close', closed);
      secured.off('error', failed);
      resolve(secured);
    });
  });

/** OpenSSL's name for what is wrong (CERT_HAS_EXPIRED, …): nothing that the target chose. */
const certificateDetail = (error: unknown): string => {
  const text = String(error);
  return /^[A-Z_0-9]{3,60}$/.test(text) ? `The check failed with ${text}.` : '';
};
