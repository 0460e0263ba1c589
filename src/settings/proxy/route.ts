/** How an operator writes a reverse route: a port of this machine that stands for one destination. */
import { type Destination, defaultPort, hostField, hostPort, parseAuthority, type Scheme } from '../../core/destination.ts';
import { loopbackAddress } from '../address.ts';
import { keys, Refusal, scalar } from '../grammar.ts';
import type { RouteSettings } from '../proxy.ts';

const example = 'https://api.example.com';

const origin = scalar(
  { what: 'an origin', write: `http or https, a host and, where it is not the scheme's own, a port, such as ${example}` },
  (text) => {
    if (text.length > 512) return undefined;
    const match = /^(https?):\/\/([^/?#]*)(.*)$/s.exec(text);
    if (!match) return parseAuthority(text) ? new Refusal(`has no scheme, write it before the host, such as ${example}`) : undefined;
    const [, scheme, authority, rest] = match as unknown as [string, Scheme, string, string];
    if (authority.includes('@')) return new Refusal(`has a user or password in it, write it without, such as ${example}`);
    const parsed = parseAuthority(authority);
    if (!parsed) return undefined;
    if (rest !== '')
      return new Refusal(`has more than a host, which the program's own requests say, write only the origin, such as ${example}`);
    const destination: Destination = { scheme, host: parsed.host, port: parsed.port ?? defaultPort(scheme) };
    return [hostField(destination), hostPort(destination)].includes(authority)
      ? destination
      : new Refusal(`is not in its only spelling, write the host in lower case, such as ${example}`);
  },
);

export const route = keys({ listen: loopbackAddress, to: origin }, `{listen: "127.0.0.1:8081", to: "${example}"}`).transform(
  (written): RouteSettings => written,
);
