import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { promisify } from 'node:util';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { type ClientHello, readClientHello } from '../../src/proxy/listener/client-hello.ts';
import { directoryOf } from '../support/directory.ts';

// A first Go build compiles the standard library.
t.setTimeout(300_000);

const uint = (bytes: number, value: number): Buffer => {
  const written = Buffer.alloc(bytes);
  written.writeUIntBE(value, 0, bytes);
  return written;
};
const vector = (lengthBytes: number, content: Buffer): Buffer => Buffer.concat([uint(lengthBytes, content.length), content]);
const extension = (type: number, content: Buffer): Buffer => Buffer.concat([uint(2, type), vector(2, content)]);
const nameEntry = (name: string | Buffer, type = 0): Buffer => Buffer.concat([uint(1, type), vector(2, Buffer.from(name))]);
const serverNames = (...entries: readonly Buffer[]): Buffer => extension(0, vector(2, Buffer.concat(entries)));
const alpn = (...protocols: readonly string[]): Buffer =>
  extension(16, vector(2, Buffer.concat(protocols.map((protocol) => vector(1, Buffer.from(protocol))))));
/** Values that mean nothing and must be passed over (RFC 8701). */
const grease = Buffer.concat([extension(0x0a0a, Buffer.alloc(0)), extension(0xfafa, Buffer.from([0]))]);

interface Parts {
  readonly extensions?: readonly Buffer[] | undefined;
  readonly session?: Buffer;
  readonly suites?: Buffer;
  readonly compressions?: Buffer;
  readonly after?: Buffer;
}

const message = ({
  extensions,
  session = Buffer.alloc(32),
  suites = Buffer.from('0a0a1301c02b', 'hex'),
  compressions = Buffer.alloc(1),
  after,
}: Parts): Buffer => {
  const body = Buffer.concat([
    uint(2, 0x0303),
    Buffer.alloc(32, 7),
    vector(1, session),
    vector(2, suites),
    vector(1, compressions),
    extensions ? vector(2, Buffer.concat(extensions)) : Buffer.alloc(0),
    after ?? Buffer.alloc(0),
  ]);
  return Buffer.concat([uint(1, 1), vector(3, body)]);
};

/** In records of at most `size` bytes each. */
const records = (content: Buffer, size = 16_384): Buffer => {
  const pieces: Buffer[] = [];
  for (let at = 0; at < content.length; at += size)
    pieces.push(Buffer.concat([uint(1, 22), uint(2, 0x0301), vector(2, content.subarray(at, at + size))]));
  return Buffer.concat(pieces);
};

const hello = (...extensions: readonly Buffer[]): Buffer => records(message({ extensions }));
const named = serverNames(nameEntry('api.example.com'));
const nothing: ClientHello = { serverName: undefined, alpn: [], hasEncryptedHello: false };

