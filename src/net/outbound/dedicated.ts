/**
 * The engine for HTTP/1.1 exchanges that undici cannot carry: `Expect: 100-continue`, chunked request bodies (they may have trailers)
 * and upgrades. node:http over our own connections; one request at a time on each.
 */
import { Agent, type AgentOptions, type ClientRequest, type IncomingMessage, request as startRequest } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { hostField } from '../../core/destination.ts';
import { asFault, Fault } from '../../core/fault.ts';
import { fromRaw, toRaw } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import type { OutboundRequest } from '../outbound.ts';
import { type Elsewhere, type Engine, isRefusal, type Open, type Patience } from './engine.ts';
import { mishap } from './mishap.ts';
import type { Reception } from './reception.ts';
import { announcedLength, type BodyReader, readerOf, writeBody } from './request-body.ts';
import { switchProblem } from './switch.ts';

const noBytes = Buffer.alloc(0);

export const createDedicated = (open: Open, patience: Patience): Engine => {
  const sockets = new Set<Socket>();
  let dialling = 0;
  let isRetired = false;
  let isDestroyed = false;
  let onEmpty: () => void = () => undefined;
  const emptied = (): void => {
    if (sockets.size === 0 && dialling === 0) onEmpty();
  };
  const closed = (): Promise<void> =>
    new Promise((resolve) => {
      onEmpty = resolve;
      emptied();
    });
  const opening = async (): Promise<Socket> => {
    if (isDestroyed) throw new Fault('target_closed');
    dialling += 1;
    try {
      const socket = await open('http/1.1');
      sockets.add(socket);
      socket.once('close', () => {
        sockets.delete(socket);
        emptied();
      });
      if (!isDestroyed) return socket;
      socket.on('error', () => undefined);
      socket.destroy();
      throw new Fault('target_closed');
    } finally {
      dialling -= 1;
      emptied();
    }
  };
  const agents = {
    kept: new OwnAgent(opening, { keepAlive: true, maxFreeSockets: limits.targetSpareConnectionsMax, timeout: patience.keepAliveMs }),
    // An upgrade takes its connection with it, and one that was idle might be closing.
    single: new OwnAgent(opening, { keepAlive: false }),
  };
  /** Connections that have changed their protocol and are still open. */
  let switched = 0;
  return {
    send: (request, reception, elsewhere) => {
      if (request.upgrade !== undefined && switched >= limits.targetConnectionsMax)
        throw new Fault('overloaded', { detail: 'Too many connections of this target are upgraded.' });
      const agent = request.upgrade === undefined && !isRetired ? agents.kept : agents.single;
      new Exchange(request, reception, agent, patience).run(elsewhere, (socket) => {
        switched += 1;
        socket.once('close', () => {
          switched -= 1;
        });
      });
    },
    retire: () => {
      isRetired = true;
      agents.kept.retire();
      return closed();
    },
    destroy: () => {
      isRetired = true;
      isDestroyed = true;
      agents.kept.retire();
      for (const socket of sockets) socket.destroy();
      return closed();
    },
  };
};

/** Connections come from us; node:http only keeps them. */
class OwnAgent extends Agent {
  readonly #open: () => Promise<Socket>;
  #isRetired = false;

  constructor(open: () => Promise<Socket>, options: AgentOptions) {
    super({ maxSockets: limits.targetConnectionsMax, keepAliveMsecs: limits.targetProbeDelayMs, ...options });
    this.#open = open;
  }

  override createConnection(_options: unknown, callback?: (error: Error | null, socket: Duplex) => void): undefined {
    this.#open().then(
      (socket) => callback?.(null, socket),
      (error: Error) => callback?.(error, undefined as never),
    );
  }

  override keepSocketAlive(socket: Duplex): boolean {
    return !this.#isRetired && (super.keepSocketAlive(socket) as unknown as boolean);
  }

  retire(): void {
    this.#isRetired = true;
    for (const free of Object.values(this.freeSockets)) for (const socket of free ?? []) socket.destroy();
  }
}

class Exchange {
  readonly #request: OutboundRequest;
  readonly #reception: Reception;
  readonly #outgoing: ClientRequest;
  readonly #body: BodyReader | undefined;
  readonly #patience: Patience;
  /** Fires when the target stands still; stopped while it is the program's turn. */
  #timer: NodeJS.Timeout | undefined;
  #isWriting = false;

