/** Addresses: where a role listens, whom it calls, what a target is called. */
import { isIPv4, isIPv6 } from 'node:net';
import { canonicalHost, hostPort, parseAuthority } from '../core/destination.ts';
import { integer, Refusal, scalar } from './grammar.ts';

export interface ListenAddress {
  /** An IP address. */
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
}

export const port = integer(1, 65_535);

export const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));

/** `address:port` with an IP address in its only spelling. */
const readAddress = (text: string, portMin: number): ListenAddress | undefined => {
  const match = /^(?:([0-9.]+)|\[([0-9a-f:.]+)\]):(0|[1-9][0-9]{0,4})$/.exec(text);
  if (!match) return undefined;
  const host = match[1] ?? match[2] ?? '';
  const isCanonical = isIPv4(host) || (isIPv6(host) && canonicalHost(`[${host}]`) === host);
  const number = Number(match[3]);
  return isCanonical && number >= portMin && number <= 65_535 ? { host, port: number } : undefined;
};

const listenWords = {
  what: 'an address to listen on',
  write: 'an IP address and a port, such as 127.0.0.1:8443 or [::1]:8443',
  unquoted: 'has no address, write an IP address before the port, such as 127.0.0.1:8443',
};

export const listenAddress = scalar(listenWords, (text) => {
  const bare = /^:?([1-9][0-9]{0,4})$/.exec(text);
  if (bare) return new Refusal(`has no address, write 127.0.0.1:${bare[1]}, or 0.0.0.0:${bare[1]} for every interface`);
  const local = /^localhost:([1-9][0-9]{0,4})$/.exec(text);
  if (local) return new Refusal(`names a host, which may mean several addresses, write 127.0.0.1:${local[1]}`);
  return readAddress(text, 0);
});

export const loopbackAddress = listenAddress.superRefine(({ host, port }, context) => {
  if (isLoopback(host)) return;
  const message = `is not a loopback address: a proxy that others can reach must ask them for a password or a client certificate, and this version cannot, write 127.0.0.1:${port}`;
  context.addIssue({ code: 'custom', message });
});

/** Yields an address and port that are dialled as they are, without DNS. */
export const dialAddress = scalar(
  { what: 'an address to dial', write: 'an IP address and a port, such as 127.0.0.1:15443 or [::1]:15443' },
  (text) => readAddress(text, 1),
);

/** `host:port` of a gRPC server. */
export const peerAddress = scalar({ what: "a server's address", write: 'a host and a port, such as broker.outrider.svc:15002' }, (text) => {
  if (text.includes('://')) return new Refusal('is a URL, write only its host and port, such as broker.outrider.svc:15002');
  const authority = parseAuthority(text);
  if (authority?.port === undefined) return undefined;
  const canonical = hostPort({ host: authority.host, port: authority.port });
  return canonical === text ? text : otherSpelling(canonical);
});

/** A dotted name or an address holds no secret and may be shown; a single word might. */
const otherSpelling = (canonical: string): Refusal =>
  new Refusal(`is not in its only spelling, write ${/[.:]/.test(canonical.replace(/:[0-9]+$/, '')) ? canonical : 'it in lower case'}`);

export const host = scalar({ what: 'a host', write: 'a lower-case name or an IP address, such as api.example.com' }, (text) => {
  if (text.includes('*')) {
    return new Refusal('has a "*": whoever gets a name below it would get the credential too, write each host by its whole name');
  }
  if (text.includes('/')) return new Refusal('is a URL or a path, write only the host, such as api.example.com');
  const canonical = canonicalHost(isIPv6(text) ? `[${text}]` : text);
  if (canonical !== undefined) return canonical === text ? text : otherSpelling(canonical);
  return parseAuthority(text)?.port === undefined ? undefined : new Refusal('has a port, write the host alone and the port under ports');
});

/** https, or http to this machine; no user, no fragment. `strict`: https alone, no query and no "/" at the end (an issuer of ours). */
export const url = ({ write, strict = false }: { write: string; strict?: boolean }) =>
  scalar({ what: 'a URL', write }, (text) => {
    if (text.length > 2_048 || !/^[\x21-\x7e]+$/.test(text) || !URL.canParse(text)) return undefined;
    const parsed = new URL(text);
    if (parsed.username !== '' || parsed.password !== '')
      return new Refusal(`has a user or password in it, write it without, such as ${write}`);
    if (text.includes('#')) return new Refusal(`has a fragment, write it without, such as ${write}`);
    if (strict && (parsed.protocol !== 'https:' || text.includes('?') || text.endsWith('/'))) {
      return new Refusal(`must be https, without a query and without a "/" at the end, write for example ${write}`);
    }
    if (parsed.protocol === 'https:') return text;
    const isLocal = parsed.protocol === 'http:' && isLoopback(parsed.hostname.replaceAll(/[[\]]/g, ''));
    return isLocal ? text : new Refusal(`is not https (http only to this machine itself), write for example ${write}`);
  });
