/**
 * One exchange on an HTTP/2 stream: fields and body there, answer and trailers back, each with back-pressure, each ending when it
 * ends. Whether an answer is whole is what END_STREAM says, nothing else.
 */
import { type ClientHttp2Stream, constants, type IncomingHttpHeaders, sensitiveHeaders } from 'node:http2';
import { hostField } from '../../core/destination.ts';
import { asFault, Fault, type FaultCode } from '../../core/fault.ts';
import { isGrpc } from '../../core/grpc.ts';
import { fromRaw, type HeaderList, toRaw, tokenPattern } from '../../core/headers.ts';
import type { OutboundRequest } from '../outbound.ts';
import type { Patience } from './engine.ts';
import type { TargetSession } from './h2-session.ts';
import type { Reception } from './reception.ts';
import { announcedLength, type BodyReader, readerOf, writeBody } from './request-body.ts';

/** `again` is called when the target did not process the request and it can be sent once more; true when it will be. */
export const runStream = (
  target: TargetSession,
  request: OutboundRequest,
  reception: Reception,
  patience: Patience,
  again: () => boolean,
): void => {
  try {
    new StreamExchange(target, request, reception, patience).run(again);
  } catch (error) {
    reception.fail(asFault(error));
  }
};

type StatusFields = IncomingHttpHeaders & { readonly ':status'?: number };

class StreamExchange {
  readonly #target: TargetSession;
  readonly #request: OutboundRequest;
  readonly #reception: Reception;
  readonly #patience: Patience;
  readonly #stream: ClientHttp2Stream;
  readonly #body: BodyReader | undefined;
  #timer: NodeJS.Timeout | undefined;
  #trailers: HeaderList = [];
  #isWhole = false;
  #isWriting = false;
  #cause: unknown;

  constructor(target: TargetSession, request: OutboundRequest, reception: Reception, patience: Patience) {
    this.#target = target;
    this.#request = request;
    this.#reception = reception;
    this.#patience = patience;
    this.#body = request.body && readerOf(request.body.chunks);
    this.#stream = target.session.request(headOf(request), { endStream: !this.#body, waitForTrailers: Boolean(this.#body) });
  }

