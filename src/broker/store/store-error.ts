/** The store cannot be opened or used: the broker's operator has to act. The message says what to do and holds no stored value. */
export class StoreError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'StoreError';
  }
}
