/**
 * A target that keeps every byte it is sent, reads it strictly, and answers each request with a number of its own, or, once, with bytes
 * that it is told to. Judges nothing but that what it reads is HTTP/1.1.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { createServer as createTlsServer, TLSSocket } from 'node:tls';
import type { ServerFiles } from '../support/certificates.ts';
import { parseRequests, type RequestMessage, values } from './messages.ts';

export interface Answer {
  /** latin1. */
  readonly bytes: string;
  readonly cuts: readonly number[];
  readonly after: 'keep' | 'fin' | 'rst';
}

export interface Seen {
  readonly host: string;
  readonly message: RequestMessage;
  /** What it was answered with: `seen:<serial>`, unless the answer was a given one. */
  readonly serial: number;
}

export interface Origin {
  readonly host: string;
  readonly plainPort: number;
  readonly tlsPort: number;
  /** What was read since the last call, requests that broke off included; problems are what is no HTTP/1.1. */
  readonly take: () => { readonly seen: readonly Seen[]; readonly problems: readonly string[] };
  /** The next request whose X-Input is `to` gets this instead. */
  readonly answerNext: (answer: (Answer & { readonly to: string }) | undefined) => void;
  /** Whether that request has not come yet. */
  readonly isAnswerPending: () => boolean;
  readonly close: () => Promise<void>;
}

export const writeCut = async (socket: Socket, bytes: string, cuts: readonly number[]): Promise<void> => {
  // What is no latin1 would go out as another byte than the oracle reads.
  if (/[^\u0000-\u00ff]/.test(bytes)) throw new Error(`no bytes: ${JSON.stringify(bytes)}`);
  let at = 0;
  for (const cut of cuts) {
    if (!socket.writable) return;
    socket.write(bytes.slice(at, at + cut), 'latin1');
    at += cut;
    await new Promise(setImmediate);
  }
  if (at < bytes.length && socket.writable) socket.write(bytes.slice(at), 'latin1');
};

export const startOrigin = async (host: string, files: ServerFiles, onActivity: () => void): Promise<Origin> => {
  let seen: Seen[] = [];
  let problems: string[] = [];
  let serial = 0;
  let given: (Answer & { readonly to: string }) | undefined;
  const sockets = new Set<Socket>();

  const answerOne = async (socket: Socket, { method, headers }: RequestMessage, number: number): Promise<void> => {
    const body = `seen:${number}`;
    if (!given || values(headers, 'x-input').join() !== given.to)
      return void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${method === 'HEAD' ? '' : body}`);
    const { bytes, cuts, after } = given;
    given = undefined;
    await writeCut(socket, bytes, cuts);
    if (after === 'fin') socket.end();
    if (after !== 'rst') return;
    if (socket instanceof TLSSocket) socket.destroy();
    else socket.resetAndDestroy();
  };

  const serve = (socket: Socket): void => {
    sockets.add(socket);
    let text = '';
    let hasContinued = false;
    /** Answers are given one after another, as the requests came. */
    let turn = Promise.resolve();
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      onActivity();
      text += chunk.toString('latin1');
      const { messages, problem, rest } = parseRequests(text);
      if (problem !== undefined) {
        problems.push(`${host} was sent what is no HTTP/1.1: ${problem} in ${JSON.stringify(rest.slice(0, 500))}`);
        return void socket.destroy();
      }
      let end = 0;
      for (const message of messages) {
        if (!message.isComplete) {
          if (!hasContinued && values(message.headers, 'expect').length > 0) socket.write('HTTP/1.1 100 Continue\r\n\r\n');
          hasContinued = true;
          break;
        }
        end = message.end;
        hasContinued = false;
        const number = serial++;
        seen.push({ host, message, serial: number });
        turn = turn.then(() => answerOne(socket, message, number));
      }
      text = text.slice(end);
    });
    socket.once('close', () => {
      sockets.delete(socket);
      const [broken] = parseRequests(text).messages;
      if (broken) seen.push({ host, message: broken, serial: -1 });
    });
  };

  const plain = createServer({ noDelay: true }, serve);
  const secure = createTlsServer({ ...files, ALPNProtocols: ['http/1.1'] }, serve);
  const ports: number[] = [];
  for (const server of [plain, secure]) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    ports.push((server.address() as AddressInfo).port);
  }
  return {
    host,
    plainPort: ports[0] as number,
    tlsPort: ports[1] as number,
    take: () => {
      const taken = { seen, problems };
      [seen, problems] = [[], []];
      return taken;
    },
    answerNext: (answer) => {
      given = answer;
    },
    isAnswerPending: () => given !== undefined,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await Promise.all([plain, secure].map((server) => new Promise((resolve) => server.close(resolve))));
    },
  };
};
