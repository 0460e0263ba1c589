import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer as createHttpsServer } from 'node:https';
import type { RequestListener } from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { mock } from 'node:test';
import { createSecureContext, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { inspect } from 'node:util';
import type { Duplex } from 'node:stream';
import t, { type Test } from 'tap';
import type { Destination } from '../../src/core/destination.ts';
import { Fault } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { type ProxyChain, proxyCredentialFile } from '../../src/net/chain.ts';
import { createDialer, createResolver, type Dialer, type PinnedAddress, type TlsTerms } from '../../src/net/dial.ts';
import { noProxy } from '../../src/net/no-proxy.ts';
import { type ConnectProxy, type ConnectProxyOptions, startConnectProxy } from '../fakes/connect-proxy.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { freePort } from '../support/free-port.ts';
import { host, listen, outboundFor, requestOf, send } from './outbound/targets.ts';

const authority = createTestAuthority();
const name = 'service.outrider.test';
const policy = { privateAllowed: false, named: [] };
const password = 'p:ss wörd-7d41';
const credential = `corp-user:${password}`;
const tls: TlsTerms = { secureContext: createSecureContext({ ca: authority.pem }), alpn: ['http/1.1'], versionMin: 'TLSv1.2' };

interface Target {
  readonly port: number;
  readonly where: { readonly host: string; readonly port: number };
  /** All that was received, over all connections. */
  readonly received: () => string;
}

const startTarget = async (t: Test, server: Server, greet: string): Promise<Target> => {
  let received = '';
  const sockets = new Set<Socket>();
  const serve = (socket: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => undefined).on('data', (chunk) => (received += String(chunk)));
    socket.write(greet);
  };
  server.on(server.listenerCount('tlsClientError') > 0 ? 'secureConnection' : 'connection', serve);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { port, where: { host: '127.0.0.1', port }, received: () => received };
};
const startPlain = (t: Test): Promise<Target> => startTarget(t, createServer(), 'plain');
const startSecure = (t: Test, provenName = name): Promise<Target> =>
  startTarget(
    t,
    createTlsServer(authority.serverFor(provenName)).on('tlsClientError', () => undefined),
    'secure',
  );

const startProxy = async (t: Test, options: ConnectProxyOptions): Promise<ConnectProxy> => {
  const proxy = await startConnectProxy(options);
  t.teardown(() => proxy.close());
  return proxy;
};

interface Parts extends Partial<Omit<ProxyChain, 'noProxy'>> {
  readonly noProxy?: string;
  readonly pins?: readonly PinnedAddress[];
  readonly own?: number;
}

/** A dialer whose own resolver knows nothing: a name that it is asked for fails, and is noted. */
const through = ({ port }: { readonly port: number }, parts: Parts = {}): { dialer: Dialer; asked: string[] } => {
  const asked: string[] = [];
  const lookup = async (host: string): Promise<readonly string[]> => {
    asked.push(host);
    return host === 'proxy.outrider.test' ? ['127.0.0.1'] : [];
  };
  const resolver = createResolver(parts.pins ?? [], (candidate) => candidate.port === parts.own, lookup);
  const chain: ProxyChain = {
    proxy: { scheme: 'http', host: 'proxy.outrider.test', port },
    credential: () => undefined,
    trustPems: [authority.pem],
    ...parts,
    noProxy: noProxy(parts.noProxy ?? ''),
  };
  return { dialer: createDialer({ resolver, chain }), asked };
};

const https = (port: number, host = name): Destination => ({ scheme: 'https', host, port });
const http = (port: number, host = name): Destination => ({ scheme: 'http', host, port });

/** What arrives until there are as many characters; shorter when the connection ends. */
const firstBytes = (socket: Socket, count: number): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = '';
    socket.on('data', (chunk) => {
      text += String(chunk);
      if (text.length >= count) resolve(text);
    });
    socket.once('error', reject).once('close', () => resolve(text));
  });

const until = async (isSo: () => boolean): Promise<void> => {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 2));
};

const faultOf = async (opening: Promise<unknown>): Promise<Fault> => {
  const thrown = await opening.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(thrown instanceof Fault)) throw new Error('no fault', { cause: thrown });
  return thrown;
};

