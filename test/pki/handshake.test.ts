/** Real TLS between Node and Node with certificates of ours. */
import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import tls from 'node:tls';
import t from 'tap';
import { type SpiffeId, spiffeId } from '../../src/core/spiffe-id.ts';
import { type Authority, createAuthority } from '../../src/pki/authority.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueLeaf } from '../../src/pki/leaf.ts';
import { issueSvid, spiffeIdOf } from '../../src/pki/svid.ts';

const nowMs = Date.now();
const lifetimeMs = 3_600_000;
const key = createKeyPair();
const keyPem = key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;

/** What the two sides know of each other after a handshake, or the error of the side that refused. */
const shake = async (
  server: tls.TlsOptions,
  client: tls.ConnectionOptions,
): Promise<{ atClient: Buffer; atServer: Buffer | undefined }> => {
  const listener = tls.createServer({ key: keyPem, ...server }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const accepted = once(listener, 'secureConnection') as Promise<[tls.TLSSocket]>;
  const refused = once(listener, 'tlsClientError').then(([error]) => Promise.reject(error as Error));
  const socket = tls.connect({ host: '127.0.0.1', port: (listener.address() as AddressInfo).port, ...client });
  try {
    await once(socket, 'secureConnect');
    const [peer] = await Promise.race([accepted, refused]);
    return { atClient: socket.getPeerCertificate().raw, atServer: peer.getPeerX509Certificate()?.raw };
  } finally {
    socket.destroy();
    listener.close();
    refused.catch(() => undefined);
  }
};

t.test('a client that trusts the authority is served with a leaf, by name and by address', async (t) => {
  const authority = createAuthority({
    commonName: 'interception',
    key: createKeyPair(),
    nowMs,
    lifetimeMs,
    permittedHosts: ['echo.outrider.test', '127.0.0.1'],
  });
  const serving = (host: string): tls.TlsOptions => ({
    cert: issueLeaf(authority, { host, publicKey: key.publicKey, nowMs, lifetimeMs }).pem,
  });
  const ca = authority.certificatePem;
  t.ok((await shake(serving('echo.outrider.test'), { ca, servername: 'echo.outrider.test' })).atClient.length > 0);
  t.ok((await shake(serving('127.0.0.1'), { ca })).atClient.length > 0);
  await t.rejects(shake(serving('echo.outrider.test'), { ca, servername: 'other.outrider.test' }), {
    code: 'ERR_TLS_CERT_ALTNAME_INVALID',
  });
  const other = createAuthority({ commonName: 'interception', key: createKeyPair(), nowMs, lifetimeMs }).certificatePem;
  await t.rejects(shake(serving('echo.outrider.test'), { ca: other, servername: 'echo.outrider.test' }), {
    code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  });
});

t.test('two workloads know each other by their SVIDs', async (t) => {
  const domain = createAuthority({
    commonName: 'outrider.test',
    key: createKeyPair(),
    nowMs,
    lifetimeMs,
    spiffeTrustDomain: 'outrider.test',
  });
  const ids = { server: spiffeId('outrider.test', 'broker'), client: spiffeId('outrider.test', 'ns', 'demo', 'sa', 'demo-app') };
  const cert = (from: Authority, id: SpiffeId): string =>
    issueSvid(from, { spiffeId: id, publicKey: key.publicKey, nowMs, lifetimeMs }).pem;
  const ca = domain.certificatePem;
  const server = { cert: cert(domain, ids.server), ca, requestCert: true };
  const checkServerIdentity = (_: string, { raw }: tls.PeerCertificate): Error | undefined =>
    spiffeIdOf(raw) === ids.server ? undefined : new Error('another SPIFFE ID');
  const { atClient, atServer } = await shake(server, { ca, key: keyPem, cert: cert(domain, ids.client), checkServerIdentity });
  assert(atServer);
  t.equal(spiffeIdOf(atClient), ids.server);
  t.equal(spiffeIdOf(atServer), ids.client);

  const stranger = createAuthority({
    commonName: 'outrider.test',
    key: createKeyPair(),
    nowMs,
    lifetimeMs,
    spiffeTrustDomain: 'outrider.test',
  });
  await t.rejects(
    shake(server, { ca, key: keyPem, cert: cert(stranger, ids.client), checkServerIdentity }),
    'a client of another authority',
  );
  const leaf = issueLeaf(domain, { host: 'demo-app', publicKey: key.publicKey, nowMs, lifetimeMs }).pem;
  await t.rejects(shake(server, { ca, key: keyPem, cert: leaf, checkServerIdentity }), 'a client with a certificate for servers');
});
