/** Certificates that the broker mints for targets, judged by those who are shown them. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { connect, createServer, type TlsOptions } from 'node:tls';
import t from 'tap';
import { createProviders, type Provider } from '../../src/broker/provider.ts';
import type { FaultCode } from '../../src/core/fault.ts';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';

import { spiffeIdOf } from '../../src/pki/svid.ts';
import { parseSettings } from '../../src/settings/document.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { needs, run } from '../pki/external-program.ts';
import { attestAt, channelTo, startBrokerRig } from '../support/broker.ts';
import { createSpiffeAuthority, createTestAuthority } from '../support/certificates.ts';
import { certificateText, keyText } from '../support/client-certificates.ts';
import { directoryOf } from '../support/directory.ts';

const demoId = 'spiffe://outrider.test/ns/demo/sa/demo-app';
const use = { workload: demoId, target: 'inventory', form: 'certificate' } as const;

const rig = ({ lifetimeMs = 3_600_000, clock = createFakeClock(), authority = createSpiffeAuthority(clock.now()) } = {}) => {
  const deps = {
    issuer: { mint: () => Promise.reject(new Error('not for this kind')) },
    authority: () => authority,
    clock,
    log: createLog({ role: 'broker', level: 'silent' }),
    env: {},
  };
  const provider = createProviders([{ kind: 'x509', name: 'identity', lifetimeMs }], deps).get('identity') as Provider;
  return { provider, clock, authority };
};

const origin = createTestAuthority();
const host = 'inventory.outrider.test';

/** What a target that asks for a client certificate of `ca` makes of one; its SPIFFE ID, or why it is refused. */
const shownTo = async (options: TlsOptions, client: { cert?: string; key?: string }): Promise<string> => {
  const server = createServer({ ...origin.serverFor(host), requestCert: true, ...options }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect({ port: (server.address() as AddressInfo).port, ca: origin.pem, servername: host, ...client });
  socket.on('error', () => undefined);
  try {
    return await new Promise((resolve) => {
      server.once('secureConnection', (peer) => resolve(spiffeIdOf(peer.getPeerX509Certificate()?.raw ?? Buffer.alloc(0)) ?? 'nobody'));
      server.once('tlsClientError', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'refused'));
    });
  } finally {
    socket.destroy();
    server.close();
  }
};

await t.test('a target that trusts the bundle knows the workload by it, in TLS 1.2 and 1.3, and knows nobody without', async (t) => {
  const { provider, authority } = rig({ clock: createFakeClock(Date.now()) });
  const pem = (await provider.obtain(use)).value.reveal();
  const client = { cert: pem, key: pem };
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const options = { ca: authority.certificatePem, minVersion: version, maxVersion: version };
    t.equal(await shownTo(options, client), demoId, version);
    t.match(await shownTo(options, {}), 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE', `${version} without`);
  }
  const elsewhere = createSpiffeAuthority();
  t.not(await shownTo({ ca: elsewhere.certificatePem }, client), demoId, 'another trust domain');
});

await t.test('every grant has a certificate and a key of its own, for the workload that asked', async (t) => {
  const { provider } = rig();
  const bundles = await Promise.all([use, use, { ...use, workload: 'spiffe://outrider.test/ns/demo/sa/other' }].map(provider.obtain));
  const leaves = bundles.map(({ value }) => new X509Certificate(value.reveal()));
  t.equal(new Set(leaves.map(({ serialNumber }) => serialNumber)).size, 3);
  t.equal(new Set(leaves.map(({ publicKey }) => publicKey.export({ type: 'spki', format: 'der' }).toString('hex'))).size, 3);
  t.strictSame(
    leaves.map(({ subjectAltName }) => subjectAltName),
    [`URI:${demoId}`, `URI:${demoId}`, 'URI:spiffe://outrider.test/ns/demo/sa/other'],
  );
  for (const { value } of bundles) t.equal(createPrivateKey(keyText(value.reveal())).asymmetricKeyDetails?.namedCurve, 'prime256v1');
});

await t.test('it lives as long as its settings say, but no longer than a day, nor than the authority', async (t) => {
  const clock = createFakeClock(Math.floor(Date.now() / 1000) * 1000);
  const endOf = async (options: Parameters<typeof rig>[0]): Promise<number> => {
    const { value, expiresAtMs } = await rig({ clock, ...options }).provider.obtain(use);
    t.equal(new X509Certificate(value.reveal()).validToDate.getTime(), expiresAtMs, 'the grant ends with it');
    return expiresAtMs - clock.now();
  };
  t.equal(await endOf({ lifetimeMs: 300_000 }), 300_000);
  t.equal(await endOf({ lifetimeMs: 48 * 3_600_000 }), limits.clientCertificateLifetimeMaxMs);
  t.equal(await endOf({ authority: createSpiffeAuthority(clock.now(), 120_000) }), 120_000);
  const ended = rig({ clock, authority: createSpiffeAuthority(clock.now() - 3_600_000, 60_000) });
  await t.rejects(ended.provider.obtain(use), { code: 'credential_unavailable' });
});

await t.test('OpenSSL takes it for a client and for nothing else', needs('openssl', 'version'), async (t) => {
  const clock = createFakeClock(Date.now());
  const { provider, authority } = rig({ clock });
  const pem = (await provider.obtain(use)).value.reveal();
  const directory = directoryOf(t, { 'ca.pem': authority.certificatePem, 'leaf.pem': certificateText(pem) });
  const verify = (purpose: string) =>
    run('openssl', ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', join(directory, 'ca.pem'), join(directory, 'leaf.pem')]);
  t.match(verify('sslclient'), { ok: true });
  t.match(verify('sslserver'), { ok: false, output: /purpose/ });
});

await t.test('at the broker it proves nothing, though the trust domain signed it: only what was attested does', async (t) => {
  const { broker, cluster, files } = await startBrokerRig(t);
  const more = `
  - name: inventory
    hosts: [inventory.outrider.test]
    credentials: [{ provider: identity, placement: { kind: client_certificate } }]`;
  const policies = 'policies:\n  - { name: demo, rules: [{ name: all, effect: allow, workloads: [demo-app] }] }';

  const text = files.text(policies, more).replace('targets:', '  - { kind: x509, name: identity }\ntargets:');
  broker.apply(parseSettings(text, 'broker.yaml') as never);
  const bundlePem = readFileSync(files.bundle, 'utf8');
  const svid = await attestAt(broker, bundlePem, cluster.token());
  const { credentials, expiresAtMs } = await channelTo(t, broker, svid).getGrant('inventory', '');
  const pem = credentials[0]?.value.reveal() ?? '';
  const leaf = new X509Certificate(pem);
  t.match(credentials[0], {
    placement: { kind: 'client_certificate' },
    providerKind: 'x509',
    provider: 'identity',
    fingerprint: /^[0-9a-f]{32}$/,
  });
  t.ok(leaf.checkIssued(new X509Certificate(bundlePem)));
  t.ok(expiresAtMs <= leaf.validToDate.getTime());
  t.not(leaf.publicKey.equals(new X509Certificate(svid.certificateChainPem).publicKey), true, "its key is not the proxy's");
  const impostor = channelTo(t, broker, { ...svid, certificateChainPem: certificateText(pem), privateKey: createPrivateKey(keyText(pem)) });
  await t.rejects(impostor.getGrant('inventory', ''), { code: 'identity_refused' satisfies FaultCode });
  t.ok(Date.now() < leaf.validToDate.getTime(), 'though it has not expired');
});
