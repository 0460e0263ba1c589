/**
 * Opens a connection to a destination: resolve once, validate every answer, dial a validated address (or ask the company's proxy for
 * it), verify TLS against the canonical name. Nothing else in the proxy resolves or dials.
 */
import { isIP, type Socket } from 'node:net';
import { createSecureContext, type SecureContext, type TLSSocket } from 'node:tls';
import type { Destination } from '../core/destination.ts';
import { asFault, Fault, type FaultCode } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import { type ProxyChain, requestTunnel } from './chain.ts';
import { createSystemLookup, type Lookup } from './dial/dns.ts';
import { type DialAddress, dialTcp, familiesInTurn } from './dial/tcp.ts';
import { type Alpn, secure, type TlsTerms } from './dial/tls.ts';
import { type AddressClass, classifyAddress, type DialPolicy, dialProblem, operatorDialProblem } from './guard.ts';

export { createSystemLookup, type Lookup } from './dial/dns.ts';
export type { DialAddress } from './dial/tcp.ts';
export { type Alpn, alertFault, type TlsTerms } from './dial/tls.ts';

export interface Resolver {
  /**
   * Where to dial for a destination, in that order; throws Fault target_unresolved or destination_prohibited. Never empty.
   * `fixed`: that address instead of DNS, which only our own listeners are refused for: where a program was going by itself, so
   * only ever for what carries no credential.
   */
  readonly resolve: (destination: Destination, policy: DialPolicy, fixed?: DialAddress) => Promise<readonly DialAddress[]>;
  /** Whether the operator says where this destination is dialled. */
  readonly isPinned: (destination: Destination) => boolean;
  /** Where to dial for the proxy on the way, which the operator names: private and loopback addresses are usual for it. */
  readonly resolveProxy: (proxy: ProxyChain['proxy']) => Promise<readonly DialAddress[]>;
}

export interface PinnedAddress {
  readonly host: string;
  readonly port: number;
  readonly address: string;
  readonly addressPort: number;
}

/** A server of ours that programs have no business with: the broker, the collector. */
export type PeerAddress = Pick<Destination, 'host' | 'port'>;

/**
 * The system's resolver behind pins of the operator (`upstream.resolve`) and the guard. `isOwn` refuses our own listeners; `peers` are
 * dialled only for a target that names them.
 */
export const createResolver = (
  pins: readonly PinnedAddress[],
  isOwn: (address: DialAddress) => boolean = () => false,
  lookupAll: Lookup = createSystemLookup(),
  peers: readonly PeerAddress[] = [],
): Resolver => {
  const pinned = new Map(pins.map((pin) => [`${pin.host} ${pin.port}`, { address: pin.address, port: pin.addressPort }]));
  const pinOf = ({ host, port }: { host: string; port: number }): DialAddress | undefined => pinned.get(`${host} ${port}`);
  const notOwn = (candidate: DialAddress): DialAddress => {
    if (candidate.address.includes('%')) throw new Fault('destination_prohibited', { detail: zoned });
    if (isOwn(candidate)) throw new Fault('destination_prohibited', { detail: 'It is this proxy itself.' });
    return candidate;
  };
  const answersFor = async (
    host: string,
    isForTarget: boolean,
    problemOf: (address: string) => string | undefined,
  ): Promise<readonly string[]> => {
    const answers = isIP(host) === 0 ? await lookupAll(host, isForTarget) : [host];
    if (answers.length === 0) throw new Fault('target_unresolved');
    // One bad answer spoils all: a name that resolves to public and private addresses at once is an attack or a mistake.
    for (const answer of answers) {
      const problem = answer.includes('%') ? zoned : problemOf(answer);
      if (problem !== undefined) throw new Fault('destination_prohibited', { detail: problem });
    }
    return familiesInTurn(answers).slice(0, limits.dnsAnswersMax);
  };
  const isPeerAt = async (peer: PeerAddress, candidates: readonly DialAddress[]): Promise<boolean> => {
    const onPort = candidates.filter(({ port }) => port === peer.port);
    if (onPort.length === 0) return false;
    // Should its name have no address now, there is nobody to be taken for.
    const addresses = isIP(peer.host) === 0 ? await lookupAll(peer.host, true).catch(() => []) : [peer.host];
    return onPort.some(({ address }) => addresses.includes(address));
  };
  const peersNotNamed = ({ host, port }: Destination, { isForTarget, named }: DialPolicy): readonly PeerAddress[] =>
    peers.filter((peer) => isForTarget !== true || ((peer.host !== host || peer.port !== port) && !named.includes(peer.host)));
  const notPeer = async (
    destination: Destination,
    policy: DialPolicy,
    candidates: readonly DialAddress[],
  ): Promise<readonly DialAddress[]> => {
    for (const peer of peersNotNamed(destination, policy))
      if (await isPeerAt(peer, candidates)) throw new Fault('destination_prohibited', { detail: ours });
    return candidates;
  };
  return {
    resolve: async (destination, policy, fixed) => {
      const { host, port } = destination;
      if (fixed) return notPeer(destination, policy, [notOwn(fixed)]);
      const pin = pinOf(destination);
      if (pin) return [notOwn(pin)];
      // By its name alone, before anything is asked for it.
      if (peersNotNamed(destination, policy).some((peer) => peer.host === host && peer.port === port))
        throw new Fault('destination_prohibited', { detail: ours });
      const answers = await answersFor(host, policy.isForTarget === true, (address) => dialProblem(address, policy));
      return notPeer(
        destination,
        policy,
        answers.map((address) => notOwn({ address, port })),
      );
    },
    isPinned: (destination) => pinOf(destination) !== undefined,
    resolveProxy: async ({ host, port }) => {
      const pin = pinOf({ host, port });
      if (pin) return [notOwn(pin)];
      return (await answersFor(host, true, operatorDialProblem)).map((address) => notOwn({ address, port }));
    },
  };
};

