/**
 * The echo guard: what the target was shown of a credential does not come back to the program. Searches the heads, bodies and trailers
 * of an answer; a hit is written over or refuses the answer, as the target's owner decided. Best effort: core/needle.ts says what is
 * found, decoding.ts what of compressed bodies. The one place beside inject that sees what a grant's credentials are.
 *
 * Written over means asterisks of the same length, so the answer's framing stays. ETag and digests stay, too: a program that checks
 * one finds out that the answer is not what the target wrote, which is so.
 */
import type { Duplex } from 'node:stream';
import type { Budget } from '../../core/budget.ts';
import { asFault, Fault } from '../../core/fault.ts';
import { type HeaderList, valuesOf } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import { compileNeedle, mayHold, type Needle, Search, withoutHits } from '../../core/needle.ts';
import type { Secret } from '../../core/secret.ts';
import type { Prepared } from '../exchange.ts';
import type { Answer } from './answer.ts';
import { Decoding, type Unsearched } from './decoding.ts';

/** Told what was found: for the event, the metrics and the log. Never what it was. */
export interface EchoNotice {
  readonly echoed: (action: 'redacted' | 'refused', count: number) => void;
  readonly unsearched: (reason: Unsearched) => void;
}

export interface EchoParts {
  readonly notice: EchoNotice;
  /** For decoders of compressed answers. */
  readonly buffers: Budget;
}

const needles = new WeakMap<readonly Secret[], Needle | undefined>();

const needleOf = (unspoken: readonly Secret[]): Needle | undefined => {
  if (!needles.has(unspoken)) needles.set(unspoken, compileNeedle(unspoken.map((secret) => secret.reveal())));
  return needles.get(unspoken);
};

/** The answer itself where there is nothing to guard. `abort` ends the exchange. */
export const guarded = (answer: Answer, { unspoken, echo }: Prepared, parts: EchoParts, abort: (fault: Fault) => void): Answer => {
  if (echo === 'pass' || unspoken.length === 0) return answer;
  const needle = needleOf(unspoken);
  return needle === undefined ? answer : new EchoGuard(answer, { needle, treatment: echo, abort, ...parts });
};

interface GuardParts extends EchoParts {
  readonly needle: Needle;
  readonly treatment: 'redact' | 'refuse';
  readonly abort: (fault: Fault) => void;
}

interface Head {
  readonly status: number;
  readonly reason: string;
  readonly headers: HeaderList;
}

class EchoGuard implements Answer {
  readonly #answer: Answer;
  readonly #needle: Needle;
  readonly #treatment: 'redact' | 'refuse';
  readonly #notice: EchoNotice;
  readonly #buffers: Budget;
  readonly #abort: (fault: Fault) => void;
  /** Waits for the first of the body, where that is about to come anyway: an answer whose head has gone can only be broken off. */
  #head: Head | undefined;
  #hasBody = false;
  #search: Search | undefined;
  #searchedBytes = 0;
  #isPassing = false;
  #giving: NodeJS.Timeout | undefined;
  #decoding: Decoding | undefined;
  #fault: Fault | undefined;

  constructor(answer: Answer, { needle, treatment, notice, buffers, abort }: GuardParts) {
    this.#answer = answer;
    this.#needle = needle;
    this.#treatment = treatment;
    this.#notice = notice;
    this.#buffers = buffers;
    this.#abort = abort;
  }

  informational(status: number, headers: HeaderList): void {
    this.#answer.informational(status, this.#fields(headers));
  }

