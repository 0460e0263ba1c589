import { X509Certificate } from 'node:crypto';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createH2cServer, type ServerHttp2Stream } from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import type { Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, type TlsOptions } from 'node:tls';
import t, { type Test } from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { valuesOf } from '../../src/core/headers.ts';
import { limits } from '../../src/core/limits.ts';
import { Secret } from '../../src/core/secret.ts';
import { spiffeId } from '../../src/core/spiffe-id.ts';
import type { OutboundRequest } from '../../src/net/outbound.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueSvid } from '../../src/pki/svid.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { authority, bodyOf, faultOf, host, listen, outboundFor, requestOf, scripted, send, until, whole } from './outbound/targets.ts';

/** Which engine carries what, over which connection: protocols, keys, TLS, bounds and ends. */

const files = authority.serverFor(host);
const grpc = [['Content-Type', 'application/grpc+proto']] as const;
const call = (changes: Parameters<typeof requestOf>[0] = {}): OutboundRequest =>
  requestOf({ scheme: 'https', method: 'POST', headers: grpc, body: bodyOf(['x']), ...changes });

/** A target over TLS that says what each request came over: 'HTTP/1.1' or 'h2'. */
const speaking = async (t: Test, alpn: readonly string[] | undefined, tls: TlsOptions = {}) => {
  const handshakes: { readonly isReused: boolean; readonly certificate: string; readonly servername: unknown }[] = [];
  const h2 = createH2cServer();
  h2.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => undefined);
    let body = '';
    stream.on('data', (chunk) => {
      body += chunk;
    });
    stream.on('end', () => {
      stream.respond({ ':status': 200, 'x-body': body });
      stream.end('h2');
    });
  });
  const http = createHttpServer((request, response) => {
    request.resume();
    response.end(`HTTP/${request.httpVersion}`);
  });
  http.on('upgrade', (_request, socket) => socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'));
  const server = createTlsServer({ ...files, ...(alpn ? { ALPNProtocols: [...alpn] } : {}), ...tls }, (socket) => {
    handshakes.push({
      isReused: socket.isSessionReused(),
      certificate: socket.getPeerCertificate().fingerprint256 ?? '',
      servername: socket.servername,
    });
    (socket.alpnProtocol === 'h2' ? h2 : http).emit('connection', socket);
  });
  server.on('tlsClientError', () => undefined);
  return { ...(await listen(t, server)), handshakes };
};

t.test('HTTP/1.1 unless the call is gRPC or the target speaks nothing but HTTP/2; what programs speak does not matter', async (t) => {
  const both = await speaking(t, ['h2', 'http/1.1']);
  const outbound = outboundFor(t, both.port);
  t.equal((await whole(outbound, requestOf({ scheme: 'https' }))).text, 'HTTP/1.1');
  t.equal((await whole(outbound, call())).text, 'h2');
  t.equal((await whole(outbound, call({ headers: [['Content-Type', 'application/grpc-web']] }))).text, 'HTTP/1.1');
  t.equal((await whole(outbound, requestOf({ scheme: 'https', connection: { protocol: 'h2' } }))).text, 'h2');
  t.equal((await whole(outbound, requestOf({ scheme: 'https', connection: { protocol: 'http1' } }))).text, 'HTTP/1.1');

  const silent = await speaking(t, undefined);
  t.equal((await whole(outboundFor(t, silent.port), requestOf({ scheme: 'https' }))).text, 'HTTP/1.1', 'no ALPN at all');
});

t.test('a target that refuses HTTP/1.1 is spoken to in HTTP/2, and that is remembered for a while', async (t) => {
  let nowMs = 0;
  const { port, accepted } = await speaking(t, ['h2']);
  const outbound = outboundFor(t, port, { now: () => nowMs });
  const requests = [
    requestOf({ scheme: 'https' }),
    requestOf({ scheme: 'https', method: 'PUT', headers: [['Content-Length', '4']], body: bodyOf(['bo', 'dy']) }),
    requestOf({ scheme: 'https', method: 'PUT', body: bodyOf(['bo', 'dy']), expectsContinue: true }),
  ];
  for (const request of requests) t.equal((await whole(outbound, request)).text, 'h2');
  t.equal(accepted(), 2, 'one was refused');
  nowMs += limits.targetProtocolLearnedMs;
  t.equal((await whole(outbound, requestOf({ scheme: 'https' }))).text, 'h2');
  t.equal(accepted(), 3, 'asked again');

  const many = await speaking(t, ['h2']);
  const busy = outboundFor(t, many.port);
  for (const { text } of await Promise.all(Array.from({ length: 20 }, () => whole(busy, requestOf({ scheme: 'https' })))))
    t.equal(text, 'h2');
  for (const [headers, expectsContinue] of [
    [[['Content-Length', '4']], false],
    [[], false],
    [[], true],
  ] as const) {
    const request = requestOf({ scheme: 'https', method: 'PUT', headers, body: bodyOf(['bo', 'dy']), expectsContinue });
    const { text, headers: answer } = await whole(outboundFor(t, many.port), request);
    t.equal(text, 'h2');
    t.equal(valuesOf(answer, 'x-body')[0], 'body', 'nothing of the body was lost on the connection that was refused');
  }
});

