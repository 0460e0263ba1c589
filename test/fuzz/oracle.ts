/**
 * What must hold of any exchange, whatever its ends sent (THREATS I2 to I4, I6, I11 and section 4.2): judges what a cell observed. What the
 * proxy may change of a header block is written down here once more, from the documents rather than from its code.
 */
import type { AccessEventDraft } from '../../src/core/access-event.ts';
import type { HeaderList } from '../../src/core/headers.ts';
import type { Accepted } from '../../src/proxy/exchange.ts';
import { answersIn, answersWanted, type Input, type Observed, type Turn } from './cell.ts';
import { type Field, parseResponses, type RequestMessage, type ResponseMessage, values } from './messages.ts';
import type { Seen } from './origin.ts';
import { streamsOf } from './streams.ts';

/** Requests that were intended and have not been seen by a target yet: bytes may come a little later than the end of an exchange. */
export type Late = Expected[];

export interface Expected {
  readonly turn: Turn;
  readonly intent: AccessEventDraft;
  seen: Seen | undefined;
}

const sameName = (name: string): string => name.toLowerCase().replaceAll('_', '-');
const ofConnections = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
];
const overriding = [
  'x-http-method-override',
  'x-http-method',
  'x-method-override',
  'x-original-url',
  'x-original-method',
  'x-rewrite-url',
  'x-forwarded-host',
  'x-forwarded-prefix',
  'x-forwarded-uri',
  'forwarded',
];
const rewritten = ['host', 'expect', 'authorization'];

/** The fields of a program that reach the target. */
const forwarded = (headers: HeaderList): Field[] => {
  const nominated = values(headers, 'connection').flatMap((value) => value.split(',').map((name) => name.trim().toLowerCase()));
  return headers.filter(
    ([name]) =>
      !ofConnections.includes(name.toLowerCase()) &&
      !nominated.includes(name.toLowerCase()) &&
      ![...overriding, ...rewritten].includes(sameName(name)),
  );
};

const hostOf = ({ destination }: AccessEventDraft): string => destination.replace(/:\d+$/, '');

const queryOf = ({ rawTarget }: Accepted): string => (rawTarget.includes('?') ? rawTarget.slice(rawTarget.indexOf('?')) : '');

/** Everything of a request but its body that must be at the target as it was judged. */
const keyOf = (host: string, method: string, target: string, fields: readonly Field[]): string =>
  JSON.stringify([host, method, target, fields.filter(([name]) => name.toLowerCase() !== 'content-length')]);

const expectedKey = ({ turn: { accepted }, intent }: Expected): string =>
  keyOf(hostOf(intent), intent.method, intent.path + queryOf(accepted), forwarded(accepted.headers));

const seenKey = ({ host, message }: Seen): string =>
  keyOf(
    host,
    message.method,
    message.target,
    message.headers.filter(
      ([name]) => !['host', 'connection', 'transfer-encoding', 'expect', 'upgrade', 'authorization'].includes(name.toLowerCase()),
    ),
  );

/** What is wrong with a request that a target saw, beside the one it must be. */
const problemsOfSeen = (seen: Seen, { turn }: Expected): string[] => {
  const { host, message } = seen;
  const { headers, trailers } = message;
  const problems: string[] = [];
  const must = (holds: boolean, what: string): void => {
    if (!holds) problems.push(`${what}: ${describe(message)}`);
  };
  const credential = `credential-for-${host.split('.')[0]}`;
  must(values(headers, 'host').join() === host, 'Host is not the destination');
  const authorizations = headers.filter(([name]) => sameName(name) === 'authorization').map(([, value]) => value);
  must(authorizations.join() === `Bearer ${credential}`, 'not exactly the one credential');
  must(`${message.target}${JSON.stringify([headers, trailers])}`.split('credential-for-').length === 2, 'a credential out of its place');
  const announced = values(turn.accepted.headers, 'content-length');
  const hasChunks = values(headers, 'transfer-encoding').length > 0;
  const lengths = values(headers, 'content-length');
  must(hasChunks !== lengths.length > 0 || message.body === '', 'a body without framing');
  must((lengths[0] ?? '0') === (announced[0] ?? '0') && lengths.length < 2, 'another length than was judged');
  must(
    message.isComplete
      ? message.body === turn.body || (announced.length > 0 && turn.body.startsWith(message.body))
      : turn.body.startsWith(message.body),
    `another body than the program's ${JSON.stringify(turn.body.slice(0, 200))}`,
  );
  must(!message.isComplete || message.framing !== 'chunked' || turn.isBodyWhole, 'a body that broke off was ended as if it were whole');
  const allowed = forwarded(turn.trailers).map((field) => field.join());
  must(
    trailers.every((field) => allowed.includes(field.join())),
    'trailers that the program did not send',
  );
  must(
    trailers.every(([name]) => !['content-length', 'transfer-encoding', 'host', 'authorization', 'cookie'].includes(sameName(name))),
    'a trailer that frames, routes or authenticates',
  );
  return problems;
};

