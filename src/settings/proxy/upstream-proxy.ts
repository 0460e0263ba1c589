/** How an operator writes the proxy that connections to targets must go through, and what goes around it. */
import { isIPv4, isIPv6 } from 'node:net';
import { canonicalHost, hostPort, parseAuthority, type Scheme } from '../../core/destination.ts';
import { keys, list, Refusal, scalar } from '../grammar.ts';
import type { UpstreamProxySettings } from '../proxy.ts';
import { filePath } from '../text.ts';

const example = 'http://proxy.corp.example:3128';

const proxyUrl = scalar({ what: "a proxy's URL", write: `http or https, a host and a port, such as ${example}` }, (text) => {
  if (text.length > 512) return undefined;
  const match = /^(https?):\/\/([^/?#]*)(.*)$/s.exec(text);
  if (!match) {
    if (/^socks[45]?[ah]?:\/\//.test(text))
      return new Refusal(`is a SOCKS proxy, which is not spoken, write the URL of an HTTP proxy, such as ${example}`);
    return parseAuthority(text) ? new Refusal(`has no scheme, write http:// or https:// before the host, such as ${example}`) : undefined;
  }
  const [, scheme, authority, rest] = match as unknown as [string, Scheme, string, string];
  if (authority.includes('@')) {
    return new Refusal(
      `has a user or password in it: they belong in a file that credentialsFile names, as user:password, write ${example}`,
    );
  }
  const parsed = parseAuthority(authority);
  if (!parsed) return undefined;
  if (rest !== '' && rest !== '/') return new Refusal(`has a path or a query, write it without, such as ${example}`);
  // curl would take 1080, others 80: so none is taken.
  if (parsed.port === undefined) return new Refusal(`has no port, write it after the host, such as ${example}`);
  return hostPort({ host: parsed.host, port: parsed.port }) === authority
    ? { scheme, host: parsed.host, port: parsed.port }
    : new Refusal(`is not in its only spelling, write the host in lower case, such as ${example}`);
});

const range = (text: string): boolean => {
  const match = /^(.+)\/(0|[1-9][0-9]{0,2})$/.exec(text);
  const [, address = '', bits = ''] = match ?? [];
  return (isIPv4(address) && Number(bits) <= 32) || (isIPv6(address) && !address.includes('%') && Number(bits) <= 128);
};

/** What curl understands in NO_PROXY: "*", a name for itself and all below it, an address, a range. */
const exception = scalar(
  {
    what: 'what a proxy is left out for',
    write: 'a name for it and all below it, an address, a range or "*", such as internal.example or 10.0.0.0/8',
  },
  (text) => {
    if (text === '*' || range(text) || isIPv4(text) || (isIPv6(text) && !text.includes('%'))) return text;
    if (/[\s,]/.test(text)) return new Refusal('is several in one text, write each as an item of the list');
    if (text.includes('://')) return new Refusal('is a URL, write only the host, such as internal.example');
    if (text.includes('*'))
      return new Refusal('has a "*" that is not alone: a name stands for all below it, write it without, such as internal.example');
    const name = text.startsWith('.') ? text.slice(1) : text;
    if (canonicalHost(name) === name) return text;
    if (parseAuthority(text)?.port !== undefined) return new Refusal('has a port: exceptions are for hosts, write it without');
    return canonicalHost(name) === undefined
      ? undefined
      : new Refusal('is not in its only spelling, write it in lower case without a "." at its end');
  },
);

export const upstreamProxy = keys(
  {
    url: proxyUrl,
    credentialsFile: filePath('/etc/outrider/proxy-credentials').optional(),
    noProxy: list(exception, { write: '[.internal.example, 10.0.0.0/8]' }).default([]),
  },
  `{url: "${example}"}`,
).transform(({ url, credentialsFile, noProxy }): UpstreamProxySettings => ({ ...url, credentialsFile, noProxy }));
