import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueLeaf } from '../../src/pki/leaf.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { dial, exchange, startPath, target, wholeResponse } from '../support/path.ts';

/** What a target can do wrong, each with its code, status, metric and one outcome; nothing hangs and nothing is taken for whole. */
const authority = createTestAuthority();
const host = 'echo.outrider.test';

const listen = async (t: Test, server: Server): Promise<number> => {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => sockets.delete(socket));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
};

const pathTo = async (t: Test, addressPort: number, address = '127.0.0.1') => {
  const path = await startPath({
    dir: t.testdir(),
    targets: [target('echo')],
    pins: [80, 443].map((port) => ({ host, port, address, addressPort })),
    trustPem: authority.pem,
  });
  t.teardown(() => path.close());
  return path;
};

/** An origin that answers every request head with these bytes, then does what `after` says. */
const scripted = (bytes: string, after: (socket: Socket) => void = () => undefined): Server =>
  createServer((socket) => {
    socket.once('data', () => {
      socket.write(bytes, 'latin1', () => after(socket));
    });
  });

const get = (scheme: string): string => `GET ${scheme}://${host}/x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;

/** Interim answers before the final one. */
const interim = /^(?:HTTP\/1\.1 1\d\d [^]*?\r\n\r\n)+/;

const expectFault = async (t: Test, port: number, scheme: 'http' | 'https', status: number, code: string): Promise<void> => {
  const path = await pathTo(t, port);
  const isFinal = (text: string): boolean => wholeResponse(text.replace(interim, ''));
  const whole = await exchange(await dial(path.port), get(scheme), isFinal);
  t.ok((whole.match(/^HTTP\/1\.1 1/gm) ?? []).length <= limits.informationalResponsesMax, 'interim answers travel, up to a bound');
  const answer = whole.replace(interim, '');
  t.match(answer, new RegExp(`^HTTP/1\\.1 ${status} [^]*"code":"${code}"`), code);
  t.match(answer, new RegExp(`details="${code}"`));
  t.match(
    path.events.map(({ kind }) => kind),
    ['intent', 'outcome'],
  );
  t.match(path.events.at(-1)?.outcome, { status, fault: code });
  t.match(await path.metrics(), new RegExp(`outrider_proxy_faults_total\\{code="${code}"\\} 1`));
  t.notMatch(answer + path.logs.join(), /credential-for/);
};

t.test('a target that is not there', async (t) => {
  const server = createServer();
  const port = await listen(t, server);
  server.close();
  await expectFault(t, port, 'http', 502, 'target_refused');
});

t.test('a name that does not resolve', async (t) => {
  const path = await startPath({
    dir: t.testdir(),
    targets: [target('echo', { hosts: ['no-such-host.invalid'] })],
    pins: [],
    trustPem: authority.pem,
  });
  t.teardown(() => path.close());
  const answer = await exchange(
    await dial(path.port),
    'GET http://no-such-host.invalid/ HTTP/1.1\r\nHost: no-such-host.invalid\r\nConnection: close\r\n\r\n',
    wholeResponse,
  );
  t.match(answer, /^HTTP\/1\.1 502 [^]*"code":"target_unresolved"/);
  t.match(answer, /proxy-status: outrider; error=dns_error/);
});

t.test('every bad certificate is refused, and no byte of the request is sent', async (t) => {
  const now = Date.now();
  const hour = 3_600_000;
  const own = createAuthority({
    commonName: 'Trusted test authority',
    key: createKeyPair(),
    nowMs: now - 10 * 24 * hour,
    lifetimeMs: 20 * 24 * hour,
  });
  const key = createKeyPair();
  const leaf = (from: typeof own, for_: string, nowMs = now, lifetimeMs = hour): string =>
    issueLeaf(from, { host: for_, publicKey: key.publicKey, nowMs, lifetimeMs }).pem;
  const stranger = createAuthority({ commonName: 'Other test authority', key: createKeyPair(), nowMs: now, lifetimeMs: hour });
  const constrained = createAuthority({
    commonName: 'Trusted test authority',
    key: own.key,
    nowMs: now,
    lifetimeMs: hour,
    permittedHosts: ['else.outrider.test'],
  });
  const bad: Record<string, string> = {
    'another name': leaf(own, 'attacker.outrider.test'),
    'an address instead of the name': leaf(own, '127.0.0.1'),
    expired: leaf(own, host, now - 5 * hour, hour),
    'not yet valid': leaf(own, host, now + 2 * hour, hour),
    'an untrusted authority': leaf(stranger, host),
    'its own authority, self-signed': stranger.certificatePem,
  };
  for (const [what, cert] of Object.entries(bad)) {
    let received = 0;
    const options: TlsOptions = {
      cert,
      key: (what.includes('self-signed') ? stranger.key : key).privateKey.export({ type: 'pkcs8', format: 'pem' }),
    };
    const server = createTlsServer(options, (socket) => socket.on('data', (chunk: Buffer) => (received += chunk.length)));
    const port = await listen(t, server);
    const path = await startPath({
      dir: t.testdir(),
      targets: [target('echo')],
      pins: [{ host, port: 443, address: '127.0.0.1', addressPort: port }],
      trustPem: own.certificatePem,
    });
    t.teardown(() => path.close());
    const answer = await exchange(await dial(path.port), get('https'), wholeResponse);
    t.match(answer, /^HTTP\/1\.1 502 [^]*"code":"target_certificate_invalid"/, what);
    t.equal(received, 0, `${what}: nothing received`);
  }
  t.ok(constrained.certificatePem, 'constraints are proven in test/pki');
});

t.test('a target that speaks no TLS, or none that is safe', async (t) => {
  const plain = await listen(
    t,
    createServer((socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n')),
  );
  await expectFault(t, plain, 'https', 502, 'target_tls_failed');
});

t.test('a target that closes before it answers', async (t) => {
  await expectFault(
    t,
    await listen(
      t,
      scripted('', (socket) => socket.end()),
    ),
    'http',
    502,
    'target_closed',
  );
  await expectFault(
    t,
    await listen(
      t,
      scripted('', (socket) => socket.resetAndDestroy()),
    ),
    'http',
    502,
    'target_closed',
  );
});

t.test('a target that answers with what is not HTTP/1.1', async (t) => {
  const heads = [
    'SSH-2.0-OpenSSH_9.6\r\n',
    'HTTP/1.1 20 OK\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello',
    'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n',
    'HTTP/1.1 200 OK\r\nX: a\u0000b\r\n\r\n',
    `HTTP/1.1 200 OK\r\n${Array.from({ length: 101 }, (_, i) => `X-${i}: y\r\n`).join('')}Content-Length: 0\r\n\r\n`,
    `HTTP/1.1 200 OK\r\nX: ${'y'.repeat(40_000)}\r\n\r\n`,
    'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(20),
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 007\r\n\r\nseven b',
  ];
  for (const head of heads) await expectFault(t, await listen(t, scripted(head)), 'http', 502, 'target_malformed');
});

t.test('a truncated answer ends in a broken connection, never in a whole response', async (t) => {
  const cut: [string, string, (socket: Socket) => void][] = [
    ['length', 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf', (socket) => socket.end()],
    ['length, reset', 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf', (socket) => socket.resetAndDestroy()],
    ['chunked', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n', (socket) => socket.end()],
    ['bad chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n', () => undefined],
  ];
  for (const [what, bytes, after] of cut) {
    const path = await pathTo(t, await listen(t, scripted(bytes, after)));
    const answer = await exchange(await dial(path.port), get('http'));
    t.notOk(answer.endsWith('0\r\n\r\n'), `${what}: no final chunk`);
    t.notOk(/content-length: 4\r\n/i.test(answer), what);
    t.match(path.events.at(-1), { kind: 'outcome', outcome: { fault: 'target_truncated', status: 200 } }, what);
  }
});

t.test('one answer is one answer, whatever else the target sends', async (t) => {
  const extra = [
    'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond',
    'HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nsecond',
    'HTTP/1.1 304 Not Modified\r\n\r\nsecond',
  ];
  for (const bytes of extra) {
    const path = await pathTo(t, await listen(t, scripted(bytes)));
    const client = await dial(path.port);
    const first = await exchange(client, `GET http://${host}/1 HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
    t.match(first, /^HTTP\/1\.1 (200|204|304)/);
    t.notMatch(first, /second/);
    client.destroy();
  }
});
