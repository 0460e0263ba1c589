import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { createSecureContext, createServer, type SecureContext, type TLSSocket, type TlsOptions } from 'node:tls';
import t, { type Test } from 'tap';
import type { Destination } from '../../src/core/destination.ts';
import { alertFault, createDialer, createResolver, type TlsTerms } from '../../src/net/dial.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueSvid } from '../../src/pki/svid.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { needs } from '../pki/external-program.ts';
import { directoryOf } from '../support/directory.ts';

const authority = createTestAuthority();
const name = 'service.outrider.test';
const policy = { privateAllowed: false, named: ['127.0.0.1', '::1'] };
const dialer = createDialer({ resolver: createResolver([], undefined, async () => ['127.0.0.1']), chain: undefined });

const trusting = (rest: { cert?: string; key?: string; minVersion?: 'TLSv1.3' } = {}): SecureContext =>
  createSecureContext({ ca: authority.pem, minVersion: 'TLSv1.2', ...rest });
const terms = (rest: Partial<TlsTerms> = {}): TlsTerms => ({
  secureContext: trusting(),
  alpn: ['http/1.1'],
  versionMin: 'TLSv1.2',
  ...rest,
});

interface Accepted {
  readonly serverName: string | false | undefined;
  readonly clientName: string | undefined;
  readonly isResumed: boolean;
  /** All that the program sent, when it has closed the connection. */
  readonly received: Promise<string>;
}

interface Target {
  readonly destination: Destination;
  /** What it learned of each connection that it accepted, in order. */
  readonly accepted: Accepted[];
  readonly open: () => number;
}

const startTarget = async (t: Test, options: TlsOptions = {}, host = name, address = '127.0.0.1'): Promise<Target> => {
  const accepted: Accepted[] = [];
  const sockets = new Set<Socket>();
  const server = createServer({ ...authority.serverFor(host), ...options }, (socket) => {
    const received = new Promise<string>((resolve) => {
      let text = '';
      socket.on('data', (chunk) => (text += String(chunk))).once('close', () => resolve(text));
    });
    accepted.push({
      serverName: (socket as { servername?: string | false }).servername,
      clientName: socket.getPeerX509Certificate()?.subjectAltName,
      isResumed: socket.isSessionReused(),
      received,
    });
    socket.on('error', () => undefined).write('welcome');
  });
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket));
  });
  server.on('tlsClientError', () => undefined);
  server.listen(0, address);
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { destination: { scheme: 'https', host, port }, accepted, open: () => sockets.size };
};

const clientCertificate = () => {
  const clients = createAuthority({
    commonName: 'Clients',
    spiffeTrustDomain: 'outrider.test',
    key: createKeyPair(),
    nowMs: Date.now(),
    lifetimeMs: 3_600_000,
  });
  const key = createKeyPair();
  const { pem } = issueSvid(clients, {
    spiffeId: 'spiffe://outrider.test/ns/demo/sa/app',
    publicKey: key.publicKey,
    nowMs: Date.now(),
    lifetimeMs: 600_000,
  });
  return { ca: clients.certificatePem, cert: pem, key: key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string };
};

/** What arrives first; or that the connection ended. */
const firstBytes = (socket: Socket): Promise<string> =>
  new Promise((resolve, reject) => {
    socket.once('data', (chunk) => resolve(String(chunk))).once('error', reject);
    socket.once('close', () => resolve('closed'));
  });

/** Opens a connection that the target takes as open too. */
const welcomed = async (target: Target, rest: Partial<TlsTerms> = {}): Promise<TLSSocket> => {
  const { socket } = await dialer.open(target.destination, policy, terms(rest));
  t.equal(await firstBytes(socket), 'welcome');
  return socket.destroy() as TLSSocket;
};

t.test('each connection offers what it is told to, and learns what the target chose', async (t) => {
  const both = await startTarget(t, { ALPNProtocols: ['h2', 'http/1.1'] });
  const neither = await startTarget(t);
  const opened = async (target: Target, alpn: TlsTerms['alpn']): Promise<string> => {
    const { socket, alpn: chosen } = await dialer.open(target.destination, policy, terms({ alpn }));
    socket.destroy();
    return chosen;
  };
  t.equal(await opened(both, ['http/1.1']), 'http/1.1');
  t.equal(await opened(both, ['h2']), 'h2');
  t.equal(await opened(both, ['h2', 'http/1.1']), 'h2');
  t.equal(await opened(neither, ['h2', 'http/1.1']), '', 'a target without ALPN chooses nothing');
});

