/**
 * What was done differently from what a pod asked for, told where its owner looks: as Kubernetes Events, after the answer. They are remarks:
 * nothing waits for them, and when many wait, more are dropped and counted.
 * https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/ (in its core/v1 form, which every kubectl shows)
 */
import { randomUUID } from 'node:crypto';
import type { JsonObject } from '../core/json.ts';
import { limits } from '../core/limits.ts';
import { ApiError, type ApiServer } from '../net/api-server.ts';
import type { Clock } from '../ops/clock.ts';
import type { Log } from '../ops/log.ts';

export interface Remark {
  readonly namespace: string;
  /** What it is about: a pod that has a name, or what makes it. */
  readonly about: { readonly apiVersion: string; readonly kind: string; readonly name: string; readonly uid: string };
  readonly type: 'Normal' | 'Warning';
  /** One word in CamelCase. */
  readonly reason: string;
  readonly message: string;
}

export interface Remarks {
  readonly send: (remark: Remark) => void;
  /** Settles when the one under way has been sent; the others are dropped. */
  readonly close: () => Promise<void>;
}

export interface RemarksOptions {
  readonly api: Pick<ApiServer, 'create'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly onFailure: () => void;
}

/** The longest message that the API takes. */
const messageMax = 1_024;

export const createRemarks = ({ api, clock, log, onFailure }: RemarksOptions): Remarks => {
  let waiting: Remark[] = [];
  let sending: Promise<void> | undefined;
  const sendAll = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      try {
        await api.create(`/api/v1/namespaces/${next.namespace}/events`, eventOf(next, clock.now()));
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        onFailure();
        log.warn({ error }, 'an Event could not be sent');
      }
    }
    sending = undefined;
  };
  return {
    send: (remark) => {
      if (waiting.length >= limits.remarksMax) return onFailure();
      waiting.push(remark);
      sending ??= sendAll();
    },
    close: async () => {
      waiting = [];
      await sending;
    },
  };
};

const eventOf = ({ namespace, about, type, reason, message }: Remark, nowMs: number): JsonObject => {
  const time = new Date(nowMs).toISOString().replace(/\.\d+Z$/, 'Z');
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `${about.name.slice(0, 200)}.${randomUUID().slice(0, 13)}`, namespace },
    involvedObject: { ...about, namespace },
    type,
    reason,
    message: message.slice(0, messageMax),
    source: { component: 'outrider-injector' },
    firstTimestamp: time,
    lastTimestamp: time,
    count: 1,
  };
};
