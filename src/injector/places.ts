/**
 * Where pods are injected, by what the cluster says and never by what a review says, which anyone who reaches the webhook can write: namespaces
 * with the label, and those with a pod that has it. Only there the trust domain's authorities and remarks are brought. A namespace's first
 * labelled pod is not in the cluster while its review is answered: it is looked for a little later, and the kubelet waits for it meanwhile.
 */
import { limits } from '../core/limits.ts';
import { ApiError, type ApiServer } from '../net/api-server.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';
import { labels } from './names.ts';

export interface Places {
  /** What a census has found; what was known before is forgotten. */
  readonly know: (namespaces: Iterable<string>) => void;
  /** Asks where it is not known; false where it cannot be told. Never rejects. */
  readonly isOne: (namespace: string) => Promise<boolean>;
  /** The same, asked when the pod of a review under way should have been made. */
  readonly becomesOne: (namespace: string) => Promise<boolean>;
  /** Who waits hears no. */
  readonly close: () => Promise<void>;
}

export interface PlacesOptions {
  readonly api: Pick<ApiServer, 'pages'>;
  readonly clock: Clock;
  readonly log: Log;
  /** A call to the API server failed. */
  readonly onFailure: () => void;
}

const labelSelector = `${labels.inject}=enabled`;

export const createPlaces = ({ api, clock, log, onFailure }: PlacesOptions): Places => {
  let known = new Set<string>();
  const asked = new Map<string, Promise<boolean>>();
  const waiting = new Map<string, { readonly promise: Promise<boolean>; readonly giveUp: () => void }>();

  const isAny = async (pages: ReturnType<ApiServer['pages']>): Promise<boolean> => {
    for await (const page of pages) if (page.length > 0) return true;
    return false;
  };
  const ask = async (namespace: string): Promise<boolean> => {
    try {
      const found =
        (await isAny(api.pages('/api/v1/namespaces', { labelSelector, fieldSelector: `metadata.name=${namespace}` }))) ||
        (await isAny(api.pages(`/api/v1/namespaces/${namespace}/pods`, { labelSelector })));
      if (found) known.add(namespace);
      return found;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      onFailure();
      log.warn({ error, namespace }, 'it cannot be told whether pods are injected in the namespace; the next count will');
      return false;
    } finally {
      asked.delete(namespace);
    }
  };
  const isOne = async (namespace: string): Promise<boolean> => {
    if (known.has(namespace)) return true;
    const underWay = asked.get(namespace);
    if (underWay) return underWay;
    if (asked.size >= limits.placesAskedMax) return false;
    const answer = ask(namespace);
    asked.set(namespace, answer);
    return answer;
  };

  return {
    know: (namespaces) => void (known = new Set(namespaces)),
    isOne,
    becomesOne: async (namespace) => {
      const already = waiting.get(namespace);
      if (already) return already.promise;
      if (waiting.size >= limits.placesWaitingMax) return false;
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const cancel = clock.after(limits.placesWaitMs, () => {
        waiting.delete(namespace);
        resolve(isOne(namespace));
      });
      const giveUp = (): void => {
        cancel();
        resolve(false);
      };
      waiting.set(namespace, { promise, giveUp });
      return promise;
    },
    close: async () => {
      for (const { giveUp } of waiting.values()) giveUp();
      waiting.clear();
      await Promise.all(asked.values());
    },
  };
};
