/**
 * One whole exchange at a time: a program's bytes through the real request path to targets that record. Runs an input and says what was
 * seen at every end; what that must be is judged in oracle.ts.
 */
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import type { AccessEventDraft } from '../../src/core/access-event.ts';
import type { Fault } from '../../src/core/fault.ts';
import type { HeaderList } from '../../src/core/headers.ts';
import { ordinaryPatience } from '../../src/net/outbound/engine.ts';
import type { Accepted, BodySource } from '../../src/proxy/exchange.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { dial, type Path, startPath, target, tunnelTo } from '../support/path.ts';
import { echoHost, inputMark, otherHost, type Way } from './grammar.ts';
import { type Parsed, parseRequests, parseResponses, type ResponseMessage } from './messages.ts';
import { streamsOf, streamsOpened } from './streams.ts';
import { type Answer, type Origin, type Seen, startOrigin, writeCut } from './origin.ts';

export interface Input {
  readonly way: Way;
  /** latin1. */
  readonly bytes: string;
  readonly cuts: readonly number[];
  /** What the target answers the first request with; the others are answered soundly. */
  readonly answer?: Answer;
}

/** A request that was admitted, with what passed of its body. */
export interface Turn {
  readonly accepted: Accepted;
  body: string;
  isBodyWhole: boolean;
  trailers: HeaderList;
}

export interface Observed {
  readonly turns: readonly (Turn | Fault)[];
  readonly events: readonly AccessEventDraft[];
  readonly seen: readonly Seen[];
  /** What the targets could not read. */
  readonly problems: readonly string[];
  /** Whether the target was asked what the input has an answer for. */
  readonly isAnswerGiven: boolean;
  /** What the program was sent, latin1, and how that ended. */
  readonly text: string;
  readonly ended: 'orderly' | 'broken' | 'answered' | 'quiet';
  /** Requests that had no end within the bound. */
  readonly hanging: readonly string[];
}

export interface Cell {
  readonly run: (input: Input) => Promise<Observed>;
  readonly close: () => Promise<void>;
}

/** A program that hears nothing for so long, and sent nothing sound, leaves: the time limits of half requests have their own tests. */
const quietMs = 40;
/** Far beyond what any exchange here may take. */
const hangMs = 15_000;

const isTurn = (turn: Turn | Fault): turn is Turn => 'accepted' in turn;

