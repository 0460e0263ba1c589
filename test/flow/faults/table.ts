/** Which fault a peer's wrong ends in, by what is wrong: the documented table, which the fault tests hold every scenario to. */
import type { FaultCode } from '../../../src/core/fault.ts';
import type { Wrong } from './peers.ts';

/** For an answer that is wrong in itself, the peer was reached: broker_error. Below that, it was not. */
export const expectedCodes = ({ stage, isSilent, isUntrusted, what }: Wrong): readonly FaultCode[] => {
  if (isUntrusted) return ['broker_untrusted'];
  if (isSilent) return ['broker_timeout'];
  if (stage === 'connect' || stage === 'handshake') return ['broker_unavailable'];
  if (stage === 'head' && /TLS|HTTP\/2|breaks|refuses|503/.test(what)) return ['broker_unavailable'];
  if (/broken connection/.test(what)) return ['broker_unavailable'];
  return ['broker_error'];
};

/** Runs at most this many at a time: they wait more than they work. */
export const inParallel = async <T>(items: readonly T[], count: number, run: (item: T) => Promise<void>): Promise<void> => {
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) await run(item);
  };
  await Promise.all(Array.from({ length: count }, worker));
};
