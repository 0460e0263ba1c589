/**
 * Sound requests and answers in every form that the proxy takes, to be mutated: HTTP/1.1 as text, HTTP/2 as frames, answers of targets.
 * From a seed; pure.
 */
import { flags, frame, frameTypes, literal, uint32 } from '../net/outbound/frames.ts';
import type { Random } from './random.ts';

/** absolute: to the forward proxy. plain, tls: inside CONNECT. reverse: a route's port. h2, h2 over TLS: frames. */
export const ways = ['absolute', 'plain', 'tls', 'reverse', 'h2', 'h2tls'] as const;
export type Way = (typeof ways)[number];

export const echoHost = 'echo.outrider.test';
export const otherHost = 'other.outrider.test';

const words = ['a', 'b', 'items', '%41', 'x.y', '~u', 'v1', '%C3%A9', '-'] as const;
const fields: readonly string[] = [
  'Accept: */*',
  'accept-encoding: gzip',
  'X-A: 1',
  'X-A: 2',
  'x-b:',
  'X-Tab: a\tb',
  'Cookie: a=1',
  'Cookie: b=2',
  'Authorization: Bearer theirs',
  'AUTHORIZATION: Basic dTpw',
  'X_Y: z',
  'Connection: keep-alive',
  'Connection: X-A',
  'Keep-Alive: timeout=5',
  'Proxy-Connection: keep-alive',
  'Proxy-Authorization: Basic dTpw',
  'TE: trailers',
  'Trailer: X-T',
  'X-Forwarded-Host: attacker.test',
  'X-HTTP-Method-Override: DELETE',
  'X-Original-URL: /admin',
  'Forwarded: host=attacker.test',
  'Max-Forwards: 0',
  'Range: bytes=0-1',
  'Via: 1.1 x',
  'Content-Type: text/plain',
  'X-Obs: \u00e9',
];
const bodies: readonly string[] = [
  'hello',
  'a',
  '',
  '{"a":1}',
  '0\r\n\r\n',
  `GET /smuggled HTTP/1.1\r\nHost: ${echoHost}\r\n\r\n`,
  'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged',
  '\u0000\r\n\u00ff',
  'x'.repeat(700),
];

const chunked = (body: string, random: Random, trailer = ''): string => {
  let text = '';
  for (let at = 0; at < body.length; ) {
    const size = 1 + random.below(body.length);
    const piece = body.slice(at, at + size);
    text += `${piece.length.toString(16)}${random.oneIn(8) ? ';x="y"' : ''}\r\n${piece}\r\n`;
    at += piece.length;
  }
  return `${text}0\r\n${trailer}\r\n`;
};

const some = (from: readonly string[], random: Random, most: number): string[] =>
  Array.from({ length: random.below(most + 1) }, () => random.pick(from));

const pathOf = (random: Random): string => `/${some(words, random, 3).join('/')}${random.oneIn(4) ? `?q=${random.below(9)}` : ''}`;

/** Stands in every request for a number that the cell gives each input: no request can be taken for one of another input. */
export const inputMark = '{input}';

const oneRequest = (way: Way, random: Random): string => {
  const method = random.pick(['GET', 'GET', 'POST', 'PUT', 'HEAD', 'DELETE', 'OPTIONS', 'PATCH']);
  const host = way === 'absolute' && random.oneIn(6) ? otherHost : echoHost;
  const path = pathOf(random);
  const target = way === 'absolute' || random.oneIn(12) ? `${way === 'tls' ? 'https' : 'http'}://${host}${path}` : path;
  const hasBody = method === 'GET' || method === 'HEAD' ? random.oneIn(4) : !random.oneIn(3);
  const body = random.pick(bodies);
  const isChunked = hasBody && random.oneIn(2);
  const trailer = random.oneIn(4) ? random.pick(['X-T: 1\r\n', 'Authorization: Bearer theirs\r\n', 'X-Original-URL: /x\r\n']) : '';
  const lines = [
    `${method} ${target} HTTP/1.1`,
    `Host: ${host}`,
    `X-Input: ${inputMark}`,
    ...some(fields, random, 4),
    ...(!hasBody ? [] : isChunked ? ['Transfer-Encoding: chunked'] : [`Content-Length: ${body.length}`]),
    ...(hasBody && random.oneIn(10) ? ['Expect: 100-continue'] : []),
    '',
  ];
  return `${lines.join('\r\n')}\r\n${!hasBody ? '' : isChunked ? chunked(body, random, trailer) : body}`;
};

const header = (name: string, value: string): Buffer => literal(name, value);

