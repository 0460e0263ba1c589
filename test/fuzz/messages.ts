/**
 * HTTP/1.1 messages read strictly, letter by letter as RFC 9112 has them and in nobody's library: what the proxy writes to a target and to
 * a program must read like this. Stands beside the oracle; knows nothing of the proxy.
 */
export type Field = readonly [name: string, value: string];

interface Message {
  readonly headers: readonly Field[];
  readonly trailers: readonly Field[];
  /** latin1; what is there of it when it is not complete. */
  readonly body: string;
  readonly isComplete: boolean;
  readonly framing: 'none' | 'length' | 'chunked' | 'close';
  /** Where it ends in the text that was read. */
  readonly end: number;
}

export interface RequestMessage extends Message {
  readonly method: string;
  readonly target: string;
}

export interface ResponseMessage extends Message {
  readonly status: number;
  /** Status codes of the interim answers before it. */
  readonly interim: readonly number[];
}

export interface Parsed<M> {
  readonly messages: readonly M[];
  /** Why what follows the last message is none; undefined when everything was read. */
  readonly problem: string | undefined;
  /** What has begun and is not a whole head. */
  readonly rest: string;
}

const token = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+";
const fieldLine = new RegExp(`^(${token}):[ \\t]*([\\t\\x20-\\x7e\\x80-\\xff]*?)[ \\t]*$`);
const requestLine = new RegExp(`^(${token}) ([\\x21-\\x7e\\x80-\\xff]+) HTTP/1\\.1$`);
const statusLine = /^HTTP\/1\.1 ([1-9]\d\d) [\t\x20-\x7e\x80-\xff]*$/;

class Malformed extends Error {}

/** Bytes as they come; asks for what is not there by throwing `undefined`'s stand-in. */
class Incomplete extends Error {}

class Reader {
  readonly #text: string;
  at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  get isAtEnd(): boolean {
    return this.at >= this.#text.length;
  }

  get rest(): string {
    return this.#text.slice(this.at);
  }

  /** A line without its CR LF. Throws Malformed for a lone CR or LF in it. */
  line(): string {
    const end = this.#text.indexOf('\r\n', this.at);
    const line = end < 0 ? this.rest : this.#text.slice(this.at, end);
    if (/[\r\n]/.test(end < 0 ? line.replace(/\r$/, '') : line)) throw new Malformed(`a lone CR or LF in ${JSON.stringify(line)}`);
    if (end < 0) throw new Incomplete();
    this.at = end + 2;
    return line;
  }

  take(length: number): string {
    const taken = this.#text.slice(this.at, this.at + length);
    this.at += taken.length;
    return taken;
  }
}

const readFields = (reader: Reader): Field[] => {
  const fields: Field[] = [];
  for (let line = reader.line(); line !== ''; line = reader.line()) {
    const match = fieldLine.exec(line);
    if (!match) throw new Malformed(`no field: ${JSON.stringify(line)}`);
    fields.push([match[1] as string, match[2] as string]);
  }
  return fields;
};

export const values = (fields: readonly Field[], name: string): string[] =>
  fields.filter(([field]) => field.toLowerCase() === name).map(([, value]) => value);

const framingOf = (fields: readonly Field[]): { chunked: boolean; length: number | undefined } => {
  const codings = values(fields, 'transfer-encoding');
  const lengths = values(fields, 'content-length');
  if (codings.length + lengths.length > 1) throw new Malformed('framed twice');
  if (codings.length > 0 && codings[0] !== 'chunked') throw new Malformed(`Transfer-Encoding: ${codings[0]}`);
  if (lengths.length > 0 && !/^(?:0|[1-9]\d{0,15})$/.test(lengths[0] as string)) throw new Malformed(`Content-Length: ${lengths[0]}`);
  return { chunked: codings.length > 0, length: lengths[0] === undefined ? undefined : Number(lengths[0]) };
};

type Body = Pick<Message, 'body' | 'isComplete' | 'trailers' | 'framing'>;
type Unended<M> = Omit<M, 'end'>;

const readChunked = (reader: Reader): Body => {
  let body = '';
  const none: Field[] = [];
  try {
    for (;;) {
      const line = reader.line();
      if (!/^[0-9A-Fa-f]{1,12}$/.test(line)) throw new Malformed(`chunk size ${JSON.stringify(line)}`);
      const size = Number.parseInt(line, 16);
      if (size === 0) return { body, isComplete: true, trailers: readFields(reader), framing: 'chunked' };
      const chunk = reader.take(size);
      body += chunk;
      if (chunk.length < size) throw new Incomplete();
      if (reader.line() !== '') throw new Malformed('a chunk is longer than it says');
    }
  } catch (error) {
    if (!(error instanceof Incomplete)) throw error;
    reader.take(Number.POSITIVE_INFINITY);
    return { body, isComplete: false, trailers: none, framing: 'chunked' };
  }
};

const readLength = (reader: Reader, length: number): Body => {
  const body = reader.take(length);
  return { body, isComplete: body.length === length, trailers: [], framing: 'length' };
};

const noBody: Body = { body: '', isComplete: true, trailers: [], framing: 'none' };

const parse = <M extends Message>(text: string, readOne: (reader: Reader) => Unended<M>): Parsed<M> => {
  const reader = new Reader(text);
  const messages: M[] = [];
  while (!reader.isAtEnd) {
    const start = reader.at;
    try {
      const message = { ...readOne(reader), end: reader.at } as M;
      messages.push(message);
      if (!message.isComplete) return { messages, problem: undefined, rest: '' };
    } catch (error) {
      if (!(error instanceof Malformed) && !(error instanceof Incomplete)) throw error;
      return { messages, problem: error instanceof Malformed ? error.message : undefined, rest: text.slice(start) };
    }
  }
  return { messages, problem: undefined, rest: '' };
};

export const parseRequests = (text: string): Parsed<RequestMessage> =>
  parse<RequestMessage>(text, (reader) => {
    const match = requestLine.exec(reader.line());
    if (!match) throw new Malformed('no request line');
    const headers = readFields(reader);
    const { chunked, length } = framingOf(headers);
    const body = chunked ? readChunked(reader) : length === undefined ? noBody : readLength(reader, length);
    return { method: match[1] as string, target: match[2] as string, headers, ...body };
  });

/** `methods`: of the requests that are answered, in order. `isClosed`: nothing more will come, orderly. */
export const parseResponses = (text: string, methods: readonly string[], isClosed: boolean): Parsed<ResponseMessage> => {
  let index = 0;
  return parse<ResponseMessage>(text, (reader) => {
    const interim: number[] = [];
    for (;;) {
      const match = statusLine.exec(reader.line());
      if (!match) throw new Malformed('no status line');
      const status = Number(match[1]);
      const headers = readFields(reader);
      const { chunked, length } = framingOf(headers);
      if (status < 200) {
        if (chunked || length !== undefined) throw new Malformed('an interim answer with a length');
        interim.push(status);
        if (status === 101) throw new Malformed('101');
        continue;
      }
      const method = methods[index++];
      if (status === 204 && (chunked || length !== undefined)) throw new Malformed('204 with a length');
      if (method === 'HEAD' || status === 204 || status === 304) return { status, interim, headers, ...noBody };
      if (chunked) return { status, interim, headers, ...readChunked(reader) };
      if (length !== undefined) return { status, interim, headers, ...readLength(reader, length) };
      const body = reader.take(Number.POSITIVE_INFINITY);
      return { status, interim, headers, body, isComplete: isClosed, trailers: [], framing: 'close' };
    }
  });
};
