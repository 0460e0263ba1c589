/**
 * Who is to be told when a view changes. A watcher hears the whole snapshot at once and again whenever the version of its
 * view has changed, which covers rules and credentials as well as targets: proxies key their grants by it. Thousands are told in turns, so
 * that whoever asks for something meanwhile is answered; what is decided for them does not wait for that.
 */
import { Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { TargetSnapshot } from '../../core/target.ts';
import type { Log } from '../../ops/log.ts';
import type { View } from '../registry.ts';

export interface Watchers {
  /** Sends the first snapshot before it returns. Throws Fault overloaded when there are too many. */
  readonly add: (see: () => View, send: (snapshot: TargetSnapshot) => void, ended: AbortSignal) => void;
  /** Tells those whose view has changed: the first of them before it returns, the others in the order in which they came. */
  readonly refresh: () => void;
  readonly count: () => number;
}

interface Watcher {
  readonly see: () => View;
  readonly send: (snapshot: TargetSnapshot) => void;
  readonly ended: AbortSignal;
  sentVersion: string | undefined;
}

export const createWatchers = (log: Log): Watchers => {
  const watchers = new Set<Watcher>();
  /** Those who have not been told, or asked whether there is something to tell, since the latest change. */
  const waiting = new Set<Watcher>();
  let isTelling = false;

  const tell = (watcher: Watcher): void => {
    const { configurationVersion, snapshot } = watcher.see();
    if (configurationVersion === watcher.sentVersion) return;
    watcher.send(snapshot);
    // What could not be sent ended the stream, and was not sent.
    if (!watcher.ended.aborted) watcher.sentVersion = configurationVersion;
  };
  const tellSome = (): void => {
    let count = 0;
    for (const watcher of waiting) {
      if (count === limits.watchersToldAtOnce) return void setImmediate(tellSome);
      count += 1;
      waiting.delete(watcher);
      try {
        tell(watcher);
      } catch (error) {
        // The stream's end is the transport's to report; one broken stream must not keep the news from the others.
        log.warn({ error }, 'a watcher could not be told of a change');
      }
    }
    isTelling = false;
  };

  return {
    add: (see, send, ended) => {
      if (ended.aborted) return;
      if (watchers.size >= limits.watchersMax) throw new Fault('overloaded', { detail: 'Too many proxies watch this broker.' });
      const watcher: Watcher = { see, send, ended, sentVersion: undefined };
      tell(watcher);
      if (ended.aborted) return;
      watchers.add(watcher);
      const leave = (): void => {
        watchers.delete(watcher);
        waiting.delete(watcher);
      };
      ended.addEventListener('abort', leave, { once: true });
    },
    refresh: () => {
      for (const watcher of watchers) waiting.add(watcher);
      if (isTelling) return;
      isTelling = true;
      tellSome();
    },
    count: () => watchers.size,
  };
};
