/**
 * One exchange's way to its one end, whichever engine carries it: what a receiver may be told, in which order, and that after the
 * end it is told nothing more. Knows no engine.
 */
import type { Duplex } from 'node:stream';
import { asFault, Fault } from '../../core/fault.ts';
import type { HeaderList } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { ResponseReceiver } from '../outbound.ts';

export class Reception {
  readonly done: Promise<HeaderList>;
  readonly #receiver: ResponseReceiver;
  readonly #expectsContinue: boolean;
  readonly #settle: { readonly resolve: (trailers: HeaderList) => void; readonly reject: (fault: Fault) => void };
  #informational = 0;
  #hasHead = false;
  #isSettled = false;
  #failure: Fault | undefined;
  #cancel: (reason: Fault) => void = () => undefined;
  #afterwards: (() => void)[] = [];

  constructor(receiver: ResponseReceiver, expectsContinue: boolean) {
    const { promise, resolve, reject } = Promise.withResolvers<HeaderList>();
    this.done = promise;
    this.#receiver = receiver;
    this.#expectsContinue = expectsContinue;
    this.#settle = { resolve, reject };
  }

  get hasHead(): boolean {
    return this.#hasHead;
  }

  get isSettled(): boolean {
    return this.#isSettled;
  }

  /** How to end the engine's side when the exchange is given up; at once if it was already. The last one given counts. */
  onCancel(cancel: (reason: Fault) => void): void {
    this.#cancel = cancel;
    if (this.#failure) cancel(this.#failure);
  }

  /** Runs when the exchange has ended, however it did. */
  onSettled(afterwards: () => void): void {
    if (this.#isSettled) afterwards();
    else this.#afterwards.push(afterwards);
  }

  /** An interim answer. 101 is none: it is `upgraded` or a mistake (RFC 9110 section 15.2). */
  informational(status: number, headers: HeaderList): void {
    if (this.#isSettled) return;
    this.#informational += 1;
    if (status < 100 || status > 199 || status === 101 || this.#hasHead) return this.malformed('It sent an interim answer out of place.');
    if (this.#informational > limits.informationalResponsesMax) return this.malformed('It sent too many interim answers.');
    if (status === 100 && !this.#expectsContinue) return;
    this.#tell(() => this.#receiver.informational(status, headers));
  }

  head(status: number, reason: string, headers: HeaderList): void {
    if (this.#isSettled) return;
    if (status < 200 || this.#hasHead) return this.malformed('It sent an answer out of place.');
    this.#hasHead = true;
    this.#tell(() => this.#receiver.head(status, reason, headers));
  }

  /** False: pause until the function given to `onDrain` is called. */
  data(chunk: Uint8Array): boolean {
    return this.#isSettled || this.#receiver.data(chunk);
  }

  onDrain(resume: () => void): void {
    this.#receiver.onDrain(resume);
  }

  upgraded(headers: HeaderList, target: Duplex): void {
    if (this.#isSettled) return;
    this.#tell(() => this.#receiver.upgraded(headers, target));
    this.end([]);
  }

  end(trailers: HeaderList): void {
    if (!this.#finish()) return;
    this.#settle.resolve(trailers);
  }

  malformed(detail: string): void {
    this.fail(new Fault('target_malformed', { detail }));
  }

  fail(fault: Fault): void {
    if (!this.#finish()) return;
    this.#failure = fault;
    this.#settle.reject(fault);
    this.#cancel(fault);
  }

  #finish(): boolean {
    if (this.#isSettled) return false;
    this.#isSettled = true;
    for (const afterwards of this.#afterwards.splice(0)) afterwards();
    return true;
  }

  #tell(what: () => void): void {
    try {
      what();
    } catch (thrown) {
      this.fail(asFault(thrown));
    }
  }
}
