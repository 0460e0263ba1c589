/**
 * One canonical name for where a request goes. CONNECT authority, SNI, Host, absolute-form and the dialled name all pass
 * through `parseAuthority`, so that two spellings of one host compare equal and two hosts never do (THREATS E-1 to E-4).
 */
import { isIPv4, isIPv6 } from 'node:net';
import { domainToASCII } from 'node:url';

export type Scheme = 'http' | 'https';

export interface Destination {
  readonly scheme: Scheme;
  /** Lower-case ASCII name without a trailing dot, dotted-quad IPv4, or compressed IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
}

export interface Authority {
  readonly host: string;
  /** Absent when the authority named none. */
  readonly port: number | undefined;
}

export const defaultPort = (scheme: Scheme): number => (scheme === 'https' ? 443 : 80);

const label = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
/** What some resolver or libc would read as an IPv4 address though it is not a dotted quad: 127.1, 0x7f000001, 017700000001. */
const numericLastLabel = /^(?:0x[0-9a-f]*|[0-9]+)$/;

/** Canonical host, or undefined when it is not one that may be named in an authority. */
export const canonicalHost = (raw: string): string | undefined => {
  if (raw === '' || raw.length > 255) return undefined;
  if (raw.startsWith('[')) {
    const inner = raw.endsWith(']') ? raw.slice(1, -1) : '';
    return isIPv6(inner) && !inner.includes('%') ? canonicalIPv6(inner) : undefined;
  }
  if (isIPv4(raw)) return raw;
  // Before anything is mapped: the URL parser behind domainToASCII drops line ends and decodes "%2e".
  if (/[^A-Za-z0-9._\-\u0080-\u{10ffff}]/u.test(raw)) return undefined;
  const ascii = (/^[A-Za-z0-9._-]+$/.test(raw) ? raw : domainToASCII(raw)).toLowerCase();
  const name = ascii.endsWith('.') ? ascii.slice(0, -1) : ascii;
  const labels = name.split('.');
  if (name.length > 253 || !labels.every((l) => label.test(l))) return undefined;
  if (numericLastLabel.test(labels.at(-1) as string)) return undefined;
  return name;
};

const canonicalIPv6 = (address: string): string => new URL(`http://[${address}]/`).hostname.slice(1, -1);

/** Authorities that were read: a program names the same few places in each of its requests, two or three times each. */
const known = new Map<string, Authority>();
/** How many are remembered, and how long a spelling of them may be (a DNS name and a port): 256 KiB at most. */
const knownMax = 512;
const knownBytesMax = 260;

/**
 * `host[:port]` as in a Host field, a CONNECT target or an absolute URI without userinfo. Undefined when it is not valid. ASCII alone
 * (RFC 3986 section 3.2.2 by way of RFC 9110): bytes beyond it are UTF-8 to some and Latin-1 to others, which are two hosts.
 */
export const parseAuthority = (raw: string): Authority | undefined => {
  const found = known.get(raw);
  if (found !== undefined) return found;
  const authority = readAuthority(raw);
  if (authority === undefined || raw.length > knownBytesMax) return authority;
  if (known.size >= knownMax) known.clear();
  // A copy, of what is ASCII: a part of a request's target would keep the whole of it in memory.
  known.set(Buffer.from(raw, 'latin1').toString('latin1'), authority);
  return authority;
};

const readAuthority = (raw: string): Authority | undefined => {
  if (/[^\x21-\x7e]/.test(raw)) return undefined;
  const match = /^(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?$/.exec(raw);
  if (!match) return undefined;
  const host = canonicalHost(match[1] as string);
  if (host === undefined) return undefined;
  if (match[2] === undefined) return { host, port: undefined };
  const port = Number(match[2]);
  return port >= 1 && port <= 65_535 ? { host, port } : undefined;
};

const bracketed = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** `host:port`, brackets around IPv6. */
export const hostPort = ({ host, port }: { host: string; port: number }): string => `${bracketed(host)}:${port}`;

/** The value of a Host field: without the port when it is the scheme's default (RFC 9110 section 7.2). */
export const hostField = ({ scheme, host, port }: Destination): string =>
  port === defaultPort(scheme) ? bracketed(host) : hostPort({ host, port });
