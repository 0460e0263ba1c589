import { createServer, type Server, type Socket } from 'node:net';
import { createSecureServer, createServer as createH2cServer, type ServerHttp2Stream } from 'node:http2';
import { createServer as createTlsServer, TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import type { FaultCode } from '../../src/core/fault.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueLeaf } from '../../src/pki/leaf.ts';
import type { TargetProtocol } from '../../src/core/target.ts';
import { authority, files, host } from '../support/between.ts';
import { directoryOf } from '../support/directory.ts';
import { dial, exchange, type Path, startPath, target, wholeResponse } from '../support/path.ts';
import { startSwitchboard } from './faults/peers.ts';
import { inParallel } from './faults/table.ts';

/**
 * A target that is not there, slow, half open or lying, at each stage of a request, over HTTP/1.1 in clear text and TLS and over HTTP/2: its
 * documented fault within the bound that was set, one intent and one outcome, and the next request, at the same address, is answered.
 */
t.setTimeout(180_000);
let scenarios = 0;
t.teardown(() => t.comment(`${scenarios} scenarios`));

/** What the bounds of limits.ts are shortened to, and what a machine under load may add. */
const boundMs = 1_000;
const graceMs = 3_000;

interface Row {
  readonly stage: 'connect' | 'handshake' | 'head' | 'body' | 'trailer';
  readonly what: string;
  readonly scheme: 'http' | 'https';
  readonly protocol?: TargetProtocol;
  readonly server: () => Server;
  readonly codes: readonly FaultCode[];
  /** The answer had begun: what the program sees is a connection that breaks. */
  readonly isBroken?: true;
}

const tcp = (onSocket: (socket: Socket) => void) => () =>
  createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => undefined);
    onSocket(socket);
  });
const tls =
  (onSocket: (socket: Socket) => void, identity: { cert: string; key: string } = files, protocols = ['http/1.1']) =>
  () =>
    createTlsServer({ ...identity, ALPNProtocols: protocols }, (socket) => {
      socket.on('error', () => undefined);
      onSocket(socket);
    }).on('tlsClientError', () => undefined);

const now = Date.now();
const hourMs = 3_600_000;
const key = createKeyPair();
const keyPem = key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const trusted = createAuthority({
  commonName: 'Trusted test authority',
  key: createKeyPair(),
  nowMs: now - 240 * hourMs,
  lifetimeMs: 480 * hourMs,
});
const stranger = createAuthority({ commonName: 'Trusted test authority', key: createKeyPair(), nowMs: now, lifetimeMs: hourMs });
const leaf = (from: typeof trusted, name: string, nowMs = now): { cert: string; key: string } => ({
  cert: issueLeaf(from, { host: name, publicKey: key.publicKey, nowMs, lifetimeMs: hourMs }).pem,
  key: keyPem,
});
const wrongCertificates: Readonly<Record<string, { cert: string; key: string }>> = {
  'for another name': leaf(trusted, 'other.outrider.test'),
  'for a name below': leaf(trusted, `x.${host}`),
  'for the name above': leaf(trusted, 'outrider.test'),
  'for its address': leaf(trusted, '127.0.0.1'),
  expired: leaf(trusted, host, now - 5 * hourMs),
  'not valid yet': leaf(trusted, host, now + 5 * hourMs),
  "of another authority of the trusted one's name": leaf(stranger, host),
  'self-signed': { cert: stranger.certificatePem, key: stranger.key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string },
};

const onHead = (answer: (socket: Socket) => void) => (socket: Socket) => void socket.once('data', () => answer(socket));
const saying = (bytes: string, after: (socket: Socket) => void = () => undefined) =>
  onHead((socket) => void socket.write(bytes, 'latin1', () => after(socket)));
const end = (socket: Socket): void => void socket.end();
/** Under TLS Node has no reset: the connection ends without TLS's own end. */
const reset = (socket: Socket): void => void (socket instanceof TLSSocket ? socket.destroy() : socket.resetAndDestroy());

