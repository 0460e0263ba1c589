/**
 * Who is to be told when a view changes. A watcher hears the whole snapshot at once and again whenever the version of its
 * view has changed, which covers rules and credentials as well as targets: proxies key their grants by it.
 */
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { TargetSnapshot } from '../../core/target.ts';
import type { Log } from '../../ops/log.ts';
import type { View } from '../registry.ts';

export interface Watchers {
  /** Sends the first snapshot before it returns. Throws Fault overloaded when there are too many. */
  readonly add: (see: () => View, send: (snapshot: TargetSnapshot) => void, ended: AbortSignal) => void;
  /** Tells those whose view has changed. */
  readonly refresh: () => void;
  readonly count: () => number;
}

interface Watcher {
  readonly see: () => View;
  readonly send: (snapshot: TargetSnapshot) => void;
  sentVersion: string | undefined;
}

export const createWatchers = (log: Log): Watchers => {
  const watchers = new Set<Watcher>();
  const tell = (watcher: Watcher): void => {
    const { configurationVersion, snapshot } = watcher.see();
    if (configurationVersion === watcher.sentVersion) return;
    watcher.send(snapshot);
    watcher.sentVersion = configurationVersion;
  };
  return {
    add: (see, send, ended) => {
      if (ended.aborted) return;
      if (watchers.size >= limits.watchersMax) throw new Fault('overloaded', { detail: 'Too many proxies watch this broker.' });
      const watcher: Watcher = { see, send, sentVersion: undefined };
      tell(watcher);
      watchers.add(watcher);
      ended.addEventListener('abort', () => watchers.delete(watcher), { once: true });
    },
    refresh: () => {
      for (const watcher of watchers) {
        try {
          tell(watcher);
        } catch (error) {
          // The stream's end is the transport's to report; one broken stream must not keep the news from the others.
          log.warn({ error }, 'a watcher could not be told of a change');
        }
      }
    },
    count: () => watchers.size,
  };
};
