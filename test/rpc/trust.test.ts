/** Whom a client trusts (THREATS D-5): evidence goes to the broker of the trust domain and to nobody else. */
import { once } from 'node:events';
import http2 from 'node:http2';
import net, { type AddressInfo } from 'node:net';
import tls from 'node:tls';
import t, { type Test } from 'tap';
import type { Fault } from '../../src/core/fault.ts';
import { spiffeId } from '../../src/core/spiffe-id.ts';
import { systemClock } from '../../src/ops/clock.ts';
import { createAuthority } from '../../src/pki/authority.ts';
import { emptyName, signCertificate } from '../../src/pki/certificate.ts';
import {
  basicConstraints,
  extendedKeyUsage,
  keyIdentifier,
  keyUsage,
  subjectAltName,
  subjectKeyIdentifier,
} from '../../src/pki/extension.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueEndEntity, issueLeaf } from '../../src/pki/leaf.ts';
import { pemOf } from '../../src/pki/pem.ts';
import { attest, openBroker, openEvents, type Peer } from '../../src/rpc/client.ts';
import { openConnection } from '../../src/rpc/client/connection.ts';
import { PeerCredentials } from '../../src/rpc/client/peer-credentials.ts';
import { brokerService } from '../../src/rpc/service.ts';
import { broker, brokerId, createDomain, evidence, hourMs, peerOf, workloadId } from './trust-domain.ts';

const domain = createDomain();
const stranger = createDomain();
const key = createKeyPair();
const keyPem = key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const nowMs = Date.now();
const { authority } = domain;

const issue = (o: {
  uris?: readonly string[];
  hosts?: readonly string[];
  usage?: readonly ('serverAuth' | 'clientAuth')[];
  atMs?: number;
  from?: typeof authority;
  lifetimeMs?: number;
}): string =>
  issueEndEntity(o.from ?? authority, {
    publicKey: key.publicKey,
    nowMs: o.atMs ?? nowMs,
    lifetimeMs: o.lifetimeMs ?? hourMs,
    extensions: [
      extendedKeyUsage(...(o.usage ?? ['serverAuth', 'clientAuth'])),
      subjectAltName(true, { uris: o.uris ?? [brokerId], hosts: o.hosts ?? [] }),
    ],
  }).pem;

const selfSigned = (): string =>
  pemOf(
    signCertificate(
      {
        issuer: emptyName,
        subject: emptyName,
        publicKey: key.publicKey,
        notBeforeMs: nowMs - hourMs,
        notAfterMs: nowMs + hourMs,
        extensions: [
          basicConstraints('leaf'),
          keyUsage('digitalSignature'),
          subjectKeyIdentifier(keyIdentifier(key.publicKey)),
          extendedKeyUsage('serverAuth'),
          subjectAltName(true, { uris: [brokerId] }),
        ],
      },
      key,
    ),
  );

/** Who holds a leaf is not an authority. */
const belowTheAuthority = (): string => {
  const made = createAuthority({ commonName: 'below', key, nowMs, lifetimeMs: hourMs, spiffeTrustDomain: 'outrider.test' });
  const intermediate = issueEndEntity(authority, { publicKey: key.publicKey, nowMs, lifetimeMs: hourMs, extensions: [] });
  return issue({ from: made }) + intermediate.pem;
};

const badCertificates: Record<string, () => string> = {
  expired: () => issue({ atMs: nowMs - 2 * hourMs }),
  'not yet valid': () => issue({ atMs: nowMs + 2 * hourMs }),
  'self-signed': selfSigned,
  'by another authority of the same name': () => issue({ from: stranger.authority }),
  'by the holder of a leaf of ours': belowTheAuthority,
  'of another workload': () => issue({ uris: [workloadId] }),
  'of an ID that begins like ours': () => issue({ uris: [`${brokerId}2`] }),
  'of an ID below ours': () => issue({ uris: [`${brokerId}/x`] }),
  'of another trust domain': () => issue({ uris: ['spiffe://other.test/broker'] }),
  'with two IDs, ours first': () => issue({ uris: [brokerId, workloadId] }),
  'with two IDs, ours last': () => issue({ uris: [workloadId, brokerId] }),
  'with our ID twice': () => issue({ uris: [brokerId, brokerId] }),
  'with a host name and no ID': () => issue({ uris: [], hosts: ['localhost', '127.0.0.1'] }),
  'with our ID as part of another URI': () => issue({ uris: [`https://outrider.test/?${brokerId}`] }),
  'for clients only': () => issue({ usage: ['clientAuth'] }),
  'by the interception authority': () =>
    issueLeaf(createAuthority({ commonName: 'interception', key: createKeyPair(), nowMs, lifetimeMs: hourMs }), {
      host: '127.0.0.1',
      publicKey: key.publicKey,
      nowMs,
      lifetimeMs: hourMs,
    }).pem,
};