/** [stage, what, what it does once the request's head is there, codes, whether the answer had begun] */
const overHttp1: readonly (readonly [Row['stage'], string, (socket: Socket) => void, readonly FaultCode[], true?])[] = [
  ['head', 'it reads and is silent', onHead(() => undefined), ['target_timeout']],
  ['head', 'half a head and silence', saying('HTTP/1.1 200 OK\r\nContent-Le'), ['target_timeout']],
  ['head', 'interim answers and silence', saying('HTTP/1.1 103 Early Hints\r\n\r\n'), ['target_timeout']],
  ['head', 'it ends the connection', saying('', end), ['target_closed']],
  ['head', 'it resets the connection', saying('', reset), ['target_closed']],
  [
    'head',
    'half a head and the end',
    saying('HTTP/1.1 200 OK\r\nContent-Le', end),
    ['target_closed', 'target_malformed', 'target_truncated'],
  ],
  ['head', 'garbage', saying('\u0000\u0001\u0002 garbage\r\n\r\n'), ['target_malformed']],
  ['head', 'another protocol', saying('SSH-2.0-OpenSSH_9.6\r\n'), ['target_malformed']],
  ['head', 'HTTP/2 frames', saying('\u0000\u0000\u0000\u0004\u0000\u0000\u0000\u0000\u0000'), ['target_malformed']],
  ['head', 'a status of two digits', saying('HTTP/1.1 20 OK\r\n\r\n'), ['target_malformed']],
  ['head', 'two lengths', saying('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello'), ['target_malformed']],
  [
    'head',
    'a length and chunks',
    saying('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
    ['target_malformed'],
  ],
  ['head', 'a header that never ends', saying(`HTTP/1.1 200 OK\r\nX: ${'y'.repeat(100_000)}`), ['target_malformed']],
  ['head', 'interim answers without end', saying('HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(50)), ['target_malformed']],
  [
    'head',
    'an upgrade that nobody asked for',
    saying('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n'),
    ['target_malformed'],
  ],
  ['body', 'half and the end', saying('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf', end), ['target_truncated'], true],
  ['body', 'half and a reset', saying('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf', reset), ['target_truncated'], true],
  [
    'body',
    'half a chunk and the end',
    saying('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf', end),
    ['target_truncated'],
    true,
  ],
  [
    'body',
    'a chunk that is none',
    saying('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n'),
    ['target_truncated', 'target_malformed'],
    true,
  ],
  [
    'body',
    'chunks without the last one',
    saying('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n', end),
    ['target_truncated'],
    true,
  ],
  [
    'trailer',
    'half a trailer and the end',
    saying('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-T: ', end),
    ['target_truncated'],
    true,
  ],
  [
    'trailer',
    'a trailer that is none',
    saying('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nbad trailer\r\n\r\n'),
    ['target_truncated', 'target_malformed'],
    true,
  ],
];

const h2 = (isTls: boolean, answer: (stream: ServerHttp2Stream) => void) => (): Server => {
  const server = isTls ? createSecureServer({ ...files }) : createH2cServer();
  server.on('session', (session) => session.on('error', () => undefined));
  server.on('sessionError', () => undefined);
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => undefined).resume();
    answer(stream);
  });
  return server;
};

const overHttp2: readonly (readonly [Row['stage'], string, (stream: ServerHttp2Stream) => void, readonly FaultCode[], true?])[] = [
  ['head', 'it takes the request and is silent', () => undefined, ['target_timeout']],
  ['head', 'it refuses the stream again and again', (stream) => stream.close(7), ['target_closed', 'overloaded', 'target_timeout']],
  ['head', 'it resets the stream', (stream) => stream.close(2), ['target_closed', 'target_malformed']],
  ['head', 'it breaks the connection', (stream) => stream.session?.destroy(), ['target_closed']],
  [
    'body',
    'half and a broken connection',
    (stream) => void (stream.respond({ ':status': 200 }), stream.write('half', () => setImmediate(() => stream.session?.destroy()))),
    ['target_truncated'],
    true,
  ],
  [
    'trailer',
    'a reset in the place of the trailers',
    (stream) => {
      stream.respond({ ':status': 200 }, { waitForTrailers: true });
      stream.once('wantTrailers', () => stream.close(2));
      stream.end('all');
    },
    ['target_truncated'],
    true,
  ],
];

