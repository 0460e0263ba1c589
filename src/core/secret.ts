/**
 * A value that must not be printed. Every printer shows `[secret]`; only `reveal()` gives the value, and it is called
 * in the few files that write credentials to the wire (test/tidy.test.ts lists them).
 */
const mark = '[secret]';

export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return mark;
  }

  toJSON(): string {
    return mark;
  }

  [Symbol.toPrimitive](): string {
    return mark;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return mark;
  }
}