const describe = ({ method, target, headers, body }: RequestMessage): string =>
  `${method} ${target} ${JSON.stringify(headers)} ${JSON.stringify(body.slice(0, 200))}`;

/**
 * Every request that was seen is one that was intended; `expected` are marked as they are found. What broke off fits more of them than what
 * is whole, and so comes after it.
 */
const judgeTargets = (seen: readonly Seen[], expected: readonly Expected[]): string[] =>
  seen
    .toSorted((a, b) => Number(b.message.isComplete) - Number(a.message.isComplete))
    .flatMap((one) => {
      const key = seenKey(one);
      const alike = expected.filter((candidate) => candidate.seen === undefined && expectedKey(candidate) === key);
      const faults = alike.map((candidate) => ({ candidate, problems: problemsOfSeen(one, candidate) }));
      const [best] = faults.toSorted((a, b) => a.problems.length - b.problems.length);
      if (!best) return [`${one.host} saw a request that nobody intended: ${describe(one.message)}`];
      best.candidate.seen = one;
      return best.problems;
    });

/** One intent for each attempt, one outcome for each intent, or one refusal. */
const judgeEvents = ({ turns, events, hanging }: Observed): string[] => {
  const problems = hanging.map((id) => `${id} has no end`);
  const known = new Set(turns.flatMap((turn) => ('accepted' in turn ? [turn.accepted.id] : [])));
  for (const { requestId, kind } of events)
    if (kind === 'intent' && !known.has(requestId)) problems.push(`an intent of nobody: ${requestId}`);
  for (const id of known) {
    const own = events.filter(({ requestId }) => requestId === id);
    if (own.some(({ outcome }) => outcome?.fault === 'internal')) problems.push(`${id} ended in a bug of the proxy`);
    const attempts = (wanted: string): string =>
      own
        .filter(({ kind }) => kind === wanted)
        .map(({ attempt }) => attempt)
        .toSorted((a, b) => a - b)
        .join();
    const others = own.filter(({ kind }) => kind !== 'intent' && kind !== 'outcome');
    if (attempts('intent') !== attempts('outcome'))
      problems.push(`intents ${attempts('intent')}, outcomes ${attempts('outcome')} of ${id}`);
    if (new Set(attempts('intent').split(',')).size !== attempts('intent').split(',').length)
      problems.push(`an attempt of ${id} was intended twice`);
    if (!hanging.includes(id) && (own.some(({ kind }) => kind === 'intent') ? others.length > 0 : others.length !== 1))
      problems.push(`${id} was recorded as ${own.map(({ kind }) => kind).join()}`);
  }
  return problems;
};

/** What the target's given answer is, if it is one. */
const soundAnswer = ({ answer }: Input, method: string): ResponseMessage | undefined => {
  if (!answer) return undefined;
  const { messages } = parseResponses(answer.bytes, [method], answer.after === 'fin');
  return messages[0];
};

