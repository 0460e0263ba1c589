/**
 * Requests to targets over undici: the engine of the last hop. It sends exactly what it is given (field order, case,
 * duplicates and path included), never follows redirects, never retries, and keeps connections apart by destination and
 * trust. Owns undici together with net/fetch.ts; no type of undici leaves this file.
 */
import { createSecureContext, type SecureContext } from 'node:tls';
import { type Dispatcher, errors, Pool } from 'undici';
import { type Destination, hostField, hostPort } from '../core/destination.ts';
import { Fault } from '../core/fault.ts';
import { type HeaderList, toRaw } from '../core/headers.ts';
import { limits } from '../core/limits.ts';
import { dialTcp, type Resolver, startTls } from './dial.ts';
import type { DialPolicy } from './guard.ts';

export interface OutboundRequest {
  readonly destination: Destination;
  /** PEM to trust instead of the proxy's own store; '' for that. */
  readonly trustBundlePem: string;
  readonly dialPolicy: DialPolicy;
  readonly method: string;
  /** Path and query, written as they are. */
  readonly path: string;
  /** Without Host, Transfer-Encoding and hop-by-hop fields. Content-Length, when present, frames the body. */
  readonly headers: HeaderList;
  readonly body: AsyncIterable<Uint8Array> | undefined;
}

/** Where a response goes as it arrives. */
export interface ResponseReceiver {
  /** The final head, once. Throws a Fault to refuse it. */
  readonly head: (status: number, reason: string, headers: HeaderList) => void;
  /** Body bytes; false asks to pause until the function given to `onDrain` is called. */
  readonly data: (chunk: Uint8Array) => boolean;
  readonly onDrain: (resume: () => void) => void;
}

export interface Sending {
  /** Settles when the response is complete; rejects with a Fault. */
  readonly done: Promise<void>;
  /** Gives up: the connection to the target is closed, not reused. */
  readonly abort: (reason: Fault) => void;
}

export interface Outbound {
  readonly send: (request: OutboundRequest, receiver: ResponseReceiver) => Sending;
  readonly close: () => Promise<void>;
}

export interface OutboundOptions {
  readonly resolver: Resolver;
  /** The proxy's own trust store, PEM. Must not contain the interception authority. */
  readonly trustPems: readonly string[];
}

export const createOutbound = ({ resolver, trustPems }: OutboundOptions): Outbound => {
  const contexts = new Map<string, SecureContext>();
  const contextFor = (trustBundlePem: string): SecureContext => {
    let context = contexts.get(trustBundlePem);
    if (context === undefined) {
      context = createSecureContext({ ca: trustBundlePem === '' ? [...trustPems] : trustBundlePem, minVersion: 'TLSv1.2' });
      if (contexts.size >= limits.targetPoolsMax) contexts.delete(contexts.keys().next().value as string);
      contexts.set(trustBundlePem, context);
    }
    return context;
  };

  const pools = new Map<string, CountedPool>();
  const poolFor = ({ destination, trustBundlePem, dialPolicy }: OutboundRequest): CountedPool => {
    const { scheme, host, port } = destination;
    const key = [scheme, hostPort({ host, port }), dialPolicy.privateAllowed, dialPolicy.named.join(), trustBundlePem].join('\n');
    const known = pools.get(key);
    if (known) {
      // Most recently used last, so that the first key is the one to give up.
      pools.delete(key);
      pools.set(key, known);
      return known;
    }
    const pool = new Pool(`${scheme}://${hostPort({ host, port })}`, {
      allowH2: false,
      pipelining: 1,
      connections: limits.targetConnectionsMax,
      maxHeaderSize: limits.headerBytesMax,
      headersTimeout: limits.targetHeadersTimeoutMs,
      bodyTimeout: limits.bodyIdleTimeoutMs,
      keepAliveTimeout: limits.targetKeepAliveTimeoutMs,
      keepAliveMaxTimeout: limits.targetKeepAliveTimeoutMs,
      strictContentLength: true,
      connect: (_options, callback) => {
        open(destination, dialPolicy, trustBundlePem).then(
          (socket) => callback(null, socket),
          (error: Error) => callback(error, null),
        );
      },
    });
    if (pools.size >= limits.targetPoolsMax) {
      const [oldestKey, oldest] = pools.entries().next().value as [string, CountedPool];
      pools.delete(oldestKey);
      void oldest.pool.close();
    }
    const counted = { pool, underWay: 0 };
    pools.set(key, counted);
    return counted;
  };

  const open = async (destination: Destination, policy: DialPolicy, trustBundlePem: string) => {
    const socket = await dialTcp(await resolver.resolve(destination, policy));
    return destination.scheme === 'https' ? await startTls(socket, destination.host, contextFor(trustBundlePem)) : socket;
  };

  return {
    send: (request, receiver) => {
      const counted = poolFor(request);
      if (counted.underWay >= limits.targetConnectionsMax + limits.targetQueueMax) throw new Fault('overloaded');
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      counted.underWay += 1;
      let isSettled = false;
      const settled = (): void => {
        if (!isSettled) counted.underWay -= 1;
        isSettled = true;
      };
      const handler = new ReceivingHandler(
        receiver,
        () => {
          settled();
          resolve();
        },
        (fault) => {
          settled();
          reject(fault);
        },
      );
      counted.pool.dispatch(
        {
          method: request.method,
          path: request.path,
          headers: ['host', hostField(request.destination), ...toRaw(request.headers)],
          // undici accepts any async iterable; its types name only some.
          body: (request.body ?? null) as Dispatcher.DispatchOptions['body'] & object,
        },
        handler,
      );
      return { done: promise, abort: (reason) => handler.abort(reason) };
    },
    close: async () => {
      await Promise.all([...pools.values()].map(({ pool }) => pool.destroy()));
      pools.clear();
    },
  };
};