for (const scheme of ['http', 'https'] as const) {
  t.test(`${scheme} and https destinations and tunnels go through an ${scheme} proxy, by name and unresolved`, async (t) => {
    const [plain, secure] = [await startPlain(t), await startSecure(t)];
    const files = scheme === 'https' ? { files: authority.serverFor('proxy.outrider.test') } : {};
    const proxy = await startProxy(t, { ...files, to: (authorityAsked) => (authorityAsked === `${name}:80` ? plain : secure).where });
    const { dialer, asked } = through(proxy, { proxy: { scheme, host: 'proxy.outrider.test', port: proxy.port } });
    const overTls = await dialer.open(https(443), policy, tls);
    t.equal(await firstBytes(overTls.socket, 6), 'secure');
    t.equal((overTls.socket as TLSSocket).authorized, true, 'the target proves its name through both');
    const clear = await dialer.open(http(80), policy, undefined);
    t.equal(await firstBytes(clear.socket, 5), 'plain');
    clear.socket.write('to the target');
    await until(() => plain.received() === 'to the target');
    t.strictSame(
      proxy.asked.map(({ method, url, rawHeaders }) => [method, url, rawHeaders]),
      [
        ['CONNECT', `${name}:443`, ['Host', `${name}:443`]],
        ['CONNECT', `${name}:80`, ['Host', `${name}:80`]],
      ],
    );
    t.strictSame([...new Set(asked)], ['proxy.outrider.test'], 'only the proxy was looked up');
    overTls.socket.destroy();
    clear.socket.destroy();
    await until(() => proxy.open() === 0);
  });
}

t.test('the proxy is given its credential, read anew for each connection, and nobody else is', async (t) => {
  const target = await startPlain(t);
  const file = join(directoryOf(t, { credential: 'corp-user:old\n' }), 'credential');
  const proxy = await startProxy(t, { credential, to: () => target.where });
  const { dialer } = through(proxy, { credential: proxyCredentialFile(file) });
  const refused = await faultOf(dialer.open(http(80), policy, undefined));
  t.match(refused, { code: 'upstream_proxy_refused', detail: 'It answered with status 407.' });
  writeFileSync(file, credential);
  const { socket } = await dialer.open(http(80), policy, undefined);
  t.equal(await firstBytes(socket, 5), 'plain');
  socket.end('bytes of the program');
  await until(() => target.received().endsWith('program'));
  t.equal(target.received(), 'bytes of the program');
  t.strictSame(proxy.asked[1]?.rawHeaders.slice(2), ['Proxy-Authorization', `Basic ${Buffer.from(credential).toString('base64')}`]);
  const told = inspect(refused, { depth: 10, showHidden: true });
  for (const secret of ['old', Buffer.from('corp-user:old').toString('base64')]) t.notMatch(told, secret);
});

t.test('requests keep their credential from the proxy, and the proxy its own from the targets', async (t) => {
  const heads: string[] = [];
  const answer: RequestListener = (request, response) => {
    heads.push(inspect(request.rawHeaders));
    response.end('answered');
  };
  const target = await listen(t, createHttpsServer(authority.serverFor(host), answer));
  const carried: string[] = [];
  const proxy = await startProxy(t, {
    credential,
    answer: (socket) => {
      const onward = connect({ host: '127.0.0.1', port: target.port }, () => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        socket.on('data', (chunk: Buffer) => carried.push(chunk.toString('latin1'))).pipe(onward);
        onward.pipe(socket);
      });
      onward.on('error', () => socket.destroy());
    },
  });
  const { dialer } = through(proxy, { credential: () => new Secret(credential) });
  const outbound = outboundFor(t, 0, { dialer, trustPems: [authority.pem] });
  for (let i = 0; i < 3; i += 1) {
    const received = send(outbound, requestOf({ scheme: 'https', headers: [['authorization', 'Bearer for-the-target']] }));
    t.equal((await received.ended).fault, undefined);
    t.equal(received.text, 'answered');
  }
  t.equal(heads.length, 3);
  for (const head of heads) {
    t.match(head, 'Bearer for-the-target');
    t.notMatch(head, /proxy|corp-user|Basic/i);
  }
  t.ok(proxy.asked.length < 3, 'a tunnel is kept for further requests');
  t.notMatch(inspect(proxy.asked), 'for-the-target');
  t.ok(carried.length > 0);
  t.notMatch(carried.join(''), 'for-the-target');
});