const table: readonly (readonly [string, Buffer, ClientHello | 'more' | 'not-tls'])[] = [
  [
    'a name and protocols',
    hello(named, alpn('h2', 'http/1.1')),
    { serverName: 'api.example.com', alpn: ['h2', 'http/1.1'], hasEncryptedHello: false },
  ],
  ['a name in capitals, with a last dot', hello(serverNames(nameEntry('API.Example.COM.'))), { ...nothing, serverName: 'api.example.com' }],
  ['GREASE around it', hello(grease, named, extension(0xdada, Buffer.alloc(9))), { ...nothing, serverName: 'api.example.com' }],
  [
    'an encrypted hello: the outer name counts',
    hello(named, extension(0xfe0d, Buffer.alloc(200))),
    { ...nothing, serverName: 'api.example.com', hasEncryptedHello: true },
  ],
  [
    'a key share as large as post-quantum ones',
    hello(extension(51, Buffer.alloc(4_000)), named),
    { ...nothing, serverName: 'api.example.com' },
  ],
  [
    'more of the same flight after it',
    Buffer.concat([hello(named), Buffer.from('140303000101', 'hex')]),
    { ...nothing, serverName: 'api.example.com' },
  ],
  ['no name', hello(alpn('h2')), { ...nothing, alpn: ['h2'] }],
  ['no extensions', records(message({})), nothing],
  ['an address for a name', hello(serverNames(nameEntry('192.0.2.1'))), nothing],
  ['a name with a zero byte', hello(serverNames(nameEntry('api.example.com\0.evil'))), nothing],
  ['a name that is no host name', hello(serverNames(nameEntry('api example'))), nothing],
  ['an empty name', hello(serverNames(nameEntry(''))), nothing],
  ['two names', hello(serverNames(nameEntry('a.example'), nameEntry('b.example'))), nothing],
  ['a name of an unknown type', hello(serverNames(nameEntry('a.example', 1))), nothing],
  ['an empty list of names', hello(serverNames()), nothing],
  ['bytes after the list of names', hello(extension(0, Buffer.concat([vector(2, nameEntry('a.example')), Buffer.alloc(1)]))), nothing],
  ['the name twice', hello(named, named), nothing],
  ['any extension twice', hello(named, alpn('h2'), alpn('h2')), nothing],
  ['an empty protocol', hello(named, alpn('')), nothing],
  ['a session id that is too long', records(message({ session: Buffer.alloc(33), extensions: [named] })), nothing],
  ['half a cipher suite', records(message({ suites: Buffer.alloc(3), extensions: [named] })), nothing],
  ['no cipher suites', records(message({ suites: Buffer.alloc(0), extensions: [named] })), nothing],
  ['no compression method', records(message({ compressions: Buffer.alloc(0), extensions: [named] })), nothing],
  ['bytes after the extensions', records(message({ extensions: [named], after: Buffer.alloc(1) })), nothing],
  ['extensions that end too early', records(message({ extensions: [named, Buffer.from('000000ff', 'hex')] })), nothing],
  ['a message of no length', records(Buffer.from('01000000', 'hex')), nothing],
  ['a message that is too long', records(Buffer.concat([uint(1, 1), uint(3, limits.clientHelloBytesMax + 1)])), nothing],
  [
    'a record of another type in the middle',
    Buffer.concat([
      records(message({ extensions: [named] }))
        .subarray(0, 5 + 20)
        .fill(20, 4, 5),
      Buffer.from('1503010002022f', 'hex'),
    ]),
    nothing,
  ],
  [
    'an empty record in the middle',
    Buffer.concat([records(message({ extensions: [named] }).subarray(0, 20)), Buffer.from('1603010000', 'hex')]),
    nothing,
  ],
  ['nothing', Buffer.alloc(0), 'more'],
  ['one byte', Buffer.from([22]), 'more'],
  ['all but the last byte', hello(named).subarray(0, -1), 'more'],
  ['an alert', Buffer.from('15030100020228', 'hex'), 'not-tls'],
  ['another handshake message', records(Buffer.from('02000000', 'hex')), 'not-tls'],
  ['a record that is too long', Buffer.from('1603014001', 'hex'), 'not-tls'],
  ['an empty first record', Buffer.from('1603010000', 'hex'), 'not-tls'],
  ['a version that never was', Buffer.from('160203', 'hex'), 'not-tls'],
  ['HTTP', Buffer.from('GET / HTTP/1.1\r\n'), 'not-tls'],
  ['SSH', Buffer.from('SSH-2.0-x\r\n'), 'not-tls'],
];

t.test('a ClientHello has the one name that every parser finds, or none', async (t) => {
  for (const [what, bytes, expected] of table) t.strictSame(readClientHello(bytes), expected, what);
});

const seed = Number(process.env['OUTRIDER_SEED'] ?? Date.now() % 2 ** 31);

t.test(`cut at any byte and into any records it reads the same, and never sooner than it is whole (seed ${seed})`, async (t) => {
  const content = message({ extensions: [grease, named, alpn('h2', 'http/1.1')] });
  const expected = readClientHello(records(content));
  for (const size of [1, 2, 3, 5, 64, content.length - 1]) {
    const bytes = records(content, size);
    for (let end = 0; end < bytes.length; end += 1) {
      const soFar = readClientHello(bytes.subarray(0, end));
      if (soFar !== 'more') t.fail(`${JSON.stringify(soFar)} after ${end} of ${bytes.length} bytes in records of ${size}`);
    }
    t.strictSame(readClientHello(bytes), expected, `records of ${size}`);
  }
});