interface CountedPool {
  readonly pool: Pool;
  /** Requests sent or waiting: undici counts them too, but only for whoever asks it to add up all connections. */
  underWay: number;
}

class ReceivingHandler implements Dispatcher.DispatchHandler {
  readonly #receiver: ResponseReceiver;
  readonly #resolve: () => void;
  readonly #reject: (fault: Fault) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #abortReason: Fault | undefined;
  #informational = 0;
  #hasStarted = false;

  constructor(receiver: ResponseReceiver, resolve: () => void, reject: (fault: Fault) => void) {
    this.#receiver = receiver;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  abort(reason: Fault): void {
    this.#abortReason ??= reason;
    this.#reject(reason);
    this.#controller?.abort(reason);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#abortReason) controller.abort(this.#abortReason);
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, _headers: unknown, reason?: string): void {
    if (status < 200) {
      this.#informational += 1;
      if (this.#informational > limits.informationalResponsesMax)
        this.abort(new Fault('target_malformed', { detail: 'It sent too many interim answers.' }));
      return;
    }
    this.#hasStarted = true;
    try {
      this.#receiver.head(status, reason ?? '', fromBuffers(controller.rawHeaders as readonly Buffer[]));
    } catch (error) {
      this.abort(error instanceof Fault ? error : new Fault('internal', { cause: error }));
    }
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#receiver.data(chunk)) return;
    controller.pause();
    this.#receiver.onDrain(() => controller.resume());
  }

  onResponseEnd(): void {
    this.#resolve();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#reject(this.#abortReason ?? sendFault(error, this.#hasStarted));
  }
}

const fromBuffers = (raw: readonly Buffer[]): HeaderList => {
  const list: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) list.push([(raw[i] as Buffer).toString('latin1'), (raw[i + 1] as Buffer).toString('latin1')]);
  return list;
};

/** What undici says, as a Fault. Faults of our own connector and body come through unchanged. */
const sendFault = (error: unknown, hasStarted: boolean): Fault => {
  if (error instanceof Fault) return error;
  if (error instanceof Error && error.cause instanceof Fault) return error.cause;
  const options = { cause: error };
  if (error instanceof errors.HeadersTimeoutError) return new Fault('target_timeout', options);
  if (error instanceof errors.BodyTimeoutError) return new Fault('target_truncated', options);
  if (error instanceof errors.HeadersOverflowError)
    return new Fault('target_malformed', { detail: 'Its header block is too large.', ...options });
  if (error instanceof errors.RequestContentLengthMismatchError) return new Fault('framing_invalid', options);
  if (
    error instanceof errors.HTTPParserError ||
    error instanceof errors.ResponseContentLengthMismatchError ||
    (error instanceof errors.SocketError && error.message.startsWith('bad '))
  ) {
    return new Fault(hasStarted ? 'target_truncated' : 'target_malformed', options);
  }
  return new Fault(hasStarted ? 'target_truncated' : 'target_closed', options);
};
