/** HTTP/2 as bytes: which streams a program opens, and what came back on each. Reads frame heads and DATA; header blocks stay packed. */
import { flags, frameTypes } from '../net/outbound/frames.ts';

export interface Stream {
  data: string;
  heads: number;
  isEnded: boolean;
  isReset: boolean;
}

const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

const framesIn = (bytes: Buffer): Frame[] => {
  const frames: Frame[] = [];
  for (let at = 0; at + 9 <= bytes.length; ) {
    const length = bytes.readUIntBE(at, 3);
    const payload = bytes.subarray(at + 9, at + 9 + length);
    if (payload.length < length) break;
    frames.push({ type: bytes[at + 3] as number, flags: bytes[at + 4] as number, stream: bytes.readUInt32BE(at + 5), payload });
    at += 9 + length;
  }
  return frames;
};

/** What a server sent, latin1. */
export const streamsOf = (text: string): ReadonlyMap<number, Stream> => {
  const streams = new Map<number, Stream>();
  for (const frame of framesIn(Buffer.from(text, 'latin1'))) {
    if (frame.stream === 0) continue;
    const stream = streams.get(frame.stream) ?? { data: '', heads: 0, isEnded: false, isReset: false };
    streams.set(frame.stream, stream);
    if (frame.type === frameTypes.headers) stream.heads += 1;
    if (frame.type === frameTypes.data) stream.data += frame.payload.toString('latin1');
    if (frame.type === frameTypes.rstStream) stream.isReset = true;
    if ((frame.type === frameTypes.headers || frame.type === frameTypes.data) && (frame.flags & flags.endStream) !== 0)
      stream.isEnded = true;
  }
  return streams;
};

/** How many streams a program opens by what it sends; undefined when that is not HTTP/2 from its first byte. */
export const streamsOpened = (text: string): number | undefined => {
  if (!text.startsWith(preface)) return undefined;
  const opened = framesIn(Buffer.from(text.slice(preface.length), 'latin1')).filter(
    ({ type, stream }) => type === frameTypes.headers && stream % 2 === 1,
  );
  return new Set(opened.map(({ stream }) => stream)).size;
};
