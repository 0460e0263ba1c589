/** The flags of `outrider steer install` → Steering. Everything is checked here, so that iptables never sees what it could misread. */
import { isIPv4, isIPv6 } from 'node:net';
import { UsageError } from '../terminal.ts';
import type { PortRange, Steering } from './rules.ts';

/** Port of the transparent listener in config/examples. */
const transparentPortDefault = 15_008;

/** More exceptions than this are a sign of steering the wrong pod, and each costs every new connection a comparison. */
const itemsMax = 256;
/** The largest is "no user" (-1). */
const uidMax = 4_294_967_294;

const itemsOf = (flag: string, text: string | undefined): string[] => {
  if (text === undefined) return [];
  const items = text.split(',').map((item) => item.trim());
  if (items.includes('')) throw new UsageError(`--${flag} has an empty item`);
  if (items.length > itemsMax) throw new UsageError(`--${flag} has more than ${itemsMax} items`);
  return items;
};

const number = (text: string, min: number, max: number): number | undefined => {
  const value = /^(?:0|[1-9][0-9]{0,9})$/.test(text) ? Number(text) : -1;
  return value >= min && value <= max ? value : undefined;
};

const portRange =
  (flag: string) =>
  (item: string): PortRange => {
    const [first, last = first, ...more] = item.split('-').map((text) => number(text, 1, 65_535));
    if (first === undefined || last === undefined || more.length > 0 || last < first)
      throw new UsageError(`--${flag} ${JSON.stringify(item.slice(0, 64))} is not a port or a range of ports: write 25 or 3000-3010`);
    return { first, last };
  };

const addressRange = (item: string): string => {
  const [address = '', prefix, ...more] = item.split('/');
  const bits = isIPv4(address) ? 32 : isIPv6(address) && !address.includes('%') ? 128 : 0;
  if (bits === 0 || more.length > 0 || (prefix !== undefined && number(prefix, 0, bits) === undefined))
    throw new UsageError(`--except-range ${JSON.stringify(item.slice(0, 64))} is not an address range: write 10.0.0.0/8 or fd00::/8`);
  return `${address}/${prefix ?? bits}`;
};

const uid = (item: string): number => {
  const found = number(item, 0, uidMax);
  if (found === undefined) throw new UsageError(`--except-uid ${JSON.stringify(item.slice(0, 64))} is not a user id: write a number`);
  return found;
};

export interface SteerFlags {
  readonly to?: string | undefined;
  readonly 'except-uid'?: string | undefined;
  readonly 'except-port'?: string | undefined;
  readonly 'except-range'?: string | undefined;
  readonly 'only-port'?: string | undefined;
}

/** Throws UsageError. */
export const readSteering = (flags: SteerFlags): Steering => {
  const exceptUids = itemsOf('except-uid', flags['except-uid']).map(uid);
  if (exceptUids.length === 0)
    throw new UsageError("install needs --except-uid with the proxy's user id: its own connections would be steered to itself");
  const to = number(flags.to ?? String(transparentPortDefault), 1, 65_535);
  if (to === undefined) throw new UsageError('--to is not a port: write a number from 1 to 65535');
  return {
    to,
    exceptUids,
    exceptPorts: itemsOf('except-port', flags['except-port']).map(portRange('except-port')),
    exceptRanges: itemsOf('except-range', flags['except-range']).map(addressRange),
    onlyPorts: itemsOf('only-port', flags['only-port']).map(portRange('only-port')),
  };
};