/** The program sees one sound answer for each request, its own, or a broken connection. */
const judgeProgram = (input: Input, observed: Observed, expected: readonly Expected[]): string[] => {
  const { turns, events, text, ended } = observed;
  const { messages, problem } = answersIn(input, turns, text, ended === 'orderly');
  const problems: string[] = [];
  if (problem !== undefined) problems.push(`the program was sent what is no HTTP/1.1: ${problem}`);
  if (messages.length > turns.length) problems.push(`${messages.length} answers for ${turns.length} requests`);
  if (answersWanted(input) !== undefined && ended === 'quiet')
    problems.push(`sound requests, ${turns.length} taken, and no answer after ${JSON.stringify(text.slice(-200))}`);
  for (const [i, message] of messages.entries()) {
    const turn = turns[i];
    if (turn === undefined || !('accepted' in turn)) continue;
    const { id, method } = turn.accepted;
    const outcome = events.findLast(({ requestId, kind }) => requestId === id && kind !== 'intent')?.outcome;
    if (message.interim.length > 8) problems.push(`${message.interim.length} interim answers`);
    if (message.isComplete && outcome !== undefined && outcome.status !== message.status)
      problems.push(`${message.status} was recorded as ${outcome.status}`);
    if (
      message.isComplete &&
      message.status === outcome?.status &&
      /^(?:target_truncated|framing_invalid)$/.test(outcome.fault) &&
      // As long as it announced it is whole: what broke was behind it, or the connection.
      message.framing !== 'length' &&
      !isProblem(message)
    ) {
      problems.push(`an answer that ended in ${outcome.fault} looks whole`);
    }
    const given = i === 0 && observed.isAnswerGiven ? soundAnswer(input, method) : undefined;
    if (given && message.isComplete && outcome?.fault === '') {
      if (!given.isComplete) problems.push('half an answer looks whole');
      else if (given.status !== message.status || given.body !== message.body)
        problems.push(`another answer than the target's: ${JSON.stringify(message)}`);
      else if (JSON.stringify(ofAnswer(given)) !== JSON.stringify(ofAnswer(message)))
        problems.push(`other fields than the target's: ${JSON.stringify(ofAnswer(message))} instead of ${JSON.stringify(ofAnswer(given))}`);
    }
    const seen = expected.find((one) => one.turn === turn)?.seen;
    const isOrdinary = seen !== undefined && seen.serial >= 0 && !(input.answer && i === 0) && outcome?.fault === '';
    if (isOrdinary && message.isComplete && method !== 'HEAD' && message.body !== `seen:${seen.serial}`)
      problems.push(`the answer to another request: ${JSON.stringify(message.body)} instead of seen:${seen.serial}`);
  }
  return problems;
};

/** The same for streams: each answer is of a request of this program, and of one only. */
const judgeStreams = ({ seen, text, turns }: Observed): string[] => {
  const problems: string[] = [];
  const serials = new Set(seen.map(({ serial }) => `seen:${serial}`));
  const streams = [...streamsOf(text).values()].filter(({ heads }) => heads > 0);
  if (streams.length > turns.length) problems.push(`${streams.length} answers for ${turns.length} requests`);
  for (const { data, isEnded } of streams) {
    if (data === '' || data.startsWith('{"type":"urn:outrider:fault:')) continue;
    if (isEnded ? !serials.delete(data) : ![...serials].some((one) => one.startsWith(data)))
      problems.push(`an answer to nobody's request: ${JSON.stringify(data)}`);
  }
  return problems;
};

/** The fields of an answer that are neither the connection's nor its framing. */
const ofAnswer = ({ headers }: ResponseMessage): Field[] => {
  const nominated = values(headers, 'connection').flatMap((value) => value.split(',').map((name) => name.trim().toLowerCase()));
  return headers.filter(([name]) => ![...ofConnections, ...nominated, 'content-length', 'expect'].includes(name.toLowerCase()));
};

const isProblem = ({ headers }: ResponseMessage): boolean => values(headers, 'content-type').join() === 'application/problem+json';

/** Everything that is wrong; nothing in a sound proxy. `late` carries requests over to the next input. */
export const judge = (input: Input, observed: Observed, late: Late): string[] => {
  const { turns, events, seen, problems, text } = observed;
  const expected = events
    .filter(({ kind }) => kind === 'intent')
    .flatMap((intent): Expected[] => {
      const turn = turns.find((one): one is Turn => 'accepted' in one && one.accepted.id === intent.requestId);
      return turn ? [{ turn, intent, seen: undefined }] : [];
    });
  const pending = [...expected, ...late];
  const found = [...problems, ...judgeEvents(observed), ...judgeTargets(seen, pending)];
  const isH2 = input.way === 'h2' || input.way === 'h2tls';
  found.push(...(isH2 ? judgeStreams(observed) : judgeProgram(input, observed, expected)));
  if (/credential-for-/.test(text)) found.push('the program was shown a credential');
  for (const one of expected) {
    const outcome = events.find(
      ({ kind, requestId, attempt }) => kind === 'outcome' && requestId === one.intent.requestId && attempt === one.intent.attempt,
    )?.outcome;
    if (outcome?.fault === '' && !one.seen) found.push(`an exchange that ended well was never seen by ${hostOf(one.intent)}`);
  }
  late.splice(0, late.length, ...pending.filter((one) => one.seen === undefined).slice(0, 128));
  return found;
};
