/** What every handler does with what it is thrown: a fault for the peer, the cause for the log. */
import { asFault, Fault } from '../../core/fault.ts';
import { limits } from '../../core/limits.ts';
import type { Log } from '../../ops/log.ts';
import { WireError } from '../wire.ts';

/** A message that cannot be accepted is the caller's fault; its text names a field and may be shown. */
export const malformed = (thrown: unknown): unknown =>
  thrown instanceof WireError ? new Fault('request_malformed', { detail: `The message is not valid: ${thrown.message}.` }) : thrown;

/** The fault to answer with. Whatever is not one is a failure of ours: logged, and nothing of it is told. */
export const faultFor = (thrown: unknown, method: string, log: Log): Fault => {
  const fault = asFault(malformed(thrown), 'broker_error');
  const isFault = thrown instanceof Fault || thrown instanceof WireError;
  if (!isFault) log.error({ method, error: thrown }, 'a call failed');
  // Only a fault with a cause has more to say than its code, which the metrics count.
  else if (fault.cause === undefined) log.debug({ method, code: fault.code, detail: fault.detail }, 'a call was refused');
  else log.info({ method, code: fault.code, error: fault }, 'a call was refused');
  return fault;
};

/** `bytes`, unless no peer would take that many. */
export const sendable = (bytes: Buffer): Buffer => {
  if (bytes.length > limits.messageBytesMax)
    throw new Error(`the message has ${bytes.length} bytes, the limit is ${limits.messageBytesMax}`);
  return bytes;
};
