/**
 * Names to addresses by the system's resolver: its hosts file, search domains and name servers, as any program beside us has them. Asked
 * anew for every connection, with a deadline. Judges nothing: dial.ts does.
 *
 * getaddrinfo blocks one of Node's four threads for as long as resolv.conf lets a silent name server take, which our deadline cannot
 * end, and files are read by the same threads. So one name is asked for once at a time, and names that no target names leave room for
 * those that one does: what a program makes up cannot hold up credentials.
 */
import { lookup } from 'node:dns/promises';
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';

/** All addresses of a host, in the resolver's order. Throws target_unresolved. */
export type Lookup = (host: string, isForTarget: boolean) => Promise<readonly string[]>;

export interface SystemLookupOptions {
  readonly timeoutMs?: number;
  /** getaddrinfo, unless a test says otherwise. */
  readonly ask?: (host: string) => Promise<readonly string[]>;
}

const getAddresses = async (host: string): Promise<readonly string[]> =>
  (await lookup(host, { all: true, order: 'verbatim' })).map(({ address }) => address);

export const createSystemLookup = ({ timeoutMs = limits.dnsTimeoutMs, ask = getAddresses }: SystemLookupOptions = {}): Lookup => {
  const underWay = new Map<string, Promise<readonly string[]>>();
  const waiting: { readonly isForTarget: boolean; readonly begin: () => void }[] = [];
  let unmatched = 0;

  const hasRoom = (isForTarget: boolean): boolean =>
    underWay.size < limits.dnsLookupsMax && (isForTarget || unmatched < limits.dnsLookupsUnmatchedMax);

  const begin = (host: string, isForTarget: boolean): Promise<readonly string[]> => {
    if (!isForTarget) unmatched += 1;
    const asked = ask(host).finally(() => {
      if (!isForTarget) unmatched -= 1;
      underWay.delete(host);
      wakeNext();
    });
    underWay.set(host, asked);
    return asked;
  };
  /** Whoever came first of those that there is room for. */
  const wakeNext = (): void => {
    const next = waiting.findIndex((one) => hasRoom(one.isForTarget));
    if (next >= 0) waiting.splice(next, 1)[0]?.begin();
  };

  return (host, isForTarget) =>
    new Promise((resolve, reject) => {
      const start = (): void => {
        (underWay.get(host) ?? begin(host, isForTarget)).then(
          (answers) => settle(() => resolve(answers)),
          (cause: unknown) => settle(() => reject(new Fault('target_unresolved', { cause }))),
        );
      };
      const place = { isForTarget, begin: start };
      const settle = (how: () => void): void => {
        clearTimeout(timer);
        how();
      };
      const timer = setTimeout(() => {
        const at = waiting.indexOf(place);
        if (at >= 0) waiting.splice(at, 1);
        reject(new Fault('target_unresolved', { cause: new Error(`no answer within ${timeoutMs} ms`) }));
      }, timeoutMs);
      if (underWay.has(host) || hasRoom(isForTarget)) start();
      else waiting.push(place);
    });
};