t.test('a target that gave up HTTP/2 meanwhile is spoken to in HTTP/1.1 again', async (t) => {
  let alpn = 'h2';
  const ALPNCallback = ({ protocols }: { protocols: string[] }) => (protocols.includes(alpn) ? alpn : undefined);
  const { port, sockets } = await speaking(t, undefined, { ALPNCallback });
  const outbound = outboundFor(t, port, { patience: { sessionIdleMs: 1 } });
  t.equal((await whole(outbound, requestOf({ scheme: 'https' }))).text, 'h2');
  alpn = 'http/1.1';
  await until(() => sockets.size === 0);
  t.equal((await whole(outbound, requestOf({ scheme: 'https' }))).text, 'HTTP/1.1');
});

t.test('what a target does not speak has a code, and nothing of the request is sent', async (t) => {
  const h2Only = await speaking(t, ['h2']);
  const h1Only = await speaking(t, ['http/1.1']);
  const silent = await speaking(t, undefined);
  const protocol = (wanted: 'http1' | 'h2') => ({ connection: { protocol: wanted } });
  const cases: [number, OutboundRequest, string][] = [
    [h1Only.port, call(), 'gRPC to HTTP/1.1 only'],
    [silent.port, call(), 'gRPC to no ALPN'],
    [h1Only.port, requestOf({ scheme: 'https', ...protocol('h2') }), 'h2 to HTTP/1.1 only'],
    [silent.port, requestOf({ scheme: 'https', ...protocol('h2') }), 'h2 to no ALPN'],
    [h2Only.port, requestOf({ scheme: 'https', ...protocol('http1') }), 'http1 to HTTP/2 only'],
    [h2Only.port, requestOf({ scheme: 'https', upgrade: 'x' }), 'an upgrade to HTTP/2 only'],
    [h2Only.port, requestOf({ scheme: 'https', upgrade: 'x', ...protocol('h2') }), 'an upgrade where h2 is configured'],
    [h1Only.port, call(protocol('http1')), 'gRPC where http1 is configured'],
    [h1Only.port, call({ upgrade: 'x' }), 'gRPC that wants to change protocols'],
  ];
  for (const [port, request, what] of cases) t.equal(await faultOf(outboundFor(t, port), request), 'target_protocol', what);
});

t.test('gRPC in clear text is HTTP/2 by prior knowledge, an upgrade over TLS is HTTP/1.1', async (t) => {
  const server = createH2cServer();
  server.on('stream', (stream) => {
    stream.respond({ ':status': 200 });
    stream.end('h2');
  });
  const plain = await listen(t, server);
  t.equal((await whole(outboundFor(t, plain.port), call({ scheme: 'http' }))).text, 'h2');
  const { port, sockets } = await speaking(t, ['h2', 'http/1.1']);
  const { target } = await whole(outboundFor(t, port), requestOf({ scheme: 'https', upgrade: 'x' }));
  target?.destroy();
  await until(() => sockets.size === 0);
});

