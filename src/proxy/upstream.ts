/**
 * upstream: sends what was prepared and streams the answer back as it arrives, both ways with back-pressure and nothing kept.
 * Takes Prepared only. Knows neither the engine in front nor the one behind.
 */
import { isIP } from 'node:net';
import { Fault } from '../core/fault.ts';
import { blockBytes, type HeaderList, valuesOf, withoutHopByHop } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import type { DialPolicy } from '../net/guard.ts';
import type { Outbound } from '../net/outbound.ts';
import type { Prepared, Route } from './exchange.ts';

/** A target is trusted to be where its owner put it; unmatched traffic is not. */
export const dialPolicyOf = (route: Route, unmatchedPrivateAllowed: boolean): DialPolicy =>
  route.kind === 'target'
    ? { privateAllowed: true, named: route.target.hosts.filter((host) => isIP(host) !== 0) }
    : { privateAllowed: unmatchedPrivateAllowed, named: [] };

/** Resolves when the program has been given the whole answer; rejects with the Fault that ended it. */
export const send = async (prepared: Prepared, outbound: Outbound, dialPolicy: DialPolicy): Promise<void> => {
  const { sink } = prepared.accepted;
  const sending = outbound.send(
    {
      destination: prepared.destination,
      trustBundlePem: prepared.trustBundlePem,
      dialPolicy,
      method: prepared.method,
      path: prepared.path,
      headers: prepared.headers,
      body: prepared.body?.chunks,
    },
    {
      head: (status, reason, headers) => sink.head(status, printableReason(reason), answerHeaders(status, headers)),
      data: (chunk) => sink.write(chunk),
      onDrain: (resume) => sink.onDrain(resume),
    },
  );
  sink.onGone(() => sending.abort(new Fault('client_closed')));
  await sending.done;
  sink.end();
};

/** RFC 9112 section 4: a reason phrase means nothing, so one that could not be written is left out. */
const printableReason = (reason: string): string => (/^[\t\x20-\x7e\x80-\xff]*$/.test(reason) ? reason : '');

/**
 * The answer's fields for the program: ours to frame, so hop-by-hop goes, and a length that Transfer-Encoding overrules or that a
 * 204 must not have (RFC 9110 section 8.6).
 */
export const answerHeaders = (status: number, headers: HeaderList): HeaderList => {
  if (headers.length > limits.headerCountMax || blockBytes(headers) > limits.headerBytesMax) {
    throw new Fault('target_malformed', { detail: 'Its header block is too large.' });
  }
  const hasNoLength = status === 204 || valuesOf(headers, 'transfer-encoding').length > 0;
  const forwarded = withoutHopByHop(headers);
  return hasNoLength ? forwarded.filter(([name]) => name.toLowerCase() !== 'content-length') : forwarded;
};
