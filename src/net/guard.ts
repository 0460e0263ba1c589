/**
 * Which addresses may be dialled: one range table, applied to every address a name resolves to, before the first packet, and the
 * validated address is the one that is dialled (THREATS E-6, E-7). Pure, but for the list of this machine's addresses.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { networkInterfaces } from 'node:os';

/** How an address is reached: `public` by anyone, the others only where something names them. */
export type AddressClass = 'public' | 'private' | 'loopback' | 'link_local' | 'metadata' | 'reserved';

const list = (...ranges: string[]): BlockList => {
  const blocked = new BlockList();
  for (const range of ranges) {
    const [address, prefix] = range.split('/') as [string, string];
    blocked.addSubnet(address, Number(prefix), isIPv4(address) ? 'ipv4' : 'ipv6');
  }
  return blocked;
};

/** First match wins. Sources: IANA special-purpose address registries; cloud vendors' metadata pages for the metadata rows. */
const table: readonly (readonly [AddressClass, BlockList])[] = [
  [
    'metadata',
    list(
      '169.254.169.254/32',
      '169.254.170.2/32',
      '169.254.170.23/32',
      '168.63.129.16/32',
      '100.100.100.200/32',
      'fd00:ec2::254/128',
      'fd00:ec2::23/128',
      'fd20:ce::254/128',
      'fd00:42::42/128',
    ),
  ],
  ['loopback', list('127.0.0.0/8', '::1/128')],
  ['link_local', list('169.254.0.0/16', 'fe80::/10')],
  ['private', list('10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7', 'fec0::/10')],
  [
    'reserved',
    list(
      '0.0.0.0/8',
      '192.0.0.0/24',
      '192.0.2.0/24',
      '192.88.99.0/24',
      '198.18.0.0/15',
      '198.51.100.0/24',
      '203.0.113.0/24',
      '224.0.0.0/4',
      '240.0.0.0/4',
      '::/128',
      '100::/64',
      // Benchmarking, and the two that name hosts rather than places (ORCHID).
      '2001:2::/48',
      '2001:10::/28',
      '2001:20::/28',
      '2001:db8::/32',
      '3fff::/20',
      '5f00::/16',
      'ff00::/8',
    ),
  ],
];

/** IPv6 ranges that carry an IPv4 address: it is judged by that address. [range, bits before the IPv4 address, inverted]. */
const carriers: readonly { readonly range: BlockList; readonly offset: number; readonly inverted?: true }[] = [
  { range: list('::ffff:0:0/96'), offset: 96 },
  { range: list('::ffff:0:0:0/96'), offset: 96 },
  { range: list('64:ff9b::/96'), offset: 96 },
  { range: list('2002::/16'), offset: 16 },
  // Teredo: the client's address, bits inverted (RFC 4380 section 4).
  { range: list('2001::/32'), offset: 96, inverted: true },
  // IPv4-compatible, deprecated (RFC 4291 section 2.5.5.1); ::1 and :: are in the table above and never come here.
  { range: list('::/96'), offset: 96 },
];
const mapped = list('::ffff:0:0/96');
/** NAT64 with a prefix of the network's own choice (RFC 8215): what it leads to cannot be known. */
const localNat64 = list('64:ff9b:1::/48');

const groupsOf = (address: string): number[] => {
  const withoutZone = address.split('%', 1)[0] as string;
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(withoutZone);
  const hex = (high: string | undefined, low: string | undefined): string => ((Number(high) << 8) | Number(low)).toString(16);
  const plain = dotted ? `${dotted[1]}${hex(dotted[2], dotted[3])}:${hex(dotted[4], dotted[5])}` : withoutZone;
  const [head = '', tail] = plain.split('::');
  const parts = (text: string): number[] => (text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16)));
  const left = parts(head);
  const right = tail === undefined ? [] : parts(tail);
  return [...left, ...Array.from({ length: 8 - left.length - right.length }, () => 0), ...right];
};