t.test('connections are shared by requests that are equal in every term, and by no others', async (t) => {
  const { port, accepted } = await speaking(t, ['http/1.1', 'h2']);
  const outbound = outboundFor(t, port);
  const one = requestOf({ scheme: 'https' });
  const clientCertificate = { pem: new Secret(clientOf().pem), fingerprint: 'a' };
  const others: OutboundRequest[] = [
    { ...one, dialPolicy: { privateAllowed: false, named: ['127.0.0.1'] } },
    { ...one, dialPolicy: { privateAllowed: true, named: ['127.0.0.1'] } },
    { ...one, address: { address: '127.0.0.1', port } },
    { ...one, connection: { ...one.connection, trustBundlePem: authority.pem } },
    { ...one, connection: { ...one.connection, tlsVersionMin: 'TLSv1.3' } },
    { ...one, connection: { ...one.connection, protocol: 'http1' } },
    { ...one, connection: { ...one.connection, clientCertificate } },
    { ...one, connection: { ...one.connection, clientCertificate: { ...clientCertificate, fingerprint: 'b' } } },
  ];
  for (let round = 0; round < 2; round += 1) {
    for (const request of [one, ...others]) t.equal((await whole(outbound, request)).status, 200);
    t.equal(accepted(), 1 + others.length);
  }
});

t.test('of a thousand requests for two identities each goes out as its own, and each connection carries one of them', async (t) => {
  const trusted = clientsAuthority();
  const clients = [clientOf(trusted), clientOf(trusted)];
  const bySocket = new Map<Socket, Set<string>>();
  const server = createHttpsServer({ ...files, requestCert: true, ca: trusted.certificatePem }, (request, response) => {
    const socket = request.socket as TLSSocket;
    const seen = bySocket.get(socket) ?? new Set<string>();
    bySocket.set(socket, seen.add(request.headers['x-identity'] as string));
    response.end(socket.getPeerCertificate().fingerprint256);
  });
  const { port } = await listen(t, server);
  const outbound = outboundFor(t, port);
  const one = async (i: number): Promise<void> => {
    const { pem, fingerprint } = clients[i % 2] as ReturnType<typeof clientOf>;
    const clientCertificate = { pem: new Secret(pem), fingerprint };
    const request = requestOf({ scheme: 'https', headers: [['X-Identity', fingerprint]], connection: { clientCertificate } });
    if ((await whole(outbound, request)).text !== fingerprint) t.fail(`request ${i} went out as somebody else`);
  };
  // A hundred at a time: each is a handshake that this one process makes both sides of.
  for (let i = 0; i < 1_000; i += 100) await Promise.all(Array.from({ length: 100 }, (_, j) => one(i + j)));
  t.equal(bySocket.size > 1, true);
  t.ok([...bySocket.values()].every((seen) => seen.size === 1));
});

t.test('the second connection to a target resumes the first one, and with other terms none is resumed', async (t) => {
  const { port, handshakes } = await speaking(t, ['h2', 'http/1.1']);
  const outbound = outboundFor(t, port);
  const closing = requestOf({ scheme: 'https', upgrade: 'x' });
  for (let i = 0; i < 2; i += 1) (await whole(outbound, closing)).target?.destroy();
  await whole(outbound, call());
  t.strictSame(
    handshakes.map(({ isReused }) => isReused),
    [false, true, true],
  );
  (await whole(outbound, { ...closing, connection: { ...closing.connection, trustBundlePem: authority.pem } })).target?.destroy();
  t.equal(handshakes[3]?.isReused, false);
  t.equal(handshakes[0]?.servername, host);
});

const trustDomain = 'clients.outrider.test';
const clientsAuthority = () =>
  createAuthority({
    commonName: 'Test authority of clients',
    key: createKeyPair(),
    nowMs: Date.now(),
    lifetimeMs: 3_600_000,
    spiffeTrustDomain: trustDomain,
  });
const clientOf = (by = clientsAuthority()) => {
  const key = createKeyPair();
  const { pem } = issueSvid(by, {
    spiffeId: spiffeId(trustDomain, 'client'),
    publicKey: key.publicKey,
    usages: ['clientAuth'],
    nowMs: Date.now(),
    lifetimeMs: 3_600_000,
  });
  return {
    pem: pem + (key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string),
    fingerprint: new X509Certificate(pem).fingerprint256,
  };
};