const oneStream = (id: number, random: Random, scheme: string): Buffer => {
  const method = random.pick(['GET', 'POST', 'PUT', 'HEAD', 'DELETE']);
  const body = random.oneIn(2) ? random.pick(bodies) : '';
  const hasBody = body !== '';
  const odd: readonly (readonly [string, string])[] = [
    ['transfer-encoding', 'chunked'],
    ['connection', 'close'],
    ['content-length', '3'],
    ['host', otherHost],
    ['x', 'a\r\nb: c'],
    ['Upper', 'x'],
    ['authorization', 'Bearer theirs'],
    [':path', '/second'],
    ['te', 'trailers'],
    ['cookie', 'a=1'],
    ['cookie', 'b=2'],
    ['x_authorization', 'y'],
    ['x', 'y'],
    ['x-obs', '\u00e9'],
    ['expect', '100-continue'],
  ];
  const block = Buffer.concat([
    header(':method', method),
    header(':scheme', scheme),
    header(':path', random.oneIn(12) ? random.pick(['', '*', 'x', '/a b', `http://${otherHost}/`, '/\r\nX: y']) : pathOf(random)),
    header(':authority', random.oneIn(12) ? random.pick([otherHost, '', `${echoHost}:81`, `u@${echoHost}`]) : echoHost),
    header('x-input', inputMark),
    ...(hasBody && random.oneIn(2) ? [header('content-length', String(body.length))] : []),
    ...(random.oneIn(2) ? [random.pick(odd)] : []).map(([name, value]) => header(name, value)),
  ]);
  const split = random.oneIn(6) ? random.below(block.length) : block.length;
  const head = [
    frame(
      frameTypes.headers,
      (split === block.length ? flags.endHeaders : 0) | (hasBody ? 0 : flags.endStream),
      id,
      block.subarray(0, split),
    ),
    ...(split === block.length ? [] : [frame(9, flags.endHeaders, id, block.subarray(split))]),
  ];
  const isTrailed = hasBody && random.oneIn(5);
  const data = hasBody ? [frame(frameTypes.data, isTrailed ? 0 : flags.endStream, id, Buffer.from(body, 'latin1'))] : [];
  const trailer = isTrailed
    ? [
        frame(
          frameTypes.headers,
          flags.endHeaders | flags.endStream,
          id,
          header(random.pick(['x-t', 'authorization', 'content-length']), '1'),
        ),
      ]
    : [];
  const noise = random.oneIn(8)
    ? [
        random.pick([
          frame(frameTypes.rstStream, 0, id, uint32(8)),
          frame(frameTypes.ping, 0, 0, Buffer.alloc(8)),
          frame(frameTypes.windowUpdate, 0, id, uint32(1)),
          frame(77, 0, id),
          frame(frameTypes.settings, 0, 0),
        ]),
      ]
    : [];
  return Buffer.concat([...head, ...data, ...trailer, ...noise]);
};

const h2Requests = (way: Way, random: Random): string => {
  const streams = Array.from({ length: 1 + random.below(3) }, (_, i) => oneStream(2 * i + 1, random, way === 'h2tls' ? 'https' : 'http'));
  return Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(frameTypes.settings, 0, 0), ...streams]).toString('latin1');
};

/** One to four requests, one after another on a connection, as latin1. */
export const requests = (way: Way, random: Random): string =>
  way === 'h2' || way === 'h2tls'
    ? h2Requests(way, random)
    : Array.from({ length: 1 + random.below(4) }, () => oneRequest(way, random)).join('');

const answerFields: readonly string[] = [
  'Content-Type: text/plain',
  'Set-Cookie: a=1',
  'set-cookie: b=2',
  'Connection: keep-alive',
  'Connection: X-C',
  'X-C: 1',
  'Keep-Alive: timeout=5',
  'Location: http://attacker.test/',
  'Proxy-Authenticate: Basic',
  'Trailer: X-T',
  'ETag: "1"',
  'X-Obs: \u00e9',
  'Date: x',
  'Upgrade: h2c',
];

/** What a target may answer one request with. */
export const answer = (random: Random): string => {
  const interim = random.oneIn(6) ? 'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n'.repeat(1 + random.below(10)) : '';
  const status = random.pick([
    '200 OK',
    '200 OK',
    '200',
    '201 Created',
    '204 No Content',
    '304 Not Modified',
    '404 Not Found',
    '302 Found',
    '500 Internal Server Error',
    '299 Odd',
  ]);
  const body = random.pick(bodies);
  const framing = random.pick(['length', 'length', 'chunked', 'close', 'both']);
  const named =
    framing === 'length'
      ? [`Content-Length: ${body.length}`]
      : framing === 'chunked'
        ? ['Transfer-Encoding: chunked']
        : framing === 'both'
          ? [`Content-Length: ${body.length}`, 'Transfer-Encoding: chunked']
          : [];
  const bytes = framing === 'chunked' || framing === 'both' ? chunked(body, random, random.oneIn(4) ? 'X-T: 1\r\n' : '') : body;
  const second = random.oneIn(6) ? 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged' : '';
  return `${interim}${[`HTTP/1.1 ${status}`.replace(/200$/, '200 '), ...some(answerFields, random, 3), ...named, ''].join('\r\n')}\r\n${bytes}${second}`;
};

/** Two sound requests that leave the answer to matter; the second asks after the first has been answered. */
export const twoRequests = (way: Way, random: Random): string => {
  const target = (name: string): string => (way === 'absolute' ? `http://${echoHost}/${name}` : `/${name}`);
  const method = random.pick(['GET', 'GET', 'HEAD', 'POST', 'PUT']);
  const body =
    method === 'POST'
      ? 'Content-Length: 5\r\n\r\nhello'
      : method === 'PUT'
        ? 'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'
        : '\r\n';
  const head = `Host: ${echoHost}\r\nX-Input: ${inputMark}\r\n`;
  return `${method} ${target('first')} HTTP/1.1\r\n${head}${body}GET ${target('second')} HTTP/1.1\r\n${head}\r\n`;
};
