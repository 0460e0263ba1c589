/** What an attacker does to bytes that were sound: one small change after another, from a seed. Pure. */
import type { Random } from './random.ts';

/** What parsers disagree about. */
const sharp: readonly string[] = [
  '\r\n',
  '\n',
  '\r',
  '\r\r\n',
  '\r\n\r\n',
  '\r\n ',
  '\t',
  ' ',
  '\u0000',
  '\u000b',
  '\u0085',
  '\u00a0',
  '\u00ff',
  ':',
  ' :',
  ';',
  ',',
  '"',
  '#',
  '?',
  '\\',
  '%',
  '//',
  '/../',
  '/./',
  '%2e',
  '%2f',
  '%00',
  '0',
  '00',
  '+',
  '-',
  '0x',
  'f',
  'ffffffffffffffff',
  '0\r\n\r\n',
  '1\r\na\r\n',
  '5;x=y',
  'Content-Length: 0\r\n',
  'Content-Length: 5\r\n',
  'Content-Length: 44\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: x\r\n',
  'Connection: close\r\n',
  'Connection: authorization\r\n',
  'Connection: content-length\r\n',
  'Expect: 100-continue\r\n',
  'Host: other.outrider.test\r\n',
  'Host: echo.outrider.test\r\n',
  'Authorization: Bearer theirs\r\n',
  'authorization_: x\r\n',
  'Upgrade: x\r\nConnection: upgrade\r\n',
  'Trailer: authorization\r\n',
  'HTTP/1.0',
  'HTTP/1.1',
  'HTTP/0.9',
  'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged',
  'HTTP/1.1 100 Continue\r\n\r\n',
  'HTTP/1.1 103 Early Hints\r\n\r\n',
  '\u0016\u0003\u0001',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'GET /smuggled HTTP/1.1\r\nHost: echo.outrider.test\r\n\r\n',
  'GET http://other.outrider.test/smuggled HTTP/1.1\r\nHost: other.outrider.test\r\n\r\n',
];

const insertAt = (text: string, at: number, piece: string): string => text.slice(0, at) + piece + text.slice(at);

/** A place, more often than not at a line's end or beginning, where framing is decided. */
const placeIn = (text: string, random: Random): number => {
  if (random.oneIn(3)) return random.below(text.length + 1);
  const ends = [...text.matchAll(/\r\n|: |\/| /g)].map(({ index, 0: found }) => index + (random.oneIn(2) ? found.length : 0));
  return ends.length === 0 ? random.below(text.length + 1) : random.pick(ends);
};

type Mutation = (text: string, random: Random, other: string) => string;

export const mutations: Readonly<Record<string, Mutation>> = {
  insert: (text, random) => insertAt(text, placeIn(text, random), random.pick(sharp)),
  'insert a byte': (text, random) => insertAt(text, placeIn(text, random), String.fromCharCode(random.below(256))),
  delete: (text, random) => {
    const at = placeIn(text, random);
    return text.slice(0, at) + text.slice(at + 1 + random.below(random.oneIn(3) ? 40 : 3));
  },
  flip: (text, random) => {
    const at = random.below(text.length);
    return text.slice(0, at) + String.fromCharCode((text.charCodeAt(at) ^ (1 << random.below(8))) & 0xff) + text.slice(at + 1);
  },
  replace: (text, random) => {
    const at = placeIn(text, random);
    const piece = random.pick(sharp);
    return text.slice(0, at) + piece + text.slice(at + piece.length);
  },
  'repeat a piece': (text, random) => {
    const [at, length] = [placeIn(text, random), 1 + random.below(60)];
    return insertAt(text, at, text.slice(at, at + length).repeat(1 + random.below(3)));
  },
  'repeat a line': (text, random) => {
    const lines = text.split('\r\n');
    const at = random.below(lines.length);
    return [...lines.slice(0, at), lines[at], ...lines.slice(at)].join('\r\n');
  },
  'swap lines': (text, random) => {
    const lines = text.split('\r\n');
    const [a, b] = [random.below(lines.length), random.below(lines.length)];
    [lines[a], lines[b]] = [lines[b] as string, lines[a] as string];
    return lines.join('\r\n');
  },
  'other line ends': (text, random) => {
    const end = random.pick(['\n', '\r', '\r\r\n', '\n\r', '\r\n ']);
    let nth = random.below(8);
    return text.replaceAll('\r\n', (found) => (nth-- === 0 ? end : found));
  },
  'other case': (text, random) => {
    const at = placeIn(text, random);
    const piece = text.slice(at, at + 1 + random.below(20));
    // Letters of ASCII alone: the capital of U+00FF is no latin1 letter, and would be another byte on the wire than in the oracle's eyes.
    const recased = random.oneIn(2)
      ? piece.replaceAll(/[a-z]/g, (letter) => letter.toUpperCase())
      : piece.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());
    return text.slice(0, at) + recased + text.slice(at + piece.length);
  },
  'other number': (text, random) => {
    const numbers = [...text.matchAll(/\d+/g)];
    if (numbers.length === 0) return text;
    const { index, 0: found } = random.pick(numbers);
    const other = random.pick([
      `0${found}`,
      `+${found}`,
      `-${found}`,
      String(Number(found) + 1),
      String(Math.max(0, Number(found) - 1)),
      '4294967296',
      '18446744073709551617',
      `${found},${found}`,
      `${found} ${found}`,
    ]);
    return text.slice(0, index) + other + text.slice(index + found.length);
  },
  truncate: (text, random) => text.slice(0, random.below(text.length + 1)),
  splice: (text, random, other) => text.slice(0, placeIn(text, random)) + other.slice(placeIn(other, random)),
};

const names = Object.keys(mutations);

/** `text` after one to four mutations, and which they were. `other` is what it may be spliced with. */
export const mutate = (text: string, random: Random, other: string): { readonly text: string; readonly by: readonly string[] } => {
  const by: string[] = [];
  let mutated = text;
  for (let left = 1 + random.below(4); left > 0 && mutated.length > 0; left -= 1) {
    const name = random.pick(names);
    by.push(name);
    mutated = (mutations[name] as Mutation)(mutated, random, other).slice(0, 8_192);
  }
  return { text: mutated, by };
};

/** Lengths of the segments in which bytes are written: all at once, byte by byte, or anywhere between. */
export const cutsOf = (length: number, random: Random): number[] => {
  if (random.oneIn(2)) return [];
  const most = random.oneIn(6) ? 2 : 1 + random.below(length + 1);
  const cuts: number[] = [];
  for (let left = length; left > 0 && cuts.length < 64; ) {
    const cut = Math.min(left, 1 + random.below(most));
    cuts.push(cut);
    left -= cut;
  }
  return cuts;
};