t.test('the client certificate is shown when there is one, and what is wrong with it is said', async (t) => {
  const trusted = clientsAuthority();
  const { pem, fingerprint } = clientOf(trusted);
  const stranger = clientOf();
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const { port, handshakes } = await speaking(t, ['h2', 'http/1.1'], { requestCert: true, ca: trusted.certificatePem, maxVersion });
    const outbound = outboundFor(t, port);
    const withCertificate = (text: string, print: string) => ({
      connection: { clientCertificate: { pem: new Secret(text), fingerprint: print } },
    });
    const shown = withCertificate(pem, fingerprint);
    t.equal((await whole(outbound, requestOf({ scheme: 'https', ...shown }))).text, 'HTTP/1.1');
    t.equal((await whole(outbound, call(shown))).text, 'h2');
    t.strictSame(
      handshakes.map(({ certificate }) => certificate),
      [fingerprint, fingerprint],
    );
    for (const make of [(rest: object) => requestOf({ scheme: 'https', ...rest }), (rest: object) => call(rest)]) {
      t.equal(await faultOf(outbound, make({})), 'target_tls_failed', `${maxVersion}: none`);
      // Node's server ends such a connection without an alert.
      const refused = await faultOf(outbound, make(withCertificate(stranger.pem, 's')));
      t.ok(['target_tls_failed', 'target_closed'].includes(refused), `${maxVersion}: one of a stranger: ${refused}`);
      t.equal(await faultOf(outbound, make(withCertificate('no PEM', 'n'))), 'credential_invalid');
      t.equal(
        await faultOf(outbound, make(withCertificate(pem.replace(/^-----BEGIN CERT[^]*?END CERTIFICATE-----\n/, ''), 'k'))),
        'credential_invalid',
      );
      const foreignKey = pem.slice(0, pem.indexOf('-----BEGIN PRIV')) + stranger.pem.slice(stranger.pem.indexOf('-----BEGIN PRIV'));
      t.equal(await faultOf(outbound, make(withCertificate(foreignKey, 'f'))), 'credential_invalid');
    }
    const { fault } = await send(outbound, requestOf({ scheme: 'https', ...withCertificate('secret-key', 'x') })).ended;
    t.notMatch(`${fault?.message} ${fault?.detail}`, /secret-key/);
  }
});

t.test('a target below the least TLS version that is asked for is not spoken to', async (t) => {
  const { port } = await speaking(t, ['http/1.1'], { maxVersion: 'TLSv1.2' });
  const outbound = outboundFor(t, port);
  t.equal((await whole(outbound, requestOf({ scheme: 'https' }))).status, 200);
  t.equal(await faultOf(outbound, requestOf({ scheme: 'https', connection: { tlsVersionMin: 'TLSv1.3' } })), 'target_tls_failed');
});

t.test('a target is trusted by the bundle that its terms name, or by the store of the proxy when they name none', async (t) => {
  const other = createTestAuthority('Another test authority');
  const { port } = await speaking(t, ['http/1.1'], other.serverFor(host));
  const outbound = outboundFor(t, port);
  t.equal(await faultOf(outbound, requestOf({ scheme: 'https' })), 'target_certificate_invalid');
  t.equal((await whole(outbound, requestOf({ scheme: 'https', connection: { trustBundlePem: other.pem } }))).status, 200);
});

t.test('a fixed address is dialled instead of what the name resolves to', async (t) => {
  const there = await speaking(t, ['http/1.1']);
  const here = await speaking(t, ['http/1.1']);
  const request = requestOf({ scheme: 'https', address: { address: '127.0.0.1', port: there.port } });
  t.equal((await whole(outboundFor(t, here.port), request)).status, 200);
  t.strictSame([there.accepted(), here.accepted()], [1, 0]);
});

t.test('more requests than may wait are refused, whatever carries them; those that wait are served', async (t) => {
  const held: ((text: string) => void)[] = [];
  const server = createHttpServer((request, response) => {
    request.resume();
    held.push((text) => response.end(text));
  });
  const { port } = await listen(t, server);
  const outbound = outboundFor(t, port);
  const most = limits.targetConnectionsMax + limits.targetQueueMax;
  const waiting = Array.from({ length: most }, () => send(outbound, requestOf()));
  t.equal(await faultOf(outbound, requestOf()), 'overloaded');
  t.equal(await faultOf(outbound, requestOf({ method: 'POST', body: bodyOf(['x']) })), 'overloaded');
  t.equal(await faultOf(outbound, requestOf({ upgrade: 'x' })), 'overloaded');
  for (const one of waiting.slice(1)) one.sending.abort(new Fault('client_closed'));
  await until(() => held.length > 0);
  for (const answer of held) answer('ok');
  t.equal((await waiting[0]?.ended)?.fault, undefined);
});

