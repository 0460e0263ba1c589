/**
 * The engine for ordinary HTTP/1.1: undici. It writes the request as it is given (order, case, duplicates, path), never follows a
 * redirect and never repeats. It can neither wait for 100, nor write trailers, nor change protocols: that is dedicated.ts. Owns undici
 * together with mishap.ts and net/fetch.ts; no type of undici leaves this folder.
 */
import { type Dispatcher, Pool } from 'undici';
import { type Destination, hostField, hostPort } from '../../core/destination.ts';
import type { Fault } from '../../core/fault.ts';
import { type HeaderList, toRaw } from '../../core/headers.ts';
import { limits } from '../../core/limits.ts';
import { type Elsewhere, type Engine, isRefusal, type Open, type Patience } from './engine.ts';
import { mishap } from './mishap.ts';
import type { Reception } from './reception.ts';
import { readerOf } from './request-body.ts';

export const createPooled = ({ scheme, host, port }: Destination, open: Open, patience: Patience): Engine => {
  const pool = new Pool(`${scheme}://${hostPort({ host, port })}`, {
    allowH2: false,
    pipelining: 1,
    connections: limits.targetConnectionsMax,
    maxHeaderSize: limits.headerBytesMax,
    headersTimeout: patience.headersMs,
    // A stream may be silent for as long as it likes: TCP's keepalive finds targets that are gone, and the program may leave.
    bodyTimeout: 0,
    keepAliveTimeout: patience.keepAliveMs,
    keepAliveMaxTimeout: patience.keepAliveMs,
    strictContentLength: true,
    connect: (_options, callback) => {
      open('http/1.1').then(
        (socket) => {
          socket.on('error', asBroken);
          callback(null, socket);
        },
        (error: Error) => callback(error, null),
      );
    },
  });
  return {
    send: (request, reception, elsewhere) => {
      const body = request.body && readerOf(request.body.chunks);
      if (body) reception.onSettled(body.stop);
      const handler = new ReceivingHandler(reception, elsewhere);
      reception.onCancel((reason) => handler.abort(reason));
      pool.dispatch(
        {
          method: request.method,
          path: request.path,
          headers: ['host', hostField(request.destination), ...toRaw(request.headers)],
          // undici accepts any async iterable; its types name only some.
          body: (body?.chunks ?? null) as Dispatcher.DispatchOptions['body'] & object,
        },
        handler,
      );
    },
    retire: () => pool.close(),
    destroy: () => pool.destroy(),
  };
};

/**
 * undici takes a reset for the end of an answer that is framed by the connection's end; nobody can tell it from a truncated one
 * (THREATS F-11). Listens before undici does.
 */
const asBroken = (error: NodeJS.ErrnoException): void => {
  if (error.code === 'ECONNRESET') error.code = 'ECONNABORTED';
};

class ReceivingHandler implements Dispatcher.DispatchHandler {
  readonly #reception: Reception;
  readonly #elsewhere: Elsewhere | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #abortReason: Fault | undefined;

  constructor(reception: Reception, elsewhere: Elsewhere | undefined) {
    this.#reception = reception;
    this.#elsewhere = elsewhere;
  }

  abort(reason: Fault): void {
    this.#abortReason = reason;
    this.#controller?.abort(reason);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#abortReason) controller.abort(this.#abortReason);
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, _headers: unknown, reason?: string): void {
    const headers = fromBuffers(controller.rawHeaders);
    if (status < 200) this.#reception.informational(status, headers);
    else this.#reception.head(status, reason ?? '', headers);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#reception.data(chunk)) return;
    controller.pause();
    this.#reception.onDrain(() => controller.resume());
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    this.#reception.end(fromBuffers(controller.rawTrailers));
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (isRefusal(error) && this.#elsewhere?.(error)) return;
    this.#reception.fail(mishap(error, this.#reception.hasHead));
  }
}

const fromBuffers = (raw: unknown): HeaderList => {
  const list: [string, string][] = [];
  const buffers = Array.isArray(raw) ? (raw as readonly Buffer[]) : [];
  for (let i = 0; i + 1 < buffers.length; i += 2) {
    list.push([(buffers[i] as Buffer).toString('latin1'), (buffers[i + 1] as Buffer).toString('latin1')]);
  }
  return list;
};
