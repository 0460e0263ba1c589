/**
 * What a proxy is left out for, as curl reads NO_PROXY (https://curl.se/docs/manpage.html, --noproxy; https://everything.curl.dev/usingcurl/proxies/env.html).
 * Pure; compared with a real curl by its test. Where curl's releases differ (blanks, IPv6 ranges, "/0"), what the most recent
 * documentation promises, and never less than an older one left out.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net';

/** Whether the host is reached without the proxy. A name, or an address without brackets; names in any case. Ports play no part. */
export type NoProxy = (host: string) => boolean;

/** `written`: the text of NO_PROXY, or its items one by one. */
export const noProxy = (written: string | readonly string[]): NoProxy => {
  // Blanks alone separate too: recent releases read such a list to its first blank only, which nobody means who writes one.
  const items = (typeof written === 'string' ? [written] : written).flatMap((text) => text.split(/[\s,]+/)).filter((item) => item !== '');
  // "*" is only a wildcard when it stands alone; beside others it is an item that no host equals.
  if (items.length === 1 && items[0] === '*') return () => true;
  const names = items.map(withoutOuterDots).filter((name) => name !== '');
  const ranges = { ipv4: new BlockList(), ipv6: new BlockList() } as const;
  for (const item of items) addRange(ranges, item);
  return (host) => {
    const family = familyOf(host);
    return family ? ranges[family].check(host, family) : isBelow(withoutDotAtEnd(host.toLowerCase()), names);
  };
};

const withoutDotAtEnd = (text: string): string => (text.endsWith('.') ? text.slice(0, -1) : text);

/** `.example.com`, `example.com.` and `example.com` all stand for the name itself and every name below it. */
const withoutOuterDots = (item: string): string => withoutDotAtEnd(item.toLowerCase()).replace(/^\./, '');

const isBelow = (host: string, names: readonly string[]): boolean => names.some((name) => host === name || host.endsWith(`.${name}`));

type Family = 'ipv4' | 'ipv6';

const familyOf = (text: string): Family | undefined => (isIPv4(text) ? 'ipv4' : isIPv6(text) && !text.includes('%') ? 'ipv6' : undefined);

/** A lone address is its own range. */
const addRange = (ranges: Readonly<Record<Family, BlockList>>, item: string): void => {
  const [, address = '', bits] = /^([^/]*)(?:\/([0-9]{1,3}))?$/.exec(item) ?? [];
  const family = familyOf(address);
  if (family === undefined) return;
  const whole = family === 'ipv4' ? 32 : 128;
  const prefix = bits === undefined ? whole : Number(bits);
  if (prefix <= whole) ranges[family].addSubnet(address, prefix, family);
};