t.test('programs that leave leave no connection behind, whichever engine and wherever they leave', async (t) => {
  const gone = new Fault('client_closed');
  const endless = () =>
    bodyOf(
      (async function* () {
        yield Buffer.from('x');
        await new Promise(() => undefined);
      })(),
    );
  const answers = { nothing: '', half: 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf' };
  for (const [what, bytes] of Object.entries(answers)) {
    const { port, sockets, accepted } = await listen(t, scripted(bytes));
    const outbound = outboundFor(t, port);
    const requests = [
      requestOf(),
      requestOf({ method: 'PUT', headers: [['Content-Length', '9']], body: endless() }),
      requestOf({ method: 'PUT', body: endless() }),
      requestOf({ method: 'PUT', body: endless(), expectsContinue: true }),
      requestOf({ upgrade: 'x' }),
    ];
    const sent = requests.map((request) => send(outbound, request));
    if (bytes === '') await until(() => accepted() === requests.length);
    else await until(() => sent.every(({ bytes: received }) => received > 0));
    for (const { sending } of sent) sending.abort(gone);
    for (const { ended } of sent) t.equal((await ended).fault, gone, what);
    await until(() => sockets.size === 0);

    // While they are being dialled: what comes to be open is closed when it has been idle.
    const dialling = outboundFor(t, port, { patience: { keepAliveMs: 50 } });
    for (const request of requests.slice(0, 1).concat(requestOf({ upgrade: 'x' }))) send(dialling, request).sending.abort(gone);
    await dialling.close();
    await until(() => sockets.size === 0);
  }
});

t.test('closing ends all that is open, joined connections included, and leaves nothing', async (t) => {
  const { port, sockets } = await speaking(t, ['h2', 'http/1.1']);
  const outbound = outboundFor(t, port);
  const { target } = await whole(outbound, requestOf({ scheme: 'https', upgrade: 'x' }));
  await whole(outbound, requestOf({ scheme: 'https' }));
  await whole(outbound, requestOf({ scheme: 'https', method: 'PUT', body: bodyOf(['x']) }));
  await whole(outbound, call());
  await until(() => sockets.size === 4);
  await outbound.close();
  t.ok(target?.destroyed);
  await until(() => sockets.size === 0);

  const dialling = [
    requestOf({ scheme: 'https' }),
    requestOf({ scheme: 'https', method: 'PUT', body: bodyOf(['x']) }),
    requestOf({ scheme: 'https', upgrade: 'x' }),
    call(),
  ].map((request) => send(outbound, request));
  await outbound.close();
  for (const { ended } of dialling) t.equal((await ended).fault?.code, 'target_closed');
  await until(() => sockets.size === 0);
});

t.test(
  'the destination that was not used for longest is given up when there are too many; what is under way on it ends well',
  async (t) => {
    const held: (() => void)[] = [];
    const server = createHttpServer((request, response) => {
      request.resume();
      if (request.url === '/') return void response.end();
      response.write('first ');
      held.push(() => response.end('last'));
    });
    const h2 = createH2cServer();
    h2.on('stream', (stream) => {
      stream.on('error', () => undefined);
      stream.respond({ ':status': 200 });
      stream.write('first ');
      held.push(() => stream.end('last'));
    });
    const target = await listen(t, server);
    const h2Target = await listen(t, h2);
    const outbound = outboundFor(t, target.port, { patience: { keepAliveMs: 60_000 } });
    const at = (port: number) => ({ address: { address: '127.0.0.1', port } });
    const old = [
      requestOf({ path: '/held', ...at(target.port) }),
      requestOf({ path: '/held', method: 'POST', body: bodyOf(['x']), ...at(target.port) }),
      call({ scheme: 'http', ...at(h2Target.port) }),
    ].map((request) => send(outbound, request));
    await until(() => old.every(({ bytes }) => bytes > 0));
    await whole(outbound, requestOf(at(target.port)));
    t.equal(target.sockets.size, 3, 'two under way, one idle');
    const others = Array.from({ length: limits.targetPoolsMax }, (_, i) => ({ privateAllowed: true, named: [`192.0.2.${i}`] }));
    for (const dialPolicy of others) await whole(outbound, requestOf({ dialPolicy }));
    await until(() => target.sockets.size === 2 + others.length);
    for (const finish of held) finish();
    for (const one of old) {
      t.equal((await one.ended).fault, undefined);
      t.equal(one.text, 'first last');
    }
    await until(() => target.sockets.size === others.length && h2Target.sockets.size === 0);
    await outbound.close();
    await until(() => target.sockets.size === 0);
  },
);