t.test('a credential that cannot be read or written is told as such, and nothing is sent', async (t) => {
  const proxy = await startProxy(t, {});
  const dir = directoryOf(t, { long: 'u:'.padEnd(limits.credentialBytesMax + 1, 'x') });
  const unreadable = { code: 'upstream_proxy_refused', detail: 'The credentials for it cannot be read.' };
  for (const file of ['missing', 'long', '.']) {
    const { dialer } = through(proxy, { credential: proxyCredentialFile(join(dir, file)) });
    t.match(await faultOf(dialer.open(http(80), policy, undefined)), unreadable, file);
  }
  for (const written of ['', 'mallory', ':mallory', 'mallory:x\r\nX-Injected: 1', 'mallory:x\nmallory', 'mallory\t:x']) {
    const { dialer } = through(proxy, { credential: () => new Secret(written) });
    const fault = await faultOf(dialer.open(http(80), policy, undefined));
    t.match(fault, { code: 'upstream_proxy_refused', detail: 'The credentials for it are not one line of user:password.' });
    t.notMatch(inspect(fault, { depth: 10 }), 'mallory');
  }
  t.strictSame(proxy.asked, []);
  await until(() => proxy.open() === 0);
});

/** [what the proxy does, the fault, its detail] */
const misbehaviour: readonly (readonly [string, (socket: Duplex) => void, Fault['code'], string])[] = [
  ...[301, 400, 403, 407, 500, 502, 504].map(
    (status) =>
      [
        `answers ${status}`,
        (socket: Duplex) => void socket.end(`HTTP/1.1 ${status} Ask mallory@evil.test\r\nX-Hint: mallory\r\n\r\n<a>mallory</a>`),
        'upstream_proxy_refused',
        `It answered with status ${status}.`,
      ] as const,
  ),
  ['answers 101', (socket) => void socket.write('HTTP/1.1 101 mallory\r\n\r\n'), 'upstream_proxy_refused', 'It answered with status 101.'],
  [
    'never comes to the point',
    (socket) => void socket.write('HTTP/1.1 100 mallory\r\n\r\n'.repeat(limits.informationalResponsesMax + 1)),
    'upstream_proxy_refused',
    'It answered with status 100.',
  ],
  [
    'speaks something else',
    (socket) => void socket.write('SSH-2.0-mallory\r\n\r\n'),
    'upstream_proxy_refused',
    'Its answer is not HTTP/1.',
  ],
  [
    'has a status of its own',
    (socket) => void socket.write('HTTP/1.1 2000 OK\r\n\r\n'),
    'upstream_proxy_refused',
    'Its answer is not HTTP/1.',
  ],
  ['speaks HTTP/2', (socket) => void socket.write('HTTP/2 200\r\n\r\n'), 'upstream_proxy_refused', 'Its answer is not HTTP/1.'],
  ['closes', (socket) => void socket.end(), 'upstream_proxy_unreachable', 'It closed the connection before it answered.'],
  [
    'closes in the middle',
    (socket) => void socket.end('HTTP/1.1 200 OK\r\nX: mallory'),
    'upstream_proxy_unreachable',
    'It closed the connection before it answered.',
  ],
  [
    'floods',
    (socket) => {
      const flood = (): void => {
        while (!socket.destroyed && socket.write(`X-Flood: ${'mallory'.repeat(100)}\r\n`));
        socket.once('drain', flood);
      };
      socket.write('HTTP/1.1 200 OK\r\n');
      flood();
    },
    'upstream_proxy_refused',
    'The head of its answer is too large.',
  ],
  [
    'ends its flood',
    (socket) => void socket.write(`HTTP/1.1 200 OK\r\nX: ${'mallory'.padEnd(limits.headerBytesMax, 'x')}\r\n\r\n`),
    'upstream_proxy_refused',
    'The head of its answer is too large.',
  ],
];

for (const [what, answer, code, detail] of misbehaviour) {
  t.test(`a proxy that ${what}: nothing it chose is shown, and no connection is left`, async (t) => {
    const proxy = await startProxy(t, { answer });
    const { dialer } = through(proxy, { credential: () => new Secret(credential) });
    const fault = await faultOf(dialer.open(https(443), policy, tls));
    t.equal(fault.code, code);
    t.equal(fault.detail, detail);
    const told = inspect(fault, { depth: 10, showHidden: true });
    for (const word of ['mallory', password, Buffer.from(credential).toString('base64')]) t.notMatch(told, word);
    await until(() => proxy.open() === 0);
  });
}

