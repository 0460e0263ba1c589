/**
 * Where a connection was going before a steering rule turned it to this proxy: the kernel's connection tracking remembers, and
 * getsockopt asks it. Node cannot, so libc is called through koffi, which is loaded in transparent mode only. Says nothing of who
 * the destination is: an address that a program chose proves no name.
 */
import type { Socket } from 'node:net';
import type { DialAddress } from './dial.ts';

/** The original destination of an accepted connection; undefined when it was not redirected. */
export type OriginalDestination = (socket: Socket) => DialAddress | undefined;

/** Both families have the option under this number: linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h. */
const optionOriginalDestination = 80;
const levelIPv4 = 0;
const levelIPv6 = 41;
const familyIPv4 = 2;
const familyIPv6 = 10;
/** sizeof(struct sockaddr_in6), the larger of the two. */
const sockaddrBytes = 28;

/** A struct sockaddr_in or sockaddr_in6: family in the machine's byte order, port and address in the network's. */
export const readSockaddr = (raw: Buffer): DialAddress | undefined => {
  if (raw.length < 8) return undefined;
  const family = new Uint16Array(Uint8Array.from(raw.subarray(0, 2)).buffer)[0];
  const port = raw.readUInt16BE(2);
  if (family === familyIPv4) return { address: [...raw.subarray(4, 8)].join('.'), port };
  if (family !== familyIPv6 || raw.length < 24) return undefined;
  const groups = Array.from({ length: 8 }, (_, i) => raw.readUInt16BE(8 + 2 * i));
  // The URL parser writes the one short form of RFC 5952.
  const address = new URL(`http://[${groups.map((group) => group.toString(16)).join(':')}]/`).hostname.slice(1, -1);
  const mapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  return { address: mapped ? [...raw.subarray(20, 24)].join('.') : address, port };
};

const withoutMapping = (address: string | undefined): string | undefined => address?.replace(/^::ffff:(?=\d+\.)/i, '');

/** Throws when this system has no koffi for its processor or no getsockopt. */
export const loadOriginalDestination = async (): Promise<OriginalDestination> => {
  const { default: koffi } = await import('koffi');
  // This process's own libc, whichever that is.
  const getsockopt = koffi.load(null).func('int getsockopt(int fd, int level, int option, _Out_ uint8_t *value, _Inout_ uint32_t *length)');
  return (socket) => {
    // The descriptor is not part of Node's interface, but of every release there is.
    const fd = (socket as { _handle?: { readonly fd?: number } })._handle?.fd;
    const ownAddress = withoutMapping(socket.localAddress);
    if (fd === undefined || fd < 0 || ownAddress === undefined) return undefined;
    const value = Buffer.alloc(sockaddrBytes);
    const length = [value.length];
    const level = ownAddress.includes(':') ? levelIPv6 : levelIPv4;
    // Fails with ENOENT when connection tracking knows nothing of it: it came here by itself.
    if (getsockopt(fd, level, optionOriginalDestination, value, length) !== 0) return undefined;
    const original = readSockaddr(value.subarray(0, length[0]));
    return original?.address === ownAddress && original.port === socket.localPort ? undefined : original;
  };
};
