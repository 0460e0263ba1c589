/** An HTTP/2 target written frame by frame (RFC 9113 section 4), to do what no library lets one do. */
import { createServer, type Server, type Socket } from 'node:net';

export const frameTypes = { data: 0, headers: 1, rstStream: 3, settings: 4, ping: 6, goaway: 7, windowUpdate: 8 } as const;
export const flags = { endStream: 1, ack: 1, endHeaders: 4 } as const;

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export interface FrameConnection {
  readonly socket: Socket;
  readonly send: (type: number, flags: number, stream: number, payload?: Uint8Array) => void;
  /** A response head: `:status` and literal fields. */
  readonly head: (stream: number, status: number, fields?: readonly (readonly [string, string])[], isEnd?: boolean) => void;
}

const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

export const frame = (type: number, flag: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer => {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header[3] = type;
  header[4] = flag;
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
};

export const uint32 = (...values: readonly number[]): Buffer => {
  const buffer = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) buffer.writeUInt32BE(value, i * 4);
  return buffer;
};

export const setting = (id: number, value: number): Buffer => {
  const buffer = Buffer.alloc(6);
  buffer.writeUInt16BE(id, 0);
  buffer.writeUInt32BE(value, 2);
  return buffer;
};

/** Literal field without indexing, new name (RFC 7541 section 6.2.2), strings not Huffman-coded. */
export const literal = (name: string, value: string): Buffer => Buffer.concat([Buffer.from([0]), text(name), text(value)]);
const text = (value: string): Buffer => {
  const bytes = Buffer.from(value, 'latin1');
  return Buffer.concat([integer(bytes.length), bytes]);
};
/** RFC 7541 section 5.1 with a prefix of seven bits. */
const integer = (value: number): Buffer => {
  if (value < 127) return Buffer.from([value]);
  const bytes = [127];
  let rest = value - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Buffer.from([...bytes, rest]);
};

/** `settings`: what it announces; `onFrame` sees every frame but the client's SETTINGS. */
export const frameServer = (onFrame: (frame: Frame, connection: FrameConnection) => void, settings: Uint8Array = Buffer.alloc(0)): Server =>
  createServer({ noDelay: true }, (socket) => {
    const send: FrameConnection['send'] = (...parts) => void socket.write(frame(...parts));
    const connection: FrameConnection = {
      socket,
      send,
      head: (stream, status, fields = [], isEnd = false) =>
        send(
          frameTypes.headers,
          flags.endHeaders + (isEnd ? flags.endStream : 0),
          stream,
          Buffer.concat([literal(':status', String(status)), ...fields.map(([name, value]) => literal(name, value))]),
        ),
    };
    send(frameTypes.settings, 0, 0, settings);
    let read = Buffer.alloc(0);
    let isOpen = false;
    socket.on('data', (chunk: Buffer) => {
      read = Buffer.concat([read, chunk]);
      if (!isOpen && read.length >= preface.length) {
        read = read.subarray(preface.length);
        isOpen = true;
      }
      while (isOpen && read.length >= 9) {
        const length = read.readUIntBE(0, 3);
        if (read.length < 9 + length) return;
        const one = {
          type: read[3] as number,
          flags: read[4] as number,
          stream: read.readUInt32BE(5),
          payload: read.subarray(9, 9 + length),
        };
        read = read.subarray(9 + length);
        if (one.type === frameTypes.settings) {
          if (!(one.flags & flags.ack)) send(frameTypes.settings, flags.ack, 0);
        } else onFrame(one, connection);
      }
    });
  });
