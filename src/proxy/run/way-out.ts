/** How the proxy reaches anything but broker and collector: pins, guard, the proxy on the way, and whom to trust there. */
import { readFileSync } from 'node:fs';
import { type Authority, parseAuthority } from '../../core/destination.ts';
import { proxyCredentialFile, type ProxyChain } from '../../net/chain.ts';
import { createDialer, createResolver, createSystemLookup, type DialAddress, type Dialer, type PeerAddress } from '../../net/dial.ts';
import { noProxy } from '../../net/no-proxy.ts';
import { createOutbound, type Outbound } from '../../net/outbound.ts';
import type { ProxySettings } from '../../settings/proxy.ts';

export interface WayOut {
  readonly dialer: Dialer;
  readonly outbound: Outbound;
}

/** `rootPems`: the public roots; never our own authority. `isOwn` tells our own listeners, which are never dialled. */
export const openWayOut = (
  { upstream, identity, collector }: Pick<ProxySettings, 'upstream' | 'identity' | 'collector'>,
  rootPems: readonly string[],
  isOwn: (address: DialAddress) => boolean,
): WayOut => {
  const trustPems = [...rootPems, ...upstream.caFiles.map((file) => readFileSync(file, 'utf8'))];
  const peers = [identity.broker, collector].map(({ address }) => peerOf(address));
  const resolver = createResolver(upstream.resolve, isOwn, createSystemLookup(), peers);
  const dialer = createDialer({ resolver, chain: chainOf(upstream.proxy, trustPems) });
  return { dialer, outbound: createOutbound({ dialer, trustPems }) };
};

/** Settings have seen to it that it is a host and a port. */
const peerOf = (address: string): PeerAddress => {
  const { host, port } = parseAuthority(address) as Authority;
  return { host, port: port as number };
};

const chainOf = (proxy: ProxySettings['upstream']['proxy'], trustPems: readonly string[]): ProxyChain | undefined =>
  proxy && {
    proxy,
    credential: proxy.credentialsFile === undefined ? () => undefined : proxyCredentialFile(proxy.credentialsFile),
    noProxy: noProxy(proxy.noProxy),
    trustPems,
  };