const rows: readonly Row[] = [
  ...(['http', 'https'] as const).flatMap((scheme): Row[] => [
    {
      stage: 'connect',
      what: 'it resets at once',
      scheme,
      server: tcp(reset),
      codes: scheme === 'http' ? ['target_closed', 'target_refused'] : ['target_tls_failed', 'target_closed'],
    },
    {
      stage: 'connect',
      what: 'it closes at once',
      scheme,
      server: tcp(end),
      codes: scheme === 'http' ? ['target_closed'] : ['target_tls_failed'],
    },
    ...overHttp1.map(
      ([stage, what, does, codes, isBroken]): Row => ({
        stage,
        what,
        scheme,
        server: scheme === 'http' ? tcp(does) : tls(does),
        codes,
        ...(isBroken ? { isBroken } : {}),
      }),
    ),
  ]),
  { stage: 'handshake', what: 'it accepts and is silent', scheme: 'https', server: tcp(() => undefined), codes: ['target_tls_failed'] },
  {
    stage: 'handshake',
    what: 'half a record and silence',
    scheme: 'https',
    server: tcp(onHead((socket) => void socket.write(Buffer.from([22, 3, 3, 0, 90, 2])))),
    codes: ['target_tls_failed'],
  },
  {
    stage: 'handshake',
    what: 'it answers in plain HTTP',
    scheme: 'https',
    server: tcp(saying('HTTP/1.1 400 Bad Request\r\n\r\n', end)),
    codes: ['target_tls_failed'],
  },
  {
    stage: 'handshake',
    what: 'garbage',
    scheme: 'https',
    server: tcp((socket) => void socket.write('garbage'.repeat(100))),
    codes: ['target_tls_failed'],
  },
  { stage: 'handshake', what: 'it resets in the middle', scheme: 'https', server: tcp(onHead(reset)), codes: ['target_tls_failed'] },
  {
    stage: 'handshake',
    what: 'it speaks another protocol inside',
    scheme: 'https',
    server: tls(() => undefined, files, ['smtp']),
    codes: ['target_protocol'],
  },
  ...Object.entries(wrongCertificates).map(
    ([what, identity]): Row => ({
      stage: 'handshake',
      what: `its certificate is ${what}`,
      scheme: 'https',
      server: tls(saying('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad'), identity),
      codes: ['target_certificate_invalid'],
    }),
  ),
  ...(['http', 'https'] as const).flatMap((scheme) =>
    overHttp2.map(
      ([stage, what, does, codes, isBroken]): Row => ({
        stage,
        what: `HTTP/2: ${what}`,
        scheme,
        protocol: 'h2',
        server: h2(scheme === 'https', does),
        codes,
        ...(isBroken ? { isBroken } : {}),
      }),
    ),
  ),
  {
    stage: 'handshake',
    what: 'HTTP/2: it is silent in clear text',
    scheme: 'http',
    protocol: 'h2',
    server: tcp(() => undefined),
    codes: ['target_timeout', 'target_protocol', 'target_closed'],
  },
  {
    stage: 'handshake',
    what: 'HTTP/2: it answers in HTTP/1.1',
    scheme: 'http',
    protocol: 'h2',
    server: tcp(saying('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n')),
    codes: ['target_protocol', 'target_malformed', 'target_closed'],
  },
];

const sound = (row: Row): Server => {
  if (row.protocol === 'h2')
    return h2(row.scheme === 'https', (stream) => void (stream.respond({ ':status': 200 }), stream.end('right')))();
  return (row.scheme === 'http' ? tcp : tls)(saying('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright'))();
};

const listening = async (t: Test, server: Server): Promise<number> => {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as { port: number }).port;
};