t.test('a proxy that says nothing is given up by a deadline, one that says it slowly is not', async (t) => {
  let heard = (): void => undefined;
  const asked = new Promise<void>((resolve) => (heard = resolve));
  const silent = await startProxy(t, { answer: () => heard() });
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
  const opening = faultOf(through(silent).dialer.open(http(80), policy, undefined));
  await asked;
  mock.timers.tick(limits.upstreamProxyAnswerTimeoutMs);
  t.match(await opening, { code: 'upstream_proxy_unreachable', detail: 'It did not answer in time.' });
  mock.timers.reset();
  await until(() => silent.open() === 0);

  const piecemeal = await startProxy(t, {
    answer: (socket) => {
      const rest = 'HTTP/1.0 200 \r\nA: b\r\n\r\nhello'.split('');
      const next = (): void => {
        const piece = rest.shift();
        if (piece !== undefined) socket.write(piece, () => setImmediate(next));
      };
      next();
    },
  });
  const { socket } = await through(piecemeal).dialer.open(http(80), policy, undefined);
  t.equal(await firstBytes(socket, 5), 'hello');
  socket.destroy();
});

t.test('what follows the head of a 2xx is the first of the tunnel, whatever the head says of a length', async (t) => {
  for (const head of [
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n',
    'HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n',
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n',
    'HTTP/1.0 299\r\n\r\n',
  ]) {
    const proxy = await startProxy(t, { answer: (socket) => void socket.write(`${head}220 mail.outrider.test\r\n`) });
    const { socket } = await through(proxy).dialer.open(http(25), policy, undefined);
    t.equal(await firstBytes(socket, 24), '220 mail.outrider.test\r\n', head);
    socket.destroy();
  }
});

t.test('a proxy that opens a tunnel to nowhere is the failure of the target behind it', async (t) => {
  const ends = await startProxy(t, { answer: (socket) => void socket.end('HTTP/1.1 200 OK\r\n\r\n') });
  const { dialer } = through(ends);
  t.match(await faultOf(dialer.open(https(443), policy, tls)), { code: 'target_tls_failed' });
  const { socket } = await dialer.open(http(80), policy, undefined);
  t.equal(await firstBytes(socket, 1), '', 'without TLS the tunnel just ends');
  const speaks = await startProxy(t, { answer: (socket) => void socket.write('HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n') });
  t.match(await faultOf(through(speaks).dialer.open(https(443), policy, tls)), {
    code: 'target_tls_failed',
    detail: 'It did not answer with TLS.',
  });
  const other = await startSecure(t, 'other.outrider.test');
  const elsewhere = await startProxy(t, { to: () => other.where });
  t.match(await faultOf(through(elsewhere).dialer.open(https(443), policy, tls)), { code: 'target_certificate_invalid' });
  for (const proxy of [ends, speaks, elsewhere]) await until(() => proxy.open() === 0);
});

t.test('a proxy that cannot be reached or does not prove its name is told from a target that does not', async (t) => {
  const port = await freePort();
  const unreachable = (detail: string): object => ({ code: 'upstream_proxy_unreachable', detail });
  const open = (parts: Parts): Promise<Fault> => faultOf(through({ port }, parts).dialer.open(https(443), policy, tls));
  t.match(await open({}), unreachable('It refused the connection.'));
  t.match(await open({ proxy: { scheme: 'http', host: 'unknown.test', port } }), unreachable('Its name cannot be resolved.'));
  t.match(await open({ own: port }), unreachable('It is not dialled. It is this proxy itself.'));
  t.match(
    await open({ proxy: { scheme: 'http', host: '169.254.169.254', port } }),
    unreachable('It is not dialled. The address is a metadata one.'),
  );
  const proxy = await startProxy(t, { files: authority.serverFor('proxy.outrider.test') });
  const proven = { scheme: 'https', host: 'proxy.outrider.test', port: proxy.port } as const;
  t.match(
    await open({ proxy: { ...proven, host: '127.0.0.1' } }),
    unreachable('Its certificate is not valid for its name. The check failed with ERR_TLS_CERT_ALTNAME_INVALID.'),
  );
  t.match(await open({ proxy: proven, trustPems: [] }), { code: 'upstream_proxy_unreachable', detail: /^Its certificate is not valid/ });
  t.match(await open({ proxy: { ...proven, scheme: 'http' } }), { code: 'upstream_proxy_unreachable' });
  t.strictSame(proxy.asked, []);
});

