/**
 * upstream: sends what was prepared and streams the answer back as it arrives, both ways with back-pressure and nothing kept.
 * Takes Prepared only. Knows neither the engine in front nor the one behind.
 */
import { isIP } from 'node:net';
import { asFault, Fault } from '../core/fault.ts';
import { blockBytes, type HeaderList, overridingFields, sameNameKeys, valuesOf, without, withoutHopByHop } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import type { Target } from '../core/target.ts';
import type { DialPolicy } from '../net/guard.ts';
import type { Outbound, ResponseReceiver, Sending } from '../net/outbound.ts';
import type { BodySource, Prepared, Route } from './exchange.ts';
import type { Answer } from './upstream/answer.ts';
import { type EchoParts, guarded } from './upstream/echo.ts';
import { WaitingAnswer } from './upstream/waiting.ts';

export type { EchoNotice } from './upstream/echo.ts';

const ofTargets = new WeakMap<Target, DialPolicy>();

/** One for each target: it is asked for with every request, and a target may have many hosts. */
const ofTarget = (target: Target): DialPolicy => {
  const known = ofTargets.get(target);
  if (known) return known;
  const made: DialPolicy = { isForTarget: true, privateAllowed: true, named: target.hosts.filter((host) => isIP(host) !== 0) };
  ofTargets.set(target, made);
  return made;
};
const ofPassed: { readonly [P in 'open' | 'closed']: DialPolicy } = {
  open: { privateAllowed: true, named: [] },
  closed: { privateAllowed: false, named: [] },
};

/** A target is trusted to be where its owner put it; unmatched traffic is not. */
export const dialPolicyOf = (route: Route, unmatchedPrivateAllowed: boolean): DialPolicy =>
  route.kind === 'target' ? ofTarget(route.target) : unmatchedPrivateAllowed ? ofPassed.open : ofPassed.closed;

/** How a request leaves, and who is told what its answer repeats. */
export interface Way extends EchoParts {
  readonly outbound: Outbound;
  readonly dialPolicy: DialPolicy;
}

/** What may be done about a 401 before the program sees it. */
export interface Remedy<T> {
  /** Undefined at once when nothing can be: the answer goes on. Resolves with what to do instead, or undefined for that; never rejects. */
  readonly seek: (headers: HeaderList) => Promise<T | undefined> | undefined;
  /** The answer is one that goes on. */
  readonly answered: (headers: HeaderList) => void;
}

/**
 * Resolves when the program has been given the whole answer, or, with what the remedy for its 401 is, when it has been given nothing of
 * it; rejects with the Fault that ended it.
 */
export const send = async <T = never>(prepared: Prepared, way: Way, remedy?: Remedy<T>): Promise<T | undefined> => {
  const { sink } = prepared.accepted;
  let isGone = false;
  sink.onGone(() => (isGone = true));
  // It left while its grant was fetched: the target need not hear of it.
  if (isGone) throw new Fault('client_closed');
  const answer = guarded(sink, prepared, way, (fault) => sending.abort(fault));
  const reception = receptionOf(answer, prepared, remedy, (fault) => sending.abort(fault));
  const sending: Sending = way.outbound.send(requestOf(prepared, way.dialPolicy), reception.receiver);
  sink.onGone(() => sending.abort(new Fault('client_closed')));
  try {
    const trailers = await sending.done;
    const verdict = reception.verdict();
    const found = verdict && (await verdict);
    if (verdict && isGone) throw new Fault('client_closed');
    if (found !== undefined) return found;
    const ending = reception.joined() ?? answer.end(answerTrailers(trailers));
    if (ending) await ending;
    return undefined;
  } catch (thrown) {
    // A 401 that broke off, or was given up because there is a remedy.
    const found = isGone ? undefined : await reception.verdict();
    if (found !== undefined) return found;
    throw thrown;
  } finally {
    answer.close?.();
  }
};

const requestOf = (prepared: Prepared, dialPolicy: DialPolicy) => {
  const { originalAddress, upgrade, expectsContinue } = prepared.accepted;
  return {
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
  };
};

interface AnswerReception<T> {
  readonly receiver: ResponseReceiver;
  /** The answer was 101: resolves when both ends have closed. */
  readonly joined: () => Promise<void> | undefined;
  /** What the remedy found; undefined when there was nothing to remedy. Throws the Fault with which the answer was refused after all. */
  readonly verdict: () => Promise<T | undefined> | undefined;
}

/** Puts what arrives in shape for the program; a 401 waits for its remedy. */
const receptionOf = <T>(
  answer: Answer,
  prepared: Prepared,
  remedy: Remedy<T> | undefined,
  abort: (fault: Fault) => void,
): AnswerReception<T> => {
  let next: Pick<Answer, 'write' | 'onDrain'> = answer;
  let joined: Promise<void> | undefined;
  let verdict: Promise<T | undefined> | undefined;

  const wait = async (waiting: WaitingAnswer, sought: Promise<T | undefined>): Promise<T | undefined> => {
    const found = await sought;
    try {
      if (found === undefined) waiting.deliver();
      else abort(superseded());
    } catch (thrown) {
      abort(asFault(thrown));
      throw thrown;
    }
    return found;
  };

  return {
    receiver: {
      informational: (status, headers) => answer.informational(status, answerHeaders(status, headers)),
      head: (status, reason, headers) => {
        const [phrase, fields] = [printableReason(reason), answerHeaders(status, headers)];
        const sought = status === 401 ? remedy?.seek(headers) : undefined;
        if (sought === undefined) {
          remedy?.answered(headers);
          answer.head(status, phrase, fields);
        } else {
          const waiting = new WaitingAnswer(answer, status, phrase, fields);
          next = waiting;
          verdict = wait(waiting, sought);
          // Who waits for the end of the answer hears of it then.
          verdict.catch(() => undefined);
        }
      },
      data: (chunk) => next.write(chunk),
      onDrain: (resume) => next.onDrain(resume),
      upgraded: (headers, target) => {
        joined = answer.upgrade(upgradeAnswer(headers, prepared.accepted.upgrade as string), target);
      },
    },
    joined: () => joined,
    verdict: () => verdict,
  };
};

/** The rest of an answer that nobody will see. */
const superseded = (): Fault => new Fault('client_closed', { detail: 'The request is repeated.' });

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

/** Expect says nothing in an answer (RFC 9110 section 10.1.1), and node:http acts on it there, too. */
const isOfRequests = (name: string): boolean => name.length === 6 && name.toLowerCase() === 'expect';

/**
 * The answer's fields for the program: ours to frame, so hop-by-hop goes, and a length that Transfer-Encoding overrules or that a
 * 204 must not have (RFC 9110 section 8.6).
 */
const answerHeaders = (status: number, headers: HeaderList): HeaderList => {
  if (headers.length > limits.headerCountMax || blockBytes(headers) > limits.headerBytesMax) {
    throw new Fault('target_malformed', { detail: 'Its header block is too large.' });
  }
  const hasNoLength = status < 200 || status === 204 || valuesOf(headers, 'transfer-encoding').length > 0;
  const length = valuesOf(headers, 'content-length')[0];
  // Node reads "007" as 7; not everybody does (THREATS F-1, F-10).
  if (length !== undefined && !/^(?:0|[1-9][0-9]*)$/.test(length)) {
    throw new Fault('target_malformed', { detail: 'Its Content-Length is not a plain number.' });
  }
  const forwarded = withoutHopByHop(headers).filter(([name]) => !isOfRequests(name));
  return hasNoLength ? forwarded.filter(([name]) => name.toLowerCase() !== 'content-length') : forwarded;
};
