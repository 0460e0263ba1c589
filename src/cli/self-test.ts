/**
 * `outrider self-test`: run as the program of an injected pod. Sends one request as any program would, by what its environment says; then,
 * with an identity of its own from the pod's token, asks the collector for what was recorded of exactly this request. Proves in one go that
 * injection, attestation, policy, the target and the evidence work; says which of them does not.
 */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { asFault, type Fault } from '../core/fault.ts';
import { limits } from '../core/limits.ts';
import { systemClock } from '../ops/clock.ts';
import { createLog } from '../ops/log.ts';
import { findEvents, type Peer } from '../rpc/client.ts';
import type { Svid } from '../rpc/svid.ts';
import { startSvidSource } from '../rpc/svid-source.ts';
import { type Answer, sendRequest } from './self-test/request.ts';
import { type Command, readOptions, type Terminal, UsageError } from './terminal.ts';

const flags = ['url', 'target', 'broker', 'broker-id', 'broker-ca', 'token-file', 'collector', 'collector-id'] as const;
type Flags = Readonly<Record<(typeof flags)[number], string>>;

interface Request extends Flags {
  readonly timeoutMs: number;
}

const requestIn = (args: readonly string[]): Request => {
  const shapes = Object.fromEntries([...flags, 'timeout'].map((name) => [name, { type: 'string' as const }]));
  const values = readOptions(args, shapes).values as Partial<Record<string, string>>;
  const missing = flags.filter((name) => values[name] === undefined);
  if (missing.length > 0) throw new UsageError(`self-test needs --${missing.join(', --')}`);
  const { timeout = '60', ...rest } = values;
  if (!/^[1-9][0-9]{0,2}$/.test(timeout)) throw new UsageError('--timeout takes a whole number of seconds, such as 60');
  if (!URL.canParse(rest['url'] as string)) throw new UsageError('--url is not a URL, write for example https://api.example.com/');
  return { ...(rest as Flags), timeoutMs: Number(timeout) * 1_000 };
};

/** Not proven: the sentence says which part is to be looked at. */
class Unproven extends Error {}

const unproven = (what: string, fault: Fault, lookAt: string): Unproven =>
  new Unproven(`${what}: ${fault.code}${fault.detail === undefined ? '' : ` (${fault.detail})`}. ${lookAt}`);

/** An identity of this container's own: the proxy does not lend its. */
const identify = async (request: Request, signal: AbortSignal): Promise<Svid> => {
  const source = startSvidSource({
    settings: { broker: brokerOf(request), brokerCaFile: request['broker-ca'], tokenFile: request['token-file'] },
    clock: systemClock,
    log: createLog({ role: 'self-test', level: 'silent' }),
  });
  const { promise: late, reject } = Promise.withResolvers<never>();
  const giveUp = (): void => {
    const fault = source.fault();
    const where = 'Look at the log of the broker.';
    reject(fault ? unproven('the broker gave no identity', fault, where) : new Unproven(`the broker did not answer in time. ${where}`));
  };
  signal.addEventListener('abort', giveUp, { once: true });
  try {
    return await Promise.race([source.ready(), late]);
  } finally {
    signal.removeEventListener('abort', giveUp);
    source.close();
  }
};

const brokerOf = ({ broker: address, 'broker-id': spiffeId }: Request): Peer => ({ address, spiffeId });
const collectorOf = ({ collector: address, 'collector-id': spiffeId }: Request): Peer => ({ address, spiffeId });

type Event = Readonly<Record<string, unknown>>;

/** The intent and the outcome of the request with this trace id, as soon as the collector has both. */
const findEvidence = async (request: Request, svid: Svid, traceId: string, signal: AbortSignal): Promise<readonly Event[]> => {
  let fault: Fault | undefined;
  while (!signal.aborted) {
    try {
      const query = { target: request.target, traceId, limit: 0 };
      const { events } = await findEvents({ collector: collectorOf(request), svid, query });
      const found = events.map((text) => JSON.parse(text) as Event);
      if (['intent', 'outcome'].every((kind) => found.some((event) => event['kind'] === kind))) return found;
      fault = undefined;
    } catch (error) {
      fault = asFault(error);
    }
    await pause(limits.selfTestPauseMs, undefined, { signal }).catch(() => {});
  }
  if (fault !== undefined) throw unproven('the collector could not be asked', fault, 'Look at its log, and whether it is ready.');
  throw new Unproven(
    'the request was answered, but the collector has no intent and outcome of it. Either it went around the proxy (NO_PROXY, or a pod without one), or events do not arrive: look at outrider_proxy_events_queued of the pod and at the log of the collector.',
  );
};

const checkAnswer = ({ status, problem }: Answer, url: string): void => {
  if (status >= 200 && status < 300) return;
  const why = problem === undefined ? '' : `, ${problem}`;
  throw new Unproven(`${url} was answered ${status}${why}. Look at the log of the proxy, container outrider-proxy of this pod.`);
};

const prove = async (request: Request, signal: AbortSignal, terminal: Terminal): Promise<void> => {
  const traceId = randomBytes(16).toString('hex');
  const answer = await sendRequest(request.url, { traceId, signal }).catch((error: unknown) => {
    throw new Unproven(
      `${request.url} could not be asked: ${(error as Error).message}. Look whether this pod has a proxy, and at its log.`,
    );
  });
  terminal.print(`answered: ${request.url} ${answer.status}`);
  checkAnswer(answer, request.url);
  // Before an identity is asked for, so that a missing file is not a matter of waiting.
  await Promise.all([readFile(request['broker-ca']), readFile(request['token-file'])]);
  const svid = await identify(request, signal);
  terminal.print(`identified: ${svid.spiffeId}`);
  const events = await findEvidence(request, svid, traceId, signal);
  for (const event of events) terminal.print(JSON.stringify(event));
  const last = events.at(-1) as Event;
  const { policy, rule } = (last['decision'] ?? {}) as Event;
  terminal.print(
    `proven: ${svid.spiffeId} was allowed by rule ${String(rule)} of policy ${String(policy)} under grant ${String(last['grantId'])}, and the collector has the evidence`,
  );
};

export const runSelfTest: Command = async (args, terminal) => {
  const request = requestIn(args);
  const deadline = new AbortController();
  // Unlike the clocks of roles it keeps the process alive: while it waits there may be nothing else.
  const timer = setTimeout(() => deadline.abort(), request.timeoutMs);
  try {
    await Promise.race([
      prove(request, deadline.signal, terminal),
      terminal.stopRequested.then(() => Promise.reject(new Unproven('stopped'))),
    ]);
    return 0;
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException;
    if (!(error instanceof Unproven) && (code === undefined || syscall === undefined)) throw error;
    terminal.complain(`self-test: ${(error as Error).message}`);
    return 1;
  } finally {
    clearTimeout(timer);
  }
};
