/**
 * upstream: sends what was prepared and streams the answer back as it arrives, both ways with back-pressure and nothing kept.
 * Takes Prepared only. Knows neither the engine in front nor the one behind.
 */
import { isIP } from 'node:net';
import { Fault } from '../core/fault.ts';
import { blockBytes, type HeaderList, overridingFields, sameNameKeys, valuesOf, without, withoutHopByHop } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import type { DialPolicy } from '../net/guard.ts';
import type { Outbound } from '../net/outbound.ts';
import type { BodySource, Prepared, Route } from './exchange.ts';

/** A target is trusted to be where its owner put it; unmatched traffic is not. */
export const dialPolicyOf = (route: Route, unmatchedPrivateAllowed: boolean): DialPolicy =>
  route.kind === 'target'
    ? { privateAllowed: true, named: route.target.hosts.filter((host) => isIP(host) !== 0) }
    : { privateAllowed: unmatchedPrivateAllowed, named: [] };

/** Resolves when the program has been given the whole answer; rejects with the Fault that ended it. */
export const send = async (prepared: Prepared, outbound: Outbound, dialPolicy: DialPolicy): Promise<void> => {
  const { sink, originalAddress, upgrade, expectsContinue } = prepared.accepted;
  let joined: Promise<void> | undefined;
  let isGone = false;
  sink.onGone(() => (isGone = true));
  // It left while its grant was fetched: the target need not hear of it.
  if (isGone) throw new Fault('client_closed');
  const sending = outbound.send(
    {
      destination: prepared.destination,
      connection: prepared.connection,
      dialPolicy,
      address: prepared.isCredentialed ? undefined : originalAddress,
      method: prepared.method,
      path: prepared.path,
      headers: prepared.headers,
      body: prepared.body && { chunks: prepared.body.chunks, trailers: forwardedTrailers(prepared.body, prepared.headers) },
      upgrade,
      expectsContinue,
    },
    {
      informational: (status, headers) => sink.informational(status, answerHeaders(status, headers)),
      head: (status, reason, headers) => sink.head(status, printableReason(reason), answerHeaders(status, headers)),
      data: (chunk) => sink.write(chunk),
      onDrain: (resume) => sink.onDrain(resume),
      upgraded: (headers, target) => {
        joined = sink.upgrade(upgradeAnswer(headers, upgrade as string), target);
      },
    },
  );
  sink.onGone(() => sending.abort(new Fault('client_closed')));
  const trailers = await sending.done;
  if (joined) return joined;
  return sink.end(answerTrailers(trailers));
};

/**
 * Fields that are never trailers, whichever way they go: what frames, routes or authenticates a message must be known before its body
 * (RFC 9110 section 6.5.1; THREATS F-4).
 */
const neverTrailers = sameNameKeys([
  'content-length',
  'content-type',
  'content-encoding',
  'content-range',
  'host',
  'authorization',
  'cookie',
  'set-cookie',
  'www-authenticate',
  'cache-control',
  'expect',
  'location',
  'max-forwards',
  'range',
]);

const cleanTrailers = (trailers: HeaderList): HeaderList => without(withoutHopByHop(trailers), neverTrailers, overridingFields);

/** The request's trailers, without those that would stand beside a credential in a place of its name. */
const forwardedTrailers = (body: BodySource, headers: HeaderList) => (): HeaderList =>
  without(cleanTrailers(body.trailers()), sameNameKeys(headers.map(([name]) => name)));

/** The answer's trailers; more than a header block may have is no answer of a sound target. */
const answerTrailers = (trailers: HeaderList): HeaderList =>
  trailers.length > limits.headerCountMax || blockBytes(trailers) > limits.headerBytesMax ? [] : cleanTrailers(trailers);

/** 101 with the target's own fields: `Upgrade` is what it chose, and `Connection` names it (RFC 9110 section 7.8). */
const upgradeAnswer = (headers: HeaderList, asked: string): HeaderList => [
  ['connection', 'upgrade'],
  ['upgrade', valuesOf(headers, 'upgrade')[0] ?? asked],
  ...answerHeaders(101, headers),
];

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
  const hasNoLength = status < 200 || status === 204 || valuesOf(headers, 'transfer-encoding').length > 0;
  const forwarded = withoutHopByHop(headers);
  return hasNoLength ? forwarded.filter(([name]) => name.toLowerCase() !== 'content-length') : forwarded;
};
