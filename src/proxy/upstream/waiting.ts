/**
 * A 401 that waits until it is known whether the request is repeated: then nobody sees it; otherwise it goes on as it came. Holds a few
 * bytes; past them the target is not read.
 */
import type { HeaderList } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { Answer } from './answer.ts';

export class WaitingAnswer {
  readonly #answer: Answer;
  readonly #head: () => void;
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  #isDelivered = false;
  #resume: (() => void) | undefined;

  constructor(answer: Answer, status: number, reason: string, headers: HeaderList) {
    this.#answer = answer;
    this.#head = () => answer.head(status, reason, headers);
  }

  write(chunk: Uint8Array): boolean {
    if (this.#isDelivered) return this.#answer.write(chunk);
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    return this.#bytes < limits.waitingAnswerBytesMax;
  }

  onDrain(resume: () => void): void {
    if (this.#isDelivered) this.#answer.onDrain(resume);
    else this.#resume = resume;
  }

  /** Throws the Fault with which the program's end refuses the head. */
  deliver(): void {
    this.#isDelivered = true;
    this.#head();
    const isFlowing = this.#chunks.splice(0).reduce((_, chunk) => this.#answer.write(chunk), true);
    const resume = this.#resume;
    if (resume === undefined) return;
    if (isFlowing) resume();
    else this.#answer.onDrain(resume);
  }
}