const get = (scheme: string): string => `GET ${scheme}://${host}/x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
const interim = /^(?:HTTP\/1\.1 1\d\d [^]*?\r\n\r\n)+/;
const isWhole = (text: string): boolean => wholeResponse(text.replace(interim, ''));

const pathTo = (t: Test, dir: string, port: number, protocol: TargetProtocol): Promise<Path> =>
  startPath({
    dir,
    targets: [target('echo', { protocol })],
    pins: [80, 443].map((own) => ({ host, port: own, address: '127.0.0.1', addressPort: port })),
    trustPem: authority.pem + trusted.certificatePem,
    patience: { headersMs: boundMs, settingsMs: boundMs, continueMs: boundMs },
    dialPatience: { connectMs: boundMs, handshakeMs: boundMs },
  }).then((path) => {
    t.teardown(() => path.close());
    return path;
  });

t.test('each wrong of a target ends in its fault within the bound, and the next request is answered', async (t) => {
  const wrong: string[] = [];
  const dir = directoryOf(t);
  await inParallel(rows, 4, async (row) => {
    scenarios += 1;
    const label = `${row.scheme}, ${row.stage}, ${row.what}`;
    const board = await startSwitchboard(t);
    const [bad, good] = [await listening(t, row.server()), await listening(t, sound(row))];
    board.leadTo(bad);
    const path = await pathTo(t, dir, board.address.port, row.protocol ?? 'auto');
    const startedAt = performance.now();
    const answer = (await exchange(await dial(path.port), get(row.scheme), row.isBroken ? undefined : isWhole)).replace(interim, '');
    const tookMs = performance.now() - startedAt;
    const { outcome } = path.events.findLast(({ kind }) => kind === 'outcome') ?? {};
    const fault = outcome?.fault as FaultCode | undefined;
    if (fault === undefined || !row.codes.includes(fault)) wrong.push(`${label}: ended in ${fault}: ${answer.slice(0, 300)}`);
    if (tookMs > boundMs + graceMs) wrong.push(`${label}: took ${tookMs} ms`);
    if (row.isBroken ? answer.endsWith('0\r\n\r\n') : !answer.includes(`"code":"${fault}"`))
      wrong.push(`${label}: the program saw ${JSON.stringify(answer)}`);
    const kinds = path.events.map(({ kind, attempt }) => `${kind} ${attempt}`);
    if (kinds.filter((kind) => kind.startsWith('outcome')).length !== 1 || !kinds[0]?.startsWith('intent'))
      wrong.push(`${label}: ${kinds.join()}`);
    if (/credential-for/.test(answer + path.logs.join(''))) wrong.push(`${label}: the credential was said`);
    board.leadTo(good);
    // A session that was just cut may take one more request before it is seen to be gone.
    let next = '';
    for (let tries = 0; tries < (row.protocol === 'h2' ? 3 : 1) && !next.startsWith('HTTP/1.1 200 '); tries += 1)
      next = await exchange(await dial(path.port), get(row.scheme), isWhole);
    if (!/^HTTP\/1\.1 200 [^]*right/.test(next)) wrong.push(`${label}, afterwards: ${next.slice(0, 300)}`);
  });
  t.strictSame(wrong, []);
});

t.test('a host that two targets claim is nobody’s: no credential goes there', async (t) => {
  scenarios += 1;
  const seen: string[] = [];
  const port = await listening(
    t,
    tcp((socket) =>
      socket.on('data', (chunk) => void (seen.push(String(chunk)), socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))),
    )(),
  );
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo'), target('claimant', { hosts: [host] })],
    pins: [{ host, port: 80, address: '127.0.0.1', addressPort: port }],
    trustPem: authority.pem,
  });
  t.teardown(() => path.close());
  t.match(await exchange(await dial(path.port), get('http'), isWhole), /^HTTP\/1\.1 200 /);
  t.notMatch(seen.join(''), /credential-for/);
});

t.test('an address that swallows what it is sent: the connection is given up at its bound, and the next target is reached', async (t) => {
  scenarios += 1;
  // A listener whose backlog is full answers no SYN: what a black hole is on loopback.
  const full = createServer();
  await new Promise<void>((resolve) => full.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, resolve));
  const { port } = full.address() as { port: number };
  t.teardown(() => full.close());
  const { fill, filled } = await fillBacklog(t, port);
  if (!filled) return t.comment('this kernel has no end of its backlog: left out');
  const good = await listening(t, sound({ scheme: 'http' } as Row));
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo'), target('other')],
    pins: [
      { host, port: 80, address: '127.0.0.1', addressPort: port },
      { host: 'other.outrider.test', port: 80, address: '127.0.0.1', addressPort: good },
    ],
    trustPem: authority.pem,
    dialPatience: { connectMs: boundMs },
  });
  t.teardown(() => path.close());
  const startedAt = performance.now();
  t.match(await exchange(await dial(path.port), get('http'), isWhole), /^HTTP\/1\.1 504 [^]*"code":"target_connect_timeout"/);
  t.ok(performance.now() - startedAt < boundMs + graceMs);
  t.match(await exchange(await dial(path.port), get('http').replaceAll(host, 'other.outrider.test'), isWhole), /^HTTP\/1\.1 200 /);
  for (const socket of fill) socket.destroy();
});

/** A process that never accepts, and connections until one stays unanswered. */
const fillBacklog = async (t: Test, port: number): Promise<{ fill: Socket[]; filled: boolean }> => {
  const { connect } = await import('node:net');
  const fill: Socket[] = [];
  t.teardown(() => {
    for (const socket of fill) socket.destroy();
  });
  for (let i = 0; i < 50; i += 1) {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.on('error', () => undefined);
    fill.push(socket);
    const isAnswered = await Promise.race([
      new Promise<boolean>((resolve) => socket.once('connect', () => resolve(true))),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), 300)),
    ]);
    if (!isAnswered) return { fill, filled: true };
  }
  return { fill, filled: false };
};