t.test(
  `whatever arrives, it neither throws nor waits beyond its bound, and more bytes never change an answer (seed ${seed})`,
  async (t) => {
    const base = hello(grease, named, alpn('h2', 'http/1.1'));
    const damaged = fc
      .tuple(
        fc.array(fc.tuple(fc.nat(base.length - 1), fc.nat(255)), { maxLength: 6 }),
        fc.nat(base.length),
        fc.uint8Array({ maxLength: 40 }),
      )
      .map(([changes, cut, tail]) => {
        const bytes = Buffer.from(base);
        for (const [at, value] of changes) bytes[at] = value;
        return Buffer.concat([bytes.subarray(0, cut), tail]);
      });
    fc.assert(
      fc.property(damaged, fc.nat(), (bytes, cut) => {
        const whole = readClientHello(bytes);
        const part = readClientHello(bytes.subarray(0, bytes.length === 0 ? 0 : cut % bytes.length));
        return part === 'more' || JSON.stringify(part) === JSON.stringify(whole);
      }),
      { seed, numRuns: 20_000 },
    );
    const endless = records(
      Buffer.concat([uint(1, 1), uint(3, limits.clientHelloBytesMax), Buffer.alloc(limits.clientHelloBytesMax)]),
      16_384,
    );
    t.not(readClientHello(endless), 'more');
  },
);

/** What a program sends first, in the pieces in which it arrived. */
const captured = async (t: Test, start: (port: number) => void): Promise<Buffer> => {
  const server = createServer((socket) => {
    let bytes = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk) => {
      bytes = Buffer.concat([bytes, chunk]);
      if (readClientHello(bytes) === 'more') return;
      socket.destroy();
      server.emit('hello', bytes);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const heard = once(server, 'hello') as Promise<[Buffer]>;
  start((server.address() as AddressInfo).port);
  return (await heard)[0];
};

const run = promisify(execFile);
const quietly = (program: string, ...args: readonly string[]): void => void run(program, args, { timeout: 20_000 }).catch(() => undefined);

const isThere = async (t: Test, program: string, ...args: readonly string[]): Promise<boolean> => {
  try {
    await run(program, args);
    return true;
  } catch {
    t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], `${program} is installed where clients are required`);
    t.comment(`${program} is not installed here: left out`);
    return false;
  }
};

t.test('the ClientHello of real programs is read', async (t) => {
  const name = 'api.example.com';

  await t.test('Node', async (t) => {
    const bytes = await captured(t, (port) => {
      connectTls({ port, host: '127.0.0.1', servername: name, ALPNProtocols: ['h2', 'http/1.1'] }).on('error', () => undefined);
    });
    t.strictSame(readClientHello(bytes), { serverName: name, alpn: ['h2', 'http/1.1'], hasEncryptedHello: false });
  });

  await t.test('OpenSSL, with a name and without', async (t) => {
    if (!(await isThere(t, 'openssl', 'version'))) return;
    const connect = (port: number, ...args: readonly string[]): void =>
      quietly('openssl', 's_client', '-connect', `127.0.0.1:${port}`, ...args);
    t.strictSame(readClientHello(await captured(t, (port) => connect(port, '-servername', name))), { ...nothing, serverName: name });
    t.strictSame(readClientHello(await captured(t, (port) => connect(port, '-noservername'))), nothing);
    t.strictSame(readClientHello(await captured(t, (port) => connect(port, '-tls1_2', '-servername', name))), {
      ...nothing,
      serverName: name,
    });
  });

  await t.test('curl', async (t) => {
    if (!(await isThere(t, 'curl', '--version'))) return;
    const bytes = await captured(t, (port) =>
      quietly('curl', '--silent', '--resolve', `${name}:${port}:127.0.0.1`, `https://${name}:${port}/`),
    );
    const read = readClientHello(bytes) as ClientHello;
    t.equal(read.serverName, name);
    t.equal(read.alpn.at(-1), 'http/1.1');
  });

  await t.test('Go, with post-quantum keys and with an encrypted hello', async (t) => {
    if (!(await isThere(t, 'go', 'version'))) return;
    const program = join(directoryOf(t), 'hello');
    await run('go', ['build', '-o', program, join(import.meta.dirname, 'client-hello/hello.go')]);
    const plain = await captured(t, (port) => quietly(program, String(port), name, 'plain'));
    t.ok(plain.length > 1_200, `${plain.length} bytes, more than a packet takes`);
    t.strictSame(readClientHello(plain), { serverName: name, alpn: ['h2', 'http/1.1'], hasEncryptedHello: false });
    const encrypted = await captured(t, (port) => quietly(program, String(port), name, 'ech'));
    t.match(readClientHello(encrypted), { serverName: 'outer.example', hasEncryptedHello: true });
  });
});