t.test('a target that speaks nothing of what was offered is told from one whose TLS fails', async (t) => {
  const onlyH2 = await startTarget(t, { ALPNProtocols: ['h2'] });
  await t.rejects(dialer.open(onlyH2.destination, policy, terms()), { code: 'target_protocol' });
  const tcp = createTcpServer((socket) => socket.on('error', () => undefined).end('HTTP/1.1 400 Bad Request\r\n\r\n'));
  tcp.listen(0, '127.0.0.1');
  await once(tcp, 'listening');
  t.teardown(() => tcp.close());
  const plain: Destination = { scheme: 'https', host: name, port: (tcp.address() as AddressInfo).port };
  await t.rejects(dialer.open(plain, policy, terms()), { code: 'target_tls_failed', detail: 'It did not answer with TLS.' });
});

t.test('the server name says the host, and nothing for an address', async (t) => {
  const named = await startTarget(t);
  await welcomed(named);
  t.equal(named.accepted[0]?.serverName, name);
  for (const address of ['127.0.0.1', '::1']) {
    const target = await startTarget(t, {}, address, address);
    await welcomed(target);
    t.equal(target.accepted[0]?.serverName, false, address);
  }
});

t.test('a certificate counts for the name that was asked for alone, names and addresses alike', async (t) => {
  const other = await startTarget(t, authority.serverFor('other.outrider.test'));
  const invalid = { code: 'target_certificate_invalid' };
  await t.rejects(dialer.open(other.destination, policy, terms()), invalid);
  const otherAddress = await startTarget(t, authority.serverFor('127.0.0.2'), '127.0.0.1');
  await t.rejects(dialer.open(otherAddress.destination, policy, terms()), invalid);
  const unknown = await startTarget(t, createTestAuthority('Nobody').serverFor(name));
  await t.rejects(dialer.open(unknown.destination, policy, terms()), {
    code: 'target_certificate_invalid',
    detail: 'The check failed with UNABLE_TO_VERIFY_LEAF_SIGNATURE.',
  });
});

t.test('a target below the minimum version gets no byte, whether or not the context says so too', async (t) => {
  const old = await startTarget(t, { maxVersion: 'TLSv1.2' });
  const tooOld = { code: 'target_tls_failed', detail: 'It offers only TLS versions below the configured minimum.' };
  await t.rejects(dialer.open(old.destination, policy, terms({ versionMin: 'TLSv1.3' })), tooOld);
  const strict = terms({ versionMin: 'TLSv1.3', secureContext: trusting({ minVersion: 'TLSv1.3' }) });
  await t.rejects(dialer.open(old.destination, policy, strict), tooOld);
  t.equal(old.accepted.length, 1, 'one handshake went through, and ended there');
  t.equal(await old.accepted[0]?.received, '');
  await welcomed(old);
  await welcomed(await startTarget(t), strict);
});

for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
  t.test(`${maxVersion}: a client certificate is shown to a target that asks for it, and to no other`, async (t) => {
    const { ca, cert, key } = clientCertificate();
    const asking = await startTarget(t, { requestCert: true, ca, maxVersion });
    const quiet = await startTarget(t, { maxVersion });
    const shown = terms({ secureContext: trusting({ cert, key }) });
    for (const target of [asking, quiet]) await welcomed(target, shown);
    t.equal(asking.accepted[0]?.clientName, 'URI:spiffe://outrider.test/ns/demo/sa/app');
    t.equal(quiet.accepted[0]?.clientName, undefined);
  });

  t.test(`${maxVersion}: a target that requires a client certificate and gets none is told apart before anything is sent`, async (t) => {
    const { ca } = clientCertificate();
    const target = await startTarget(t, { requestCert: true, ca, maxVersion });
    await t.rejects(dialer.open(target.destination, policy, terms()), {
      code: 'target_tls_failed',
      detail: 'It requires a client certificate, and none is configured for it.',
    });
    t.equal(target.accepted.length, 0);
  });
}