/** Takes a place of its own in `parent`. */
export const startCell = async (parent: string): Promise<Cell> => {
  const dir = mkdtempSync(join(parent, 'cell-'));
  const authority = createTestAuthority();
  let touch = (): void => undefined;
  const origins: Origin[] = [];
  for (const host of [echoHost, otherHost]) origins.push(await startOrigin(host, authority.serverFor(host), () => touch()));
  const [echo] = origins as [Origin, Origin];
  let turns: (Turn | Fault)[] = [];
  let connections = 0;
  let inputs = 0;
  const path: Path = await startPath({
    dir,
    targets: [target('echo', { protocol: 'http1' }), target('other', { protocol: 'http1' })],
    pins: origins.flatMap(({ host, plainPort, tlsPort }) => [
      { host, port: 80, address: '127.0.0.1', addressPort: plainPort },
      { host, port: 443, address: '127.0.0.1', addressPort: tlsPort },
    ]),
    trustPem: authority.pem,
    routes: [{ listen: { host: '127.0.0.1', port: 0 }, to: { scheme: 'http', host: echoHost, port: 80 } }],
    patience: { ...ordinaryPatience, continueMs: 100 },
    onAccepted: (accepted) => {
      touch();
      const turn: Turn = { accepted, body: '', isBodyWhole: accepted.body === undefined, trailers: [] };
      turns.push(turn);
      return accepted.body ? { ...accepted, body: overheard(accepted.body, turn) } : accepted;
    },
    onRefused: (fault) => void turns.push(fault),
    onConnections: (_kind, delta) => {
      connections += delta;
    },
  });

  const open = async (way: Way): Promise<Socket> => {
    if (way === 'absolute') return dial(path.port);
    if (way === 'reverse') return dial(path.routes[0] as number);
    const { socket, refusal } = await tunnelTo(path.port, way === 'tls' || way === 'h2tls' ? `${echoHost}:443` : `${echoHost}:80`);
    if (refusal !== undefined) throw new Error(refusal);
    if (way === 'plain' || way === 'h2') return socket;
    const secured = connectTls({ socket, ca: path.bundle, servername: echoHost, ALPNProtocols: [way === 'h2tls' ? 'h2' : 'http/1.1'] });
    const begun = performance.now();
    await once(secured, 'secureConnect').catch((cause: unknown) => {
      const refused = turns.flatMap((turn) => (isTurn(turn) ? [] : [`${turn.code} ${turn.detail}`]));
      const elapsed = Math.round(performance.now() - begun);
      throw new Error(`no TLS with the proxy after ${elapsed} ms; refused: ${refused.join() || 'nothing'}`, { cause });
    });
    return secured;
  };

  /** Resolves with how the conversation ended: the proxy ended it, all answers are there, or nothing came any more. */
  const converse = (socket: Socket, input: Input): Promise<Pick<Observed, 'text' | 'ended'>> =>
    new Promise((resolve) => {
      let text = '';
      const wanted = answersWanted(input);
      const opened = input.way === 'h2' || input.way === 'h2tls' ? streamsOpened(input.bytes) : undefined;
      const timer = setTimeout(() => finish('quiet'), wanted === undefined ? quietMs : hangMs);
      touch = () => void timer.refresh();
      const finish = (ended: Observed['ended']): void => {
        clearTimeout(timer);
        touch = () => undefined;
        socket.removeAllListeners('data');
        socket.on('data', () => undefined);
        socket.destroy();
        resolve({ text, ended });
      };
      socket.on('data', (chunk: Buffer) => {
        touch();
        text += chunk.toString('latin1');
        if (opened !== undefined && [...streamsOf(text).values()].filter((one) => one.isEnded || one.isReset).length >= opened)
          return finish('answered');
        if (wanted === undefined) return;
        const whole = answersIn(input, turns, text, false).messages.filter(({ isComplete }) => isComplete);
        if (whole.length >= wanted) finish('answered');
      });
      socket.once('end', () => finish('orderly'));
      socket.on('error', () => finish('broken'));
      socket.once('close', () => finish('broken'));
      void writeCut(socket, input.bytes, input.cuts);
    });

  const withoutEnd = (from: number): string[] => {
    const ended = new Set(path.events.slice(from).flatMap(({ kind, requestId }) => (kind === 'intent' ? [] : [requestId])));
    return turns.filter(isTurn).flatMap(({ accepted: { id } }) => (ended.has(id) ? [] : [id]));
  };

  return {
    run: async (written) => {
      const number = String((inputs += 1)).padStart(inputMark.length, '0');
      const input = { ...written, bytes: written.bytes.replaceAll(inputMark, number) };
      turns = [];
      const from = path.events.length;
      echo.answerNext(input.answer && { ...input.answer, to: number });
      const said = await converse(await open(input.way), input);
      const until = performance.now() + hangMs;
      // What the connection still does when its program has left belongs to this input.
      while ((connections > 0 || withoutEnd(from).length > 0) && performance.now() < until)
        await new Promise((resolve) => setTimeout(resolve, 1));
      const isAnswerGiven = input.answer !== undefined && !echo.isAnswerPending();
      echo.answerNext(undefined);
      const heard = origins.map(({ take }) => take());
      return {
        ...said,
        turns,
        events: path.events.slice(from),
        seen: heard.flatMap(({ seen }) => seen),
        problems: heard.flatMap(({ problems }) => problems),
        isAnswerGiven,
        hanging: [...withoutEnd(from), ...(connections > 0 ? ['the connection of a program that has left'] : [])],
      };
    },
    close: async () => {
      await path.close();
      await Promise.all(origins.map(({ close }) => close()));
    },
  };
};

/** How many answers a program waits for that has sent sound requests; undefined when what it sent may end anywhere. */
export const answersWanted = ({ way, bytes, answer }: Input): number | undefined => {
  if (answer !== undefined || way === 'h2' || way === 'h2tls') return undefined;
  const { messages, problem, rest } = parseRequests(bytes);
  const isSound = problem === undefined && rest === '' && messages.length > 0 && messages.every(({ isComplete }) => isComplete);
  return isSound ? messages.length : undefined;
};

/**
 * The answers as a program reads them. Of a request that was refused only its bytes tell the method, when all of them are sound; and what was
 * refused before its method was known is answered with a body even to HEAD, and the connection ends there.
 */
export const answersIn = (input: Input, turns: readonly (Turn | Fault)[], text: string, isClosed: boolean): Parsed<ResponseMessage> => {
  const requests = answersWanted(input) === undefined ? [] : parseRequests(input.bytes).messages;
  const read = (methodOfRefused: (i: number) => string): Parsed<ResponseMessage> =>
    parseResponses(
      text,
      turns.map((turn, i) => (isTurn(turn) ? turn.accepted.method : methodOfRefused(i))),
      isClosed,
    );
  const known = read((i) => requests[i]?.method ?? '');
  return known.problem === undefined ? known : read(() => '');
};

/** The same body, and what passes of it. */
const overheard = (body: BodySource, turn: Turn): BodySource => ({
  bytes: () => body.bytes(),
  trailers: () => {
    turn.trailers = body.trailers();
    return turn.trailers;
  },
  ...(body.held ? { held: body.held } : {}),
  ...(body.release ? { release: body.release } : {}),
  chunks: {
    [Symbol.asyncIterator]: () => {
      const from = body.chunks[Symbol.asyncIterator]();
      return {
        next: async () => {
          const result = await from.next();
          if (result.done) turn.isBodyWhole = true;
          else turn.body += Buffer.from(result.value).toString('latin1');
          return result;
        },
        return: async () => (await from.return?.()) ?? { done: true, value: undefined },
      };
    },
  },
});
