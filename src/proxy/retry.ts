/**
 * What is done about a 401: the request is repeated once, with a fresh credential or with the nonce that the target asked for, when its
 * body is at hand. A target that always says 401 costs one call to the broker now and then, not one for each request. Of the pipeline;
 * knows no order of stages.
 */
import type { Budget } from '../core/budget.ts';
import { hostPort } from '../core/destination.ts';
import { asFault, Fault } from '../core/fault.ts';
import type { Grant } from '../core/grant.ts';
import type { HeaderList } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import type { Clock } from '../ops/clock.ts';
import type { Metrics } from '../ops/metrics.ts';
import type { Authorized, Granted } from './exchange.ts';
import { type GrantSource, keyOf } from './grant.ts';
import { asksForNonce, nonceOf } from './inject.ts';
import { type Recording, recordingOf } from './replay.ts';
import type { Remedy } from './upstream.ts';

export interface RetryParts {
  readonly grants: GrantSource;
  readonly buffers: Budget;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** What to do instead of showing the 401: send this, or refuse the request. */
export type Instead = Granted | Fault;

export interface Retry extends Remedy<Instead> {
  /** The request, with a body that is kept as it goes. */
  readonly request: Authorized;
  /** What the target asked to see in a proof. */
  readonly nonce: string | undefined;
}

export const createRetries = (parts: RetryParts): ((authorized: Authorized, attempt: number) => Retry) => {
  const nonces = createNonces();
  return (authorized, attempt) =>
    attempt === 1 && authorized.upgrade === undefined ? new FirstAttempt(authorized, parts, nonces) : lastAttempt(authorized, nonces);
};

/** The latest nonce of each origin, where proofs are used. */
interface Nonces {
  readonly get: (authorized: Authorized) => string | undefined;
  readonly hear: (authorized: Authorized, headers: HeaderList) => void;
}

const createNonces = (): Nonces => {
  const latest = new Map<string, string>();
  return {
    get: (authorized) => (usesProof(authorized.grant) ? latest.get(hostPort(authorized.destination)) : undefined),
    hear: (authorized, headers) => {
      const nonce = usesProof(authorized.grant) ? nonceOf(headers) : undefined;
      if (nonce === undefined) return;
      const origin = hostPort(authorized.destination);
      latest.delete(origin);
      if (latest.size >= limits.proofNoncesMax) latest.delete(latest.keys().next().value as string);
      latest.set(origin, nonce);
    },
  };
};

const usesProof = ({ credentials }: Grant): boolean => credentials.some(({ placement }) => placement.kind === 'dpop');

const lastAttempt = (request: Authorized, nonces: Nonces): Retry => ({
  request,
  nonce: nonces.get(request),
  seek: () => undefined,
  answered: (headers) => nonces.hear(request, headers),
});

type Result = 'unchanged' | 'unavailable' | 'denied' | 'unrepeatable';

class FirstAttempt implements Retry {
  readonly request: Authorized;
  readonly nonce: string | undefined;
  readonly #parts: RetryParts;
  readonly #nonces: Nonces;
  readonly #recording: Recording | undefined;

  constructor(authorized: Authorized, parts: RetryParts, nonces: Nonces) {
    this.#parts = parts;
    this.#nonces = nonces;
    this.nonce = nonces.get(authorized);
    this.#recording = authorized.body?.held === undefined ? recordingOf(authorized, parts.buffers) : undefined;
    this.request = this.#recording ? { ...authorized, body: this.#recording.body } : authorized;
  }

  answered(headers: HeaderList): void {
    this.#nonces.hear(this.request, headers);
    this.#recording?.drop();
  }

  seek(headers: HeaderList): Promise<Instead | undefined> | undefined {
    this.#nonces.hear(this.request, headers);
    const { grant } = this.request;
    if (!this.#isRepeatable()) return this.#none('unrepeatable');
    if (usesProof(grant) && asksForNonce(headers) && nonceOf(headers) !== this.nonce) return Promise.resolve(this.#with(grant));
    const renewal = this.#parts.grants.renew?.(keyOf(this.request), grant);
    return renewal === undefined ? this.#none('unchanged') : this.#after(renewal);
  }

  async #after(renewal: Promise<Grant | undefined>): Promise<Instead | undefined> {
    try {
      const fresh = await within(renewal, this.#parts.clock);
      return fresh === 'late' ? this.#none('unavailable') : fresh === undefined ? this.#none('unchanged') : this.#with(fresh);
    } catch (thrown) {
      const fault = asFault(thrown);
      // The workload may not use this target any more: that is the answer. What is merely broken leaves the 401, which says as much.
      if (fault.row.blame !== 'policy' && fault.row.blame !== 'identity') return this.#none('unavailable');
      this.#none('denied');
      this.request.body?.release?.();
      return fault;
    }
  }

  #isRepeatable(): boolean {
    const { body } = this.request;
    return body === undefined || body.held !== undefined || (this.#recording?.isComplete() ?? false);
  }

  #none(result: Result): undefined {
    this.#parts.metrics.add('outrider_proxy_credential_retries_total', { target: this.request.route.target.name, result });
    if (result !== 'denied') this.#recording?.drop();
    return undefined;
  }

  /** Its body is whole, so nobody waits for 100 any more. */
  #with(grant: Grant): Granted {
    const body = this.#recording ? this.#recording.replay() : this.request.body;
    return { ...this.request, grant, body, expectsContinue: false };
  }
}

const within = (renewal: Promise<Grant | undefined>, clock: Clock): Promise<Grant | undefined | 'late'> => {
  const { promise, resolve } = Promise.withResolvers<'late'>();
  const cancel = clock.after(limits.waitingAnswerTimeoutMs, () => resolve('late'));
  return Promise.race([renewal, promise]).finally(cancel);
};