  run(again: () => boolean): void {
    const target = this.#target;
    const reception = this.#reception;
    const stream = this.#stream;
    const left = target.enter();
    this.#watchEnd();
    reception.onSettled(() => {
      clearTimeout(this.#timer);
      this.#body?.stop();
    });
    reception.onCancel(() => stream.close(constants.NGHTTP2_CANCEL));
    stream.on('error', (error) => {
      this.#cause = error;
    });
    stream.on('headers', (fields: StatusFields, _flags: number, raw: string[]) => {
      target.heard();
      this.#timer?.refresh();
      reception.informational(fields[':status'] ?? 0, regularFields(raw));
      if (fields[':status'] === 100) this.#startBody();
    });
    stream.on('response', (fields: StatusFields, _flags: number, raw: string[]) => this.#receive(fields[':status'] ?? 0, raw));
    stream.on('trailers', (_fields: IncomingHttpHeaders, _flags: number, raw: string[]) => {
      this.#trailers = regularFields(raw);
    });
    stream.once('close', () => {
      left();
      clearTimeout(this.#timer);
      if (reception.isSettled) return;
      const isFresh = !reception.hasHead && !this.#body?.hasStarted();
      if (isFresh && this.#isUnprocessed() && again()) return;
      reception.fail(this.#endFault());
    });
    if (!this.#body) this.#awaitTarget();
    else if (this.#request.expectsContinue) this.#timer = setTimeout(() => this.#startBody(), this.#patience.continueMs);
    else this.#startBody();
  }

  /**
   * A stream that was reset, even with NO_ERROR, and one whose connection was lost end for Node like one that was whole. Only the end
   * that arrives while the stream is still open is the target's END_STREAM.
   */
  #watchEnd(): void {
    const stream = this.#stream;
    const push = stream.push.bind(stream);
    stream.push = (chunk: unknown, encoding?: BufferEncoding): boolean => {
      if (chunk === null && !stream.closed) this.#isWhole = true;
      return push(chunk, encoding);
    };
  }

  #receive(status: number, raw: string[]): void {
    this.#target.heard();
    clearTimeout(this.#timer);
    const stream = this.#stream;
    const reception = this.#reception;
    reception.head(status, '', regularFields(raw));
    stream.on('data', (chunk: Buffer) => {
      this.#target.heard();
      if (reception.data(chunk)) return;
      stream.pause();
      reception.onDrain(() => stream.resume());
    });
    stream.on('end', () => {
      if (!this.#isWhole || reception.isSettled) return;
      // A target may answer before it has read everything (RFC 9113 section 8.1); the rest is nobody's.
      const isUnfinished = !stream.writableFinished;
      reception.end(this.#trailers);
      if (isUnfinished) stream.close(constants.NGHTTP2_CANCEL);
    });
  }

  #startBody(): void {
    if (this.#isWriting || this.#reception.isSettled || this.#reception.hasHead || !this.#body) return;
    this.#isWriting = true;
    clearTimeout(this.#timer);
    this.#writeBody(this.#body).catch((error: unknown) => this.#reception.fail(asFault(error)));
  }

  async #writeBody(body: BodyReader): Promise<void> {
    const stream = this.#stream;
    await writeBody(body, announcedLength(this.#request.headers), stream, {
      onFull: () => this.#awaitTarget(),
      onRoom: () => clearTimeout(this.#timer),
    });
    if (this.#reception.isSettled) return;
    stream.once('wantTrailers', () => stream.sendTrailers(asFields(this.#request.body?.trailers() ?? [])));
    stream.end();
    this.#awaitTarget();
  }

  /** Bounds how long the target stands still before it answers. A call says itself how long it may take (grpc-timeout). */
  #awaitTarget(): void {
    clearTimeout(this.#timer);
    if (this.#reception.hasHead || isGrpc(this.#request.headers)) return;
    this.#timer = setTimeout(() => this.#reception.fail(new Fault('target_timeout')), this.#patience.headersMs);
  }

  #isUnprocessed(): boolean {
    const { rstCode, id } = this.#stream;
    return rstCode === constants.NGHTTP2_REFUSED_STREAM || this.#target.isUnprocessed(id);
  }

  #endFault(): Fault {
    const options = { cause: this.#cause };
    if (this.#reception.hasHead) return new Fault('target_truncated', options);
    // What nghttp2 itself says is that the target broke the rules for the whole session.
    if ((this.#cause as { code?: string } | undefined)?.code === 'ERR_HTTP2_ERROR') return new Fault('target_malformed', options);
    const { rstCode } = this.#stream;
    const code = resetFaults[rstCode] ?? 'target_closed';
    return new Fault(
      code,
      rstCode === constants.NGHTTP2_ENHANCE_YOUR_CALM ? { detail: 'Its header block is too large.', ...options } : options,
    );
  }
}

/** What is not merely an end. ENHANCE_YOUR_CALM is also what node:http2 says when it refuses a header block of the target's. */
const resetFaults: Readonly<Record<number, FaultCode>> = {
  [constants.NGHTTP2_PROTOCOL_ERROR]: 'target_malformed',
  [constants.NGHTTP2_FLOW_CONTROL_ERROR]: 'target_malformed',
  [constants.NGHTTP2_FRAME_SIZE_ERROR]: 'target_malformed',
  [constants.NGHTTP2_COMPRESSION_ERROR]: 'target_malformed',
  [constants.NGHTTP2_ENHANCE_YOUR_CALM]: 'target_malformed',
  [constants.NGHTTP2_HTTP_1_1_REQUIRED]: 'target_protocol',
};

/** Fields of a connection, which HTTP/2 has no place for (RFC 9113 section 8.2.2), and those that are written otherwise. */
const notSent = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
  'host',
  'te',
  'expect',
]);

const headOf = ({ destination, method, path, headers, body, expectsContinue }: OutboundRequest): string[] => {
  const fields = lowerCased(headers).filter(([name]) => !notSent.has(name));
  const list = [
    ':method',
    method,
    ':scheme',
    destination.scheme,
    ':authority',
    hostField(destination),
    ':path',
    path,
    ...toRaw(fields),
    // gRPC servers insist on it, and we do pass trailers on (RFC 9110 section 10.1.4).
    'te',
    'trailers',
    ...(expectsContinue && body ? ['expect', '100-continue'] : []),
  ];
  return Object.assign(list, { [sensitiveHeaders]: ['authorization', 'cookie', 'proxy-authorization'] });
};

/** nghttp2 writes what it is given, so what is no field is refused here. */
const lowerCased = (headers: HeaderList): HeaderList =>
  headers.map(([name, value]) => {
    if (!tokenPattern.test(name) || /[\0\r\n]/.test(value)) throw new Fault('request_malformed');
    return [name.toLowerCase(), value];
  });

/** The shape that sendTrailers takes: values of one name together. */
const asFields = (trailers: HeaderList): Record<string, string[]> => {
  const fields = Object.create(null) as Record<string, string[]>;
  for (const [name, value] of lowerCased(trailers)) (fields[name] ??= []).push(value);
  return fields;
};

const regularFields = (raw: readonly string[]): HeaderList => fromRaw(raw).filter(([name]) => !name.startsWith(':'));