const ours = 'It is the broker or the collector of this proxy.';

/** A zone picks a network interface of this machine (RFC 4007 section 11), which no name of a target may do. */
const zoned = 'The address is bound to a network interface.';

export interface Connection {
  readonly socket: Socket | TLSSocket;
  /** What the target chose; '' when it chose nothing, or without TLS. */
  readonly alpn: Alpn | '';
}

export interface Dialer {
  /**
   * A connection to the destination, over TLS when there are terms for it. `fixed` as for `Resolver.resolve`. Throws what resolving,
   * TCP and TLS throw, and upstream_proxy_unreachable and upstream_proxy_refused where there is a proxy on the way.
   */
  readonly open: (destination: Destination, policy: DialPolicy, tls: TlsTerms | undefined, fixed?: DialAddress) => Promise<Connection>;
}

export interface DialerOptions {
  readonly resolver: Resolver;
  /** The proxy on the way to what is not left out of it; undefined to dial everything directly. */
  readonly chain: ProxyChain | undefined;
  /** limits.ts unless a test says otherwise. */
  readonly patience?: Partial<DialPatience>;
}

/** How long a peer is waited for: all addresses of it to accept, and the TLS handshake. */
export interface DialPatience {
  readonly connectMs: number;
  readonly handshakeMs: number;
}

export const createDialer = ({ resolver, chain, patience }: DialerOptions): Dialer => {
  const { connectMs, handshakeMs } = {
    connectMs: limits.targetConnectTimeoutMs,
    handshakeMs: limits.targetHandshakeTimeoutMs,
    ...patience,
  };
  const throughProxy = chain && proxyTunnels(resolver, chain);
  const reach = async (destination: Destination, policy: DialPolicy, fixed: DialAddress | undefined): Promise<Socket> => {
    if (throughProxy === undefined || isDirect(destination, fixed, resolver, chain as ProxyChain))
      return dialTcp(await resolver.resolve(destination, policy, fixed), connectMs);
    // What is an address already is judged here; a name is the proxy's to resolve, which may know names that we do not.
    const to = fixed ? { host: fixed.address, port: fixed.port } : destination;
    if (isIP(to.host) !== 0) await resolver.resolve(destination, policy, fixed);
    return throughProxy(to);
  };
  return {
    open: async (destination, policy, tls, fixed) => {
      const socket = await reach(destination, policy, fixed);
      if (!tls) return { socket, alpn: '' };
      const secured = await secure(socket, destination.host, tls, handshakeMs);
      return { socket: secured, alpn: (secured.alpnProtocol || '') as Alpn | '' };
    },
  };
};

/** What the proxy on the way is left out for: what the operator says, and what only means something on this machine or its link. */
const isDirect = (destination: Destination, fixed: DialAddress | undefined, resolver: Resolver, { noProxy }: ProxyChain): boolean => {
  if (noProxy(destination.host) || (fixed !== undefined && noProxy(fixed.address))) return true;
  return isLocal(fixed?.address ?? destination.host) || (fixed === undefined && resolver.isPinned(destination));
};

const localClasses: ReadonlySet<AddressClass> = new Set(['loopback', 'link_local', 'metadata']);

/** Names below localhost are loopback addresses wherever they are resolved (RFC 6761 section 6.3). */
const isLocal = (host: string): boolean => (isIP(host) === 0 ? /(?:^|\.)localhost$/.test(host) : localClasses.has(classifyAddress(host)));

const proxyTunnels = (resolver: Resolver, chain: ProxyChain): ((to: Pick<Destination, 'host' | 'port'>) => Promise<Socket>) => {
  const { proxy, trustPems } = chain;
  let secureContext: SecureContext | undefined;
  let session: Buffer | undefined;
  const reachProxy = async (): Promise<Socket> => {
    try {
      const socket = await dialTcp(await resolver.resolveProxy(proxy));
      if (proxy.scheme === 'http') return socket;
      secureContext ??= createSecureContext({ ca: [...trustPems], minVersion: 'TLSv1.2' });
      const onSession = (latest: Buffer): void => void (session = latest);
      return await secure(socket, proxy.host, { secureContext, alpn: ['http/1.1'], versionMin: 'TLSv1.2', session, onSession });
    } catch (thrown) {
      throw proxyFault(asFault(thrown));
    }
  };
  return async (to) => {
    const socket = await reachProxy();
    try {
      await requestTunnel(socket, to, chain);
      return socket;
    } catch (fault) {
      socket.on('error', () => undefined);
      socket.destroy();
      throw fault;
    }
  };
};

/** The same failures as a target's, but the proxy's. */
const proxyFault = (fault: Fault): Fault => {
  const detail = proxyDetails[fault.code];
  return detail === undefined
    ? fault
    : new Fault('upstream_proxy_unreachable', { detail: `${detail} ${fault.detail}`.trimEnd(), cause: fault });
};

const proxyDetails: Partial<Readonly<Record<FaultCode, string>>> = {
  destination_prohibited: 'It is not dialled.',
  target_unresolved: 'Its name cannot be resolved.',
  target_refused: 'It refused the connection.',
  target_unreachable: 'It cannot be reached.',
  target_connect_timeout: 'It did not accept the connection in time.',
  target_certificate_invalid: 'Its certificate is not valid for its name.',
  target_tls_failed: 'The TLS handshake with it failed.',
  target_protocol: 'It does not speak HTTP/1.1 over TLS.',
};
