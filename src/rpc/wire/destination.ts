/** Hosts and ports in messages: canonical, as `core/destination.ts` compares them, or refused. */
import { isIPv6 } from 'node:net';
import { canonicalHost } from '../../core/destination.ts';
import { someList, WireError } from './field.ts';

export const hostsOf = (hosts: readonly string[]): readonly string[] => someList(hosts, 'hosts').map(hostOf);
export const portsOf = (ports: readonly number[]): readonly number[] => someList(ports, 'ports').map(portOf);

const hostOf = (host: string): string => {
  if (canonicalHost(isIPv6(host) ? `[${host}]` : host) !== host) throw new WireError('a host is not in its canonical form');
  return host;
};

const portOf = (port: number): number => {
  if (port < 1 || port > 65_535) throw new WireError('a port is not one');
  return port;
};