  constructor(request: OutboundRequest, reception: Reception, agent: Agent, patience: Patience) {
    this.#request = request;
    this.#reception = reception;
    this.#patience = patience;
    this.#body = request.body && readerOf(request.body.chunks);
    this.#outgoing = startRequest({
      agent,
      method: request.method,
      path: request.path,
      headers: headOf(request),
      setDefaultHeaders: false,
      maxHeaderSize: limits.headerBytesMax,
    });
    // One more than are passed on, so that what is too much is seen rather than cut off silently.
    this.#outgoing.maxHeadersCount = limits.headerCountMax + 1;
  }

  run(elsewhere: Elsewhere | undefined, onSwitch: (socket: Socket) => void): void {
    const reception = this.#reception;
    const outgoing = this.#outgoing;
    reception.onSettled(() => {
      clearTimeout(this.#timer);
      this.#body?.stop();
    });
    reception.onCancel(() => outgoing.destroy());
    outgoing.on('error', (error) => {
      if (isRefusal(error) && elsewhere?.(error)) return clearTimeout(this.#timer);
      reception.fail(mishap(error, reception.hasHead));
    });
    outgoing.on('information', ({ statusCode, rawHeaders }) => {
      this.#timer?.refresh();
      reception.informational(statusCode, fromRaw(rawHeaders));
      if (statusCode === 100) this.#startBody();
    });
    outgoing.on('response', (response) => this.#receive(response));
    outgoing.on('upgrade', (response, socket, head) => this.#switch(response, socket, head, onSwitch));
    if (!this.#body) {
      outgoing.end();
      this.#awaitTarget();
    } else {
      // Not before there is a connection: without one the body may still go elsewhere.
      outgoing.once('socket', () => {
        // Not flushHeaders(): it writes the head as UTF-8, and a field's bytes above ASCII would not be those that were judged.
        outgoing.write(noBytes);
        if (asksFirst(this.#request)) this.#timer = setTimeout(() => this.#startBody(), this.#patience.continueMs);
        else this.#startBody();
      });
    }
  }

  #startBody(): void {
    if (this.#isWriting || this.#reception.isSettled || this.#reception.hasHead || !this.#body) return;
    this.#isWriting = true;
    clearTimeout(this.#timer);
    this.#writeBody(this.#body).catch((error: unknown) => this.#reception.fail(asFault(error)));
  }

  async #writeBody(body: BodyReader): Promise<void> {
    const outgoing = this.#outgoing;
    await writeBody(body, announcedLength(this.#request.headers), outgoing, {
      onFull: () => this.#awaitTarget(),
      onRoom: () => clearTimeout(this.#timer),
    });
    if (this.#reception.isSettled) return;
    const trailers = this.#request.body?.trailers() ?? [];
    if (trailers.length > 0 && announcedLength(this.#request.headers) === undefined) {
      outgoing.addTrailers(trailers as [string, string][]);
    }
    outgoing.end();
    if (!this.#reception.hasHead) this.#awaitTarget();
  }

  #awaitTarget(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#reception.fail(new Fault('target_timeout')), this.#patience.headersMs);
  }

  #receive(response: IncomingMessage): void {
    clearTimeout(this.#timer);
    const reception = this.#reception;
    const outgoing = this.#outgoing;
    reception.head(response.statusCode ?? 0, response.statusMessage ?? '', fromRaw(response.rawHeaders));
    response.on('data', (chunk: Buffer) => {
      if (reception.data(chunk)) return;
      response.pause();
      reception.onDrain(() => response.resume());
    });
    response.on('error', (error) => reception.fail(mishap(error, true)));
    response.on('end', () => {
      if (!response.complete) return reception.fail(new Fault('target_truncated'));
      // What the target has not been sent it must never take for the beginning of another request.
      const isUnfinished = !outgoing.writableFinished;
      reception.end(fromRaw(response.rawTrailers));
      if (isUnfinished) outgoing.destroy();
    });
  }

  #switch(response: IncomingMessage, socket: Socket, head: Buffer, onSwitch: (socket: Socket) => void): void {
    const { upgrade, headers } = this.#request;
    const answer = fromRaw(response.rawHeaders);
    const problem = upgrade === undefined ? 'It changed the protocol unasked.' : switchProblem(upgrade, headers, answer);
    // node:http takes its listeners away; an error without one would end the process.
    socket.on('error', () => undefined);
    if (problem !== undefined || this.#reception.isSettled) {
      socket.destroy();
      return this.#reception.malformed(problem ?? '');
    }
    onSwitch(socket);
    if (head.length > 0) socket.unshift(head);
    this.#reception.upgraded(answer, socket);
  }
}

/**
 * Whether the target is to say when it wants the body. node:http writes a head with Expect as UTF-8; a field with bytes above ASCII must
 * arrive as it was judged, so then the body goes along.
 */
const asksFirst = ({ expectsContinue, headers }: OutboundRequest): boolean =>
  expectsContinue && headers.every(([, value]) => /^[\t\x20-\x7e]*$/.test(value));

/** The head as it is written: framing is always explicit (THREATS F-2). */
const headOf = (request: OutboundRequest): string[] => {
  const { destination, method, headers, body, upgrade } = request;
  const framing: string[] = [];
  if (announcedLength(headers) === undefined) {
    if (body) framing.push('Transfer-Encoding', 'chunked');
    else if (!['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE'].includes(method)) framing.push('Content-Length', '0');
  }
  return [
    'Host',
    hostField(destination),
    ...toRaw(headers),
    ...framing,
    ...(asksFirst(request) && body ? ['Expect', '100-continue'] : []),
    ...(upgrade === undefined ? ['Connection', 'keep-alive'] : ['Connection', 'Upgrade', 'Upgrade', upgrade]),
  ];
};