/** ISATAP (RFC 5214 section 6.1): in the last 64 bits of any prefix, behind 0:5efe or 200:5efe. */
const isatapIPv4 = (address: string): string | undefined => {
  const groups = groupsOf(address);
  const isIsatap = ((groups[4] as number) & 0xfdff) === 0 && groups[5] === 0x5efe;
  return isIsatap ? carriedIPv4(address, 96, false) : undefined;
};

const carriedIPv4 = (address: string, offset: number, inverted: boolean): string => {
  const groups = groupsOf(address);
  const flip = inverted ? 0xffff : 0;
  const high = (groups[offset / 16] as number) ^ flip;
  const low = (groups[offset / 16 + 1] as number) ^ flip;
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
};

/** The class of an address literal; an address that cannot be read is `reserved`. */
export const classifyAddress = (address: string): AddressClass => {
  const family = isIPv4(address) ? 'ipv4' : isIPv6(address) ? 'ipv6' : undefined;
  if (family === undefined) return 'reserved';
  const plain = address.split('%', 1)[0] as string;
  if (family === 'ipv6' && localNat64.check(plain, 'ipv6')) return 'reserved';
  // A BlockList answers for mapped addresses by their IPv4 range too; the carriers below cover the other forms.
  const found = table.find(([, ranges]) => ranges.check(plain, family));
  if (found) return found[0];
  if (family === 'ipv4') return 'public';
  const carrier = carriers.find(({ range }) => range.check(plain, 'ipv6'));
  if (carrier) return classifyAddress(carriedIPv4(plain, carrier.offset, carrier.inverted === true));
  const tunnelled = isatapIPv4(plain);
  return tunnelled === undefined ? 'public' : classifyAddress(tunnelled);
};

export interface DialPolicy {
  /** Whether a target names the destination. */
  readonly isForTarget?: boolean;
  /** Whether private ranges may be dialled for this destination: a target names it, or unmatched traffic is allowed to. */
  readonly privateAllowed: boolean;
  /** Addresses that something names exactly, whatever their class: a target's IP literal. */
  readonly named: readonly string[];
}

/** Why an address may not be dialled, or undefined. */
export const dialProblem = (address: string, policy: DialPolicy): string | undefined => {
  if (policy.named.includes(address)) return undefined;
  const kind = classifyAddress(address);
  if (kind === 'public' || (kind === 'private' && policy.privateAllowed)) return undefined;
  return `The address is ${kind === 'reserved' ? 'a reserved' : `a ${kind.replace('_', '-')}`} one.`;
};

/**
 * For what the operator wrote into settings (token endpoints, issuers, the proxy on the way): private ranges and this machine are usual
 * there; metadata services, link-local and reserved addresses are nobody's token endpoint, and a name may come to mean one.
 */
export const operatorDialProblem = (address: string): string | undefined =>
  dialProblem(address, { privateAllowed: true, named: classifyAddress(address) === 'loopback' ? [address] : [] });

export interface OwnListener {
  readonly address: string;
  readonly port: number;
}

/**
 * Whether an address is a listener of this process: by its very address, by any loopback address (which steering and wildcards make the
 * same), or by any address of this machine when it listens on all. `local` yields the machine's addresses.
 */
export const isOwnListener = (
  { address, port }: OwnListener,
  listeners: readonly (OwnListener | undefined)[],
  local: () => readonly string[],
): boolean => {
  const onPort = listeners.filter((own) => own?.port === port);
  if (onPort.length === 0) return false;
  const plain = unmapped(address);
  if (classifyAddress(address) === 'loopback' || plain === '0.0.0.0' || plain === '::') return true;
  const isWildcard = onPort.some((own) => own?.address === '0.0.0.0' || own?.address === '::');
  return onPort.some((own) => own?.address === plain) || (isWildcard && local().includes(plain));
};

/** Of all interfaces, now. */
export const machineAddresses = (): readonly string[] =>
  Object.values(networkInterfaces()).flatMap((all) => (all ?? []).map(({ address }) => address));

/** An IPv4-mapped address is that IPv4 address to the system that dials it. */
const unmapped = (address: string): string =>
  isIPv6(address) && mapped.check(address, 'ipv6') ? carriedIPv4(address, 96, false) : address;