  head(status: number, reason: string, headers: HeaderList): void {
    const found = withoutHits(this.#needle, reason);
    this.#note(found.hits);
    const head: Head = { status, reason: found.text, headers: this.#fields(headers) };
    const coding = codingOf(headers);
    if (coding === undefined) this.#search = new Search(this.#needle);
    else this.#decoding = new Decoding(coding, this.#needle, this.#buffers, this.#reader());
    if (coding === undefined && this.#treatment === 'redact') return this.#answer.head(status, head.reason, head.headers);
    const length = valuesOf(headers, 'content-length')[0];
    if (length === '0' || (coding === undefined && length === undefined)) return this.#answer.head(status, head.reason, head.headers);
    this.#head = head;
    // A stream may say nothing for long, and who reads it may wait for its head.
    if (length === undefined) setImmediate(() => !this.#hasBody && this.#forward(nothing));
  }

  write(chunk: Uint8Array): boolean {
    this.#hasBody = true;
    if (this.#fault) return true;
    if (this.#decoding) return this.#decoding.write(chunk);
    const search = this.#search;
    if (search === undefined) return this.#pass(chunk);
    this.#stopGiving();
    const before = search.hits;
    const settled = search.push(chunk);
    if (!this.#accepts(search.hits - before)) return true;
    if (search.held > 0 && search.held <= limits.echoGivenBytesMax) this.#giving = setTimeout(() => this.#give(search), limits.echoHeldMs);
    this.#searchedBytes += chunk.length;
    if (this.#searchedBytes >= limits.echoScanBytesMax && search.held === 0) this.#search = undefined;
    return settled.length === 0 || this.#forward(settled);
  }

  /** The target says no more for now, and who reads may be waiting for just these: a prompt, the end of a line. */
  #give(search: Search): void {
    this.#giving = undefined;
    this.#forward(search.give());
  }

  #stopGiving(): void {
    clearTimeout(this.#giving);
    this.#giving = undefined;
  }

  /** Past the bound. */
  #pass(chunk: Uint8Array): boolean {
    if (!this.#isPassing) this.#notice.unsearched('size');
    this.#isPassing = true;
    return this.#answer.write(chunk);
  }

  onDrain(resume: () => void): void {
    if (this.#decoding) this.#decoding.onDrain(resume);
    else this.#answer.onDrain(resume);
  }

  end(trailers: HeaderList): void | Promise<void> {
    if (this.#decoding) return this.#decoding.finish().then(() => this.#finish(trailers));
    this.#stopGiving();
    const search = this.#search;
    if (search && search.held > 0) {
      const before = search.hits;
      const rest = search.end();
      if (this.#accepts(search.hits - before)) this.#forward(rest);
    }
    return this.#finish(trailers);
  }

  #finish(trailers: HeaderList): void | Promise<void> {
    if (this.#fault) throw this.#fault;
    this.#sendHead();
    return this.#answer.end(this.#fields(trailers));
  }

  upgrade(headers: HeaderList, target: Duplex): Promise<void> {
    const clean = this.#fields(headers);
    this.#notice.unsearched('upgrade');
    return this.#answer.upgrade(clean, target);
  }

  /** The exchange is over, however it ended. */
  close(): void {
    this.#stopGiving();
    this.#decoding?.close();
  }

  #reader() {
    return {
      forward: (chunk: Uint8Array): boolean => {
        if (this.#forward(chunk)) return true;
        this.#answer.onDrain(() => this.#decoding?.unblock());
        return false;
      },
      // Compressed bytes cannot be written over.
      echoed: (): void => this.#refuse(1),
      unsearched: (reason: Unsearched): void => {
        this.#notice.unsearched(reason);
        if (this.#treatment === 'refuse' && reason !== 'size') this.#fail(new Fault('target_unsearchable'));
      },
    };
  }

  /** False when the exchange has ended over it. */
  #accepts(hits: number): boolean {
    if (hits > 0 && this.#treatment === 'refuse') {
      this.#refuse(hits);
      return false;
    }
    if (hits > 0) this.#notice.echoed('redacted', hits);
    return true;
  }

  #refuse(hits: number): void {
    this.#notice.echoed('refused', hits);
    this.#fail(new Fault('target_echoed'));
  }

  #fail(fault: Fault): void {
    this.#fault ??= fault;
    this.#decoding?.close();
    this.#abort(fault);
  }

  #forward(bytes: Uint8Array): boolean {
    if (this.#fault) return true;
    try {
      this.#sendHead();
    } catch (thrown) {
      this.#fail(asFault(thrown));
      return true;
    }
    return bytes.length === 0 || this.#answer.write(bytes);
  }

  #sendHead(): void {
    const head = this.#head;
    this.#head = undefined;
    if (head) this.#answer.head(head.status, head.reason, head.headers);
  }

  /** Of a head: here a refusal can be thrown. */
  #note(hits: number): void {
    if (hits === 0) return;
    if (this.#treatment === 'redact') return this.#notice.echoed('redacted', hits);
    this.#notice.echoed('refused', hits);
    throw new Fault('target_echoed');
  }

  #fields(headers: HeaderList): HeaderList {
    if (!headers.some(([name, value]) => mayHold(this.#needle, value) || mayHold(this.#needle, name))) return headers;
    let hits = 0;
    const clean = headers.flatMap(([name, value]): HeaderList => {
      // What frames the answer is no text of the target's.
      if (name.toLowerCase() === 'content-length') return [[name, value]];
      const found = withoutHits(this.#needle, value);
      const inName = withoutHits(this.#needle, name).hits;
      hits += found.hits + inName;
      return inName > 0 ? [] : [[name, found.text]];
    });
    this.#note(hits);
    return clean;
  }
}

/** The coding that has to be undone to read the body; undefined for none. A gRPC stream codes each of its messages. */
const codingOf = (headers: HeaderList): string | undefined => {
  const ofContent = valuesOf(headers, 'content-encoding');
  const ofMessages = valuesOf(headers, 'grpc-encoding');
  if (ofContent.length === 0 && ofMessages.length === 0) return undefined;
  const codings = [...ofContent, ...ofMessages.map((one) => `grpc ${one}`)]
    .join()
    .toLowerCase()
    .split(',')
    .map((coding) => coding.trim())
    .filter((coding) => coding !== '' && coding !== 'identity' && coding !== 'grpc identity');
  return codings.length === 0 ? undefined : codings.join();
};

const nothing = Buffer.alloc(0);