const attestAt = (peer: Peer, o: { brokerCaPem?: string; timeoutMs?: number } = {}) =>
  attest({
    broker: peer,
    brokerCaPem: authority.certificatePem,
    evidence,
    key: createKeyPair(),
    timeoutMs: 3_000,
    clock: systemClock,
    ...o,
  });
const codeOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'ok',
    (fault: Fault) => fault.code,
  );

/** Speaks gRPC's transport with any certificate and keeps whatever it is sent. */
const recorder = async (t: Test, certificate: string): Promise<{ peer: Peer; received: () => number }> => {
  let received = 0;
  const server = http2.createSecureServer({ cert: certificate, key: keyPem });
  server.on('stream', () => (received += 1));
  server.on('secureConnection', (socket: tls.TLSSocket) => socket.on('error', () => undefined));
  server.on('sessionError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return { peer: peerOf({ address: server.address() as AddressInfo }), received: () => received };
};

t.test('the recorder does receive what is sent to a broker with the right certificate', async (t) => {
  const { peer, received } = await recorder(t, issue({}));
  t.equal(await codeOf(attestAt(peer, { timeoutMs: 300 })), 'broker_timeout', 'it never answers');
  t.equal(received(), 1);
});

for (const [name, certificate] of Object.entries(badCertificates)) {
  t.test(`a broker with a certificate ${name} is not trusted and gets no evidence`, async (t) => {
    const { peer, received } = await recorder(t, certificate());
    t.equal(await codeOf(attestAt(peer)), 'broker_untrusted');
    t.equal(await codeOf(openBroker({ broker: peer, svid: domain.svid() }).getGrant('echo', 'v1')), 'broker_untrusted');
    t.equal(received(), 0, 'nothing was sent');
  });
}

t.test('a stream to a peer with the wrong ID ends as broker_untrusted and carries nothing', async (t) => {
  const { peer, received } = await recorder(t, issue({ uris: [workloadId] }));
  const channel = openBroker({ broker: peer, svid: domain.svid() });
  t.teardown(() => channel.close());
  const watched = new Promise<Fault>((resolve) =>
    channel.watch({ snapshot: () => undefined, revocation: () => undefined, ended: resolve }),
  );
  t.equal((await watched).code, 'broker_untrusted');
  const streamed = new Promise<Fault>((resolve) => {
    openEvents({ collector: peer, svid: domain.svid(), on: { stored: () => undefined, drained: () => undefined, ended: resolve } }).write(
      'boot',
      [],
    );
  });
  t.equal((await streamed).code, 'broker_untrusted');
  t.equal(received(), 0);
});

t.test('a broker is known by address or by name, by its ID alone', async (t) => {
  const server = await broker(t, domain);
  for (const host of ['127.0.0.1', 'localhost']) {
    t.equal(await codeOf(attestAt({ address: `${host}:${server.address.port}`, spiffeId: brokerId })), 'ok', host);
    t.equal(
      await codeOf(attestAt({ address: `${host}:${server.address.port}`, spiffeId: spiffeId('outrider.test', 'other') })),
      'broker_untrusted',
      host,
    );
  }
});

t.test("without an authority to know it by no broker is trusted, the system's authorities count for nothing", async (t) => {
  const server = await broker(t, domain);
  for (const brokerCaPem of [
    '',
    'nothing of the kind',
    '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
    stranger.authority.certificatePem,
  ]) {
    t.equal(await codeOf(attestAt(peerOf(server), { brokerCaPem })), 'broker_untrusted');
  }
});

t.test('what is not there, not TLS or does not answer is told apart from what is not trusted', async (t) => {
  const listening = async (server: net.Server): Promise<Peer> => {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.teardown(() => server.close());
    return peerOf({ address: server.address() as AddressInfo });
  };
  const sockets = new Set<net.Socket>();
  t.teardown(() => [...sockets].map((socket) => socket.destroy()));
  const silent = await listening(net.createServer((socket) => sockets.add(socket.on('error', () => undefined))));
  const startedAt = performance.now();
  t.equal(await codeOf(attestAt(silent, { timeoutMs: 200 })), 'broker_timeout', 'accepts and says nothing');
  t.ok(performance.now() - startedAt < 2_000, 'within its deadline');
  const garbage = await listening(
    net.createServer((socket) => socket.on('error', () => undefined).end('HTTP/1.1 400 Bad Request\r\n\r\n')),
  );
  t.equal(await codeOf(attestAt(garbage)), 'broker_unavailable', 'speaks something else');
  const closing = await listening(net.createServer((socket) => socket.destroy()));
  t.equal(await codeOf(attestAt(closing)), 'broker_unavailable', 'hangs up');
  const gone = net.createServer();
  const peer = await listening(gone);
  gone.close();
  t.equal(await codeOf(attestAt(peer)), 'broker_unavailable', 'is not there');
  t.equal(await codeOf(attestAt({ address: 'no-such-host.invalid:1', spiffeId: brokerId })), 'broker_unavailable', 'has no address');
  const noHttp2 = await listening(tls.createServer({ cert: issue({}), key: keyPem }, (socket) => socket.on('error', () => undefined)));
  t.equal(await codeOf(attestAt(noHttp2)), 'broker_unavailable', 'the right certificate, but no HTTP/2');
});

t.test('a broker that was not trusted is called again once it is the right one, and told apart when it is gone', async (t) => {
  const bad = http2.createSecureServer({ cert: issue({ uris: [workloadId] }), key: keyPem }).on('sessionError', () => undefined);
  bad.listen(0, '127.0.0.1');
  await once(bad, 'listening');
  const { port } = bad.address() as AddressInfo;
  const channel = openBroker({ broker: peerOf({ address: { port } }), svid: domain.svid() });
  t.teardown(() => channel.close());
  t.equal(await codeOf(channel.getGrant('echo', 'v1')), 'broker_untrusted');
  bad.close();
  const until = async (code: string): Promise<void> => {
    while ((await codeOf(channel.getGrant('echo', 'v1'))) !== code) await new Promise((resolve) => setImmediate(resolve));
  };
  await until('broker_unavailable');
  const good = await broker(t, domain, { listen: { host: '127.0.0.1', port } });
  await until('ok');
  await good.close();
  await until('broker_unavailable');
});

t.test('an attempt to connect that never ends does not stand in the way of the next', async (t) => {
  const sockets: net.Socket[] = [];
  const silent = net.createServer((socket) => sockets.push(socket.on('error', () => undefined).resume()));
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port } = silent.address() as AddressInfo;
  const svid = domain.svid();
  const identity = {
    certificateChainPem: svid.certificateChainPem,
    privateKeyPem: svid.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
  };
  const connection = openConnection({ ...peerOf({ address: { port } }), trustBundlePem: svid.trustBundlePem, identity });
  t.teardown(() => connection.close());
  const call = (timeoutMs: number) => codeOf(connection.unary(brokerService.methods.getGrant, Buffer.alloc(0), timeoutMs));
  t.equal(await call(100), 'broker_timeout');
  silent.close();
  t.equal(sockets.length, 1);
  if (sockets[0]?.destroyed === false) await once(sockets[0], 'close');
  await broker(t, domain, { listen: { host: '127.0.0.1', port } });
  t.equal(await call(2_000), 'request_malformed', 'the broker has answered');
});

t.test('a peer that falls silent during or after its handshake is let go', async (t) => {
  const quiet = {
    during: net.createServer(),
    after: tls.createServer({ cert: issue({}), key: keyPem, ALPNProtocols: ['h2'] }),
  };
  for (const [when, server] of Object.entries(quiet)) {
    server
      .on('connection', (socket: net.Socket) => socket.on('error', () => undefined))
      .on('secureConnection', (socket: net.Socket) => socket.on('error', () => undefined));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const credentials = new PeerCredentials(
      { ...peerOf({ address: { port } }), trustBundlePem: authority.certificatePem, identity: undefined },
      100,
    );
    const socket = net.connect(port, '127.0.0.1').on('error', () => undefined);
    const connected = credentials._createSecureConnector().connect(socket);
    if (when === 'during') await t.rejects(connected, /did not answer in time/);
    else await connected;
    if (!socket.destroyed) await once(socket, 'close');
    t.ok(socket.destroyed, when);
    server.close();
  }
});