/** OpenSSL's own server, which asks for a client certificate and goes on without one. */
const startAsking = async (t: Test, ...flags: string[]): Promise<Destination> => {
  const { cert, key } = authority.serverFor(name);
  const dir = mkdtempSync(join(directoryOf(t), 'server-'));
  const file = (path: string): string => join(dir, path);
  for (const [path, text] of Object.entries({ 'cert.pem': cert, 'key.pem': key, 'clients.pem': clientCertificate().ca }))
    writeFileSync(file(path), text, { mode: 0o600 });
  const pems = ['-cert', file('cert.pem'), '-key', file('key.pem'), '-CAfile', file('clients.pem')];
  const server = spawn('openssl', ['s_server', '-accept', '127.0.0.1:0', ...pems, '-www', ...flags]);
  t.teardown(() => server.kill());
  let text = '';
  const port = await new Promise<number>((resolve, reject) => {
    // Read on to the end: a server that cannot write what it has to say would stop.
    server.stderr.on('data', (chunk) => (text += String(chunk)));
    server.stdout.on('data', (chunk) => {
      text += String(chunk);
      const accepting = /^ACCEPT 127\.0\.0\.1:(\d+)$/m.exec(text)?.[1];
      if (accepting !== undefined) resolve(Number(accepting));
    });
    server.once('exit', () => reject(new Error(`openssl ended: ${text}`)));
  });
  return { scheme: 'https', host: name, port };
};

t.test('a target that asks for a client certificate but does without is served', needs('openssl', 'version'), async (t) => {
  const asked = ['-verify', '1'];
  for (const flags of [
    ['-tls1_2', ...asked],
    ['-tls1_3', ...asked],
    ['-tls1_3', '-num_tickets', '0', ...asked],
  ]) {
    const { socket } = await dialer.open(await startAsking(t, ...flags), policy, terms());
    socket.write('GET / HTTP/1.0\r\n\r\n');
    t.match(await firstBytes(socket), /^HTTP\/1\.0 200/i, flags.join(' '));
    socket.destroy();
  }
});

t.test(
  'a client certificate that the target refuses is named as the reason, though TLS 1.3 says so only later',
  needs('openssl', 'version'),
  async (t) => {
    const { cert, key } = clientCertificate();
    const shown = terms({ secureContext: trusting({ cert, key }) });
    const refused = { code: 'target_tls_failed', detail: 'It does not accept the client certificate.' };
    const strict = ['-Verify', '1', '-verify_return_error'];
    await t.rejects(dialer.open(await startAsking(t, '-tls1_2', ...strict), policy, shown), refused);
    const { socket } = await dialer.open(await startAsking(t, '-tls1_3', ...strict), policy, shown);
    const error = await firstBytes(socket).catch((thrown: unknown) => thrown);
    t.match(alertFault(error), refused);
    t.equal(alertFault(Object.assign(new Error('reset'), { code: 'ECONNRESET' })), undefined);
    t.equal(alertFault(undefined), undefined);
  },
);

for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
  t.test(`${maxVersion}: a session is handed out and resumed`, async (t) => {
    const target = await startTarget(t, { maxVersion, ALPNProtocols: ['http/1.1'] });
    const sessions: Buffer[] = [];
    const onSession = (session: Buffer): void => void sessions.push(session);
    const first = await dialer.open(target.destination, policy, terms({ onSession }));
    t.equal(await firstBytes(first.socket), 'welcome');
    if (sessions.length === 0) await once(first.socket, 'session');
    first.socket.destroy();
    const session = sessions.at(-1) as Buffer;
    const second = await dialer.open(target.destination, policy, terms({ session, onSession }));
    t.ok((second.socket as TLSSocket).isSessionReused());
    t.equal(second.alpn, 'http/1.1', 'the protocol is agreed anew');
    t.equal(await firstBytes(second.socket), 'welcome');
    second.socket.destroy();
    t.notOk(target.accepted[0]?.isResumed);
    t.ok(target.accepted[1]?.isResumed);
  });
}

t.test('a target that ends the connection in the handshake leaves nothing open', async (t) => {
  const ended: Socket[] = [];
  const tcp = createTcpServer((socket) => {
    ended.push(socket.on('error', () => undefined));
    socket.once('data', () => socket.end());
  });
  tcp.listen(0, '127.0.0.1');
  await once(tcp, 'listening');
  t.teardown(() => tcp.close());
  const { port } = tcp.address() as AddressInfo;
  await t.rejects(dialer.open({ scheme: 'https', host: name, port }, policy, terms()), { code: 'target_tls_failed' });
  const [socket] = ended as [Socket];
  if (!socket.destroyed) await once(socket, 'close');
  t.ok(socket.destroyed);
});