t.test('what NO_PROXY names and what the operator pins is dialled directly', async (t) => {
  const target = await startPlain(t);
  const proxy = await startProxy(t, {});
  const pin: PinnedAddress = { host: name, port: 80, address: '127.0.0.1', addressPort: target.port };
  const { dialer } = through(proxy, { pins: [pin], noProxy: 'internal.test, 10.0.0.0/8' });
  const { socket } = await dialer.open(http(80), policy, undefined);
  t.equal(await firstBytes(socket, 5), 'plain');
  socket.destroy();
  const { dialer: direct, asked } = through(proxy, { noProxy: '.internal.test' });
  t.match(await faultOf(direct.open(http(80, 'app.internal.test'), policy, undefined)), { code: 'target_unresolved' });
  t.strictSame(asked, ['app.internal.test'], 'resolved here, as it is dialled from here');
  t.strictSame(proxy.asked, []);
  t.match(await faultOf(dialer.open(http(8080), policy, undefined)), { code: 'upstream_proxy_refused' }, 'a pin is for one port');
});

t.test('an address is judged before the proxy is asked for it', async (t) => {
  const target = await startPlain(t);
  const proxy = await startProxy(t, { to: () => target.where });
  const { dialer } = through(proxy);
  for (const host of ['10.0.0.1', '169.254.169.254', '127.0.0.1', '::1', '::ffff:10.0.0.1', '0.0.0.0', 'fe80::1'])
    t.match(await faultOf(dialer.open(http(80, host), policy, undefined)), { code: 'destination_prohibited' }, host);
  t.strictSame(proxy.asked, []);
  for (const host of ['10.0.0.1', 'fd00::1', '93.184.215.14']) {
    const { socket } = await dialer.open(http(80, host), { privateAllowed: true, named: [] }, undefined);
    socket.destroy();
  }
  t.strictSame(
    proxy.asked.map(({ url }) => url),
    ['10.0.0.1:80', '[fd00::1]:80', '93.184.215.14:80'],
  );
});

t.test('what means something on this machine alone is never asked of the proxy, even where it may be dialled', async (t) => {
  const target = await startPlain(t);
  const proxy = await startProxy(t, { to: () => target.where });
  const { dialer } = through(proxy);
  const named = { privateAllowed: true, named: ['127.0.0.1'] };
  const { socket } = await dialer.open(http(target.port, '127.0.0.1'), named, undefined);
  t.equal(await firstBytes(socket, 5), 'plain');
  socket.destroy();
  for (const host of ['localhost', 'app.localhost'])
    t.match(await faultOf(dialer.open(http(80, host), named, undefined)), { code: 'target_unresolved' }, host);
  t.strictSame(proxy.asked, []);
});

t.test('where a program was going by itself, the proxy is asked for that address; names and ranges leave it out', async (t) => {
  const target = await startPlain(t);
  const proxy = await startProxy(t, { to: () => target.where });
  const fixed = { address: '203.0.113.7', port: 5432 };
  const { dialer } = through(proxy, { pins: [{ host: name, port: 80, address: '127.0.0.1', addressPort: 1 }], own: 15_001 });
  const { socket } = await dialer.open(http(80), policy, undefined, fixed);
  t.equal(await firstBytes(socket, 5), 'plain');
  socket.destroy();
  t.strictSame(
    proxy.asked.map(({ url }) => url),
    ['203.0.113.7:5432'],
  );
  t.match(await faultOf(dialer.open(http(80), policy, undefined, { ...fixed, port: 15_001 })), { code: 'destination_prohibited' });
  for (const leftOut of ['127.0.0.0/8', name]) {
    const around = through(proxy, { noProxy: leftOut });
    const { socket: direct } = await around.dialer.open(http(80), policy, undefined, { address: '127.0.0.1', port: target.port });
    t.equal(await firstBytes(direct, 5), 'plain', leftOut);
    direct.destroy();
  }
  t.equal(proxy.asked.length, 1);
});
