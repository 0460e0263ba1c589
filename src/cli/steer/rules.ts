/**
 * The steering rules as text: what goes into iptables-restore, and what is ours in what iptables lists. All of it is in one chain of
 * our own, which OUTPUT of the nat table jumps to from one place; nothing else is touched. Pure.
 */
import { isIPv4 } from 'node:net';

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

export interface Steering {
  /** The proxy's transparent port, on both loopback addresses. */
  readonly to: number;
  /** Users whose connections are left alone: the proxy's, or it would be steered to itself. Never empty. */
  readonly exceptUids: readonly number[];
  readonly exceptPorts: readonly PortRange[];
  /** Address ranges of either family. */
  readonly exceptRanges: readonly string[];
  /** Empty: all ports. */
  readonly onlyPorts: readonly PortRange[];
}

export interface Family {
  readonly name: 'IPv4' | 'IPv6';
  readonly program: 'iptables' | 'ip6tables';
  readonly loopback: string;
  readonly has: (range: string) => boolean;
}

const isRangeOfIPv4 = (range: string): boolean => isIPv4(range.split('/', 1)[0] as string);

export const families: readonly Family[] = [
  { name: 'IPv4', program: 'iptables', loopback: '127.0.0.0/8', has: isRangeOfIPv4 },
  { name: 'IPv6', program: 'ip6tables', loopback: '::1/128', has: (range) => !isRangeOfIPv4(range) },
];

export const chain = 'OUTRIDER_OUTPUT';
const hook = `OUTPUT -p tcp -j ${chain}`;

const portsOf = ({ first, last }: PortRange): string => (first === last ? String(first) : `${first}:${last}`);

/** The chain's rules in order, each as iptables takes it after `-A`. */
export const rulesOf = ({ to, exceptUids, exceptPorts, exceptRanges, onlyPorts }: Steering, { loopback, has }: Family): string[] => {
  const redirect = `-j REDIRECT --to-ports ${to}`;
  return [
    // What stays on this machine, its own addresses included, goes by the loopback device.
    '-o lo -j RETURN',
    `-d ${loopback} -j RETURN`,
    ...exceptUids.map((uid) => `-m owner --uid-owner ${uid} -j RETURN`),
    ...exceptRanges.filter(has).map((range) => `-d ${range} -j RETURN`),
    ...exceptPorts.map((range) => `-p tcp -m tcp --dport ${portsOf(range)} -j RETURN`),
    ...(onlyPorts.length === 0 ? [`-p tcp ${redirect}`] : onlyPorts.map((range) => `-p tcp -m tcp --dport ${portsOf(range)} ${redirect}`)),
  ].map((rule) => `${chain} ${rule}`);
};

/** What is ours in the nat table of one family. */
export interface Installed {
  /** Rules of OUTPUT that jump to our chain, without `-A`. */
  readonly hooks: readonly string[];
  /** The chain's rules, without `-A`; undefined: there is no chain. */
  readonly rules: readonly string[] | undefined;
}

/** Reads `iptables -t nat -S`. */
export const readInstalled = (listing: string): Installed => {
  const lines = listing.split('\n').map((line) => line.trim());
  const appended = (to: string): string[] => lines.filter((line) => line.startsWith(`-A ${to} `)).map((line) => line.slice(3));
  return {
    hooks: appended('OUTPUT').filter((rule) => rule.endsWith(` -j ${chain}`)),
    rules: lines.includes(`-N ${chain}`) ? appended(chain) : undefined,
  };
};

export const isNothing = ({ hooks, rules }: Installed): boolean => rules === undefined && hooks.length === 0;

const transaction = (lines: readonly string[]): string => `*nat\n${lines.join('\n')}\nCOMMIT\n`;

/**
 * One transaction that leaves exactly `rules`, whatever was installed before. The jump goes first in OUTPUT: behind a mesh's own
 * rules it would never be reached, while the proxy's connections go on to the mesh from here.
 */
export const installing = (before: Installed, rules: readonly string[]): string =>
  transaction([
    `:${chain} - [0:0]`,
    `-F ${chain}`,
    ...before.hooks.map((rule) => `-D ${rule}`),
    ...rules.map((rule) => `-A ${rule}`),
    `-I ${hook}`,
  ]);

/** One transaction that leaves nothing of ours. */
export const removing = (before: Installed): string =>
  transaction([...before.hooks.map((rule) => `-D ${rule}`), ...(before.rules === undefined ? [] : [`-F ${chain}`, `-X ${chain}`])]);

/** From what a failed attempt left back to what was there before it. */
export const restoring = (now: Installed, before: Installed): string =>
  before.rules === undefined ? removing(now) : installing(now, before.rules);

/** What keeps installed rules from working, or undefined. */
export const incompleteness = ({ hooks, rules }: Installed): string | undefined => {
  if (rules === undefined) return hooks.length === 0 ? 'not installed' : `incomplete: there is no chain ${chain}`;
  if (hooks.length !== 1) return `incomplete: OUTPUT jumps to ${chain} ${hooks.length === 0 ? 'from nowhere' : 'more than once'}`;
  const firstRedirect = rules.findIndex((rule) => rule.includes(' -j REDIRECT '));
  if (firstRedirect < 0) return 'incomplete: nothing is redirected';
  const isGuarded = rules.slice(0, firstRedirect).some((rule) => /-m owner --uid-owner \d+ -j RETURN$/.test(rule));
  return isGuarded ? undefined : "incomplete: the proxy's own connections are not excepted";
};

/** Where complete rules lead. */
export const redirectPort = ({ rules }: Installed): number | undefined => {
  const [, port] = /-j REDIRECT --to-ports (\d+)/.exec((rules ?? []).join('\n')) ?? [];
  return port === undefined ? undefined : Number(port);
};
