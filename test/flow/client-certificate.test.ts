import { readFileSync, writeFileSync } from 'node:fs';
import { createSecureServer, type Http2SecureServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import { startProxy } from '../../src/proxy/run.ts';
import { spiffeIdOf } from '../../src/pki/svid.ts';
import { parseSettings } from '../../src/settings/document.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { certificateText, keyText, soundBundle } from '../support/client-certificates.ts';
import { exchange, secure, tunnelTo, wholeResponse } from '../support/path.ts';
import { brokerYaml, eventually, host, metric, prepareStack, proxyYaml, workloadId } from '../support/stack.ts';

interface Seen {
  readonly url: string;
  readonly spiffeId: string | undefined;
  readonly serial: string;
  readonly version: string | null;
  readonly http: string;
  readonly authorization: string | undefined;
}

interface TargetOptions {
  readonly maxVersion?: 'TLSv1.2';
  readonly allowHTTP1?: boolean;
}

/** Every role, and a target that serves nobody without a certificate of one of `clientCas`. `target` is the rest of its settings. */
const rig = async (t: Test, providers: (dir: string) => string, target: string, { maxVersion, allowHTTP1 = true }: TargetOptions = {}) => {
  const stack = await prepareStack(t);
  const { files } = stack;
  const changes = (of: string, more = target) => ({
    providers: of,
    targets: `  - { name: bank, hosts: [${host}], ${more} }`,
    policies: '  - { name: demo, rules: [{ name: all, effect: allow, workloads: [demo-app] }] }',
  });
  const broker = await stack.startBroker(changes(providers(files.dir)));
  const collector = await stack.startCollector(broker.grpc.port);

  const authority = createTestAuthority('Outrider test bank authority');
  const seen: Seen[] = [];
  const options = { ...authority.serverFor(host), ...(maxVersion ? { maxVersion } : {}) };
  const server: Http2SecureServer = createSecureServer(
    { ...options, allowHTTP1, requestCert: true, rejectUnauthorized: true },
    (request, response) => {
      const socket = request.stream ? (request.stream.session?.socket as TLSSocket) : (request.socket as TLSSocket);
      const peer = socket.getPeerX509Certificate();
      seen.push({
        url: request.url,
        spiffeId: peer && spiffeIdOf(peer.raw),
        serial: peer?.serialNumber ?? '',
        version: socket.getProtocol(),
        http: request.httpVersion,
        authorization: request.headers.authorization,
      });
      response.end('ok');
    },
  );
  server.on('tlsClientError', () => undefined);
  server.on('sessionError', () => undefined);
  const clientCas = (...pems: readonly string[]): void => server.setSecureContext({ ...options, ca: [...pems] });
  clientCas(readFileSync(files.brokerCa, 'utf8'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => server.close());

  writeFileSync(files.originCa, authority.pem);
  const pinned = { ...stack.origin, httpsPort: (server.address() as AddressInfo).port };
  const proxy = await startProxy(parseSettings(proxyYaml(files, broker.grpc.port, collector.grpc.port, pinned), 'proxy.yaml') as never, {
    log: stack.log('proxy'),
  });
  t.teardown(() => proxy.close());
  await Promise.all([collector.ready(), proxy.ready()]);
  const ask = async (path: string): Promise<string> => {
    const { socket, refusal } = await tunnelTo(proxy.listen.port, `${host}:443`);
    if (refusal !== undefined) return refusal;
    const secured = await secure(socket, readFileSync(files.bundle, 'utf8'), host);
    const answer = await exchange(secured, `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
    secured.destroy();
    return answer;
  };
  return {
    ...stack,
    proxy,
    seen,
    ask,
    clientCas,
    apply: (of: string, more?: string) =>
      broker.apply(parseSettings(brokerYaml(files, stack.issuer.url, changes(of, more)), 'broker.yaml') as never),
  };
};

const minted = (lifetime = '1h'): string => `  - { kind: x509, name: identity, lifetime: ${lifetime} }`;
const mutual = 'credentials: [{ provider: identity, placement: { kind: client_certificate } }]';

t.test('a target that asks for a certificate of the trust domain knows the workload, whose program has none', async (t) => {
  const { ask, seen, events } = await rig(t, () => minted(), `${mutual}, tlsVersionMin: 1.3`);
  t.match(await ask('/accounts'), /^HTTP\/1\.1 200/);
  t.match(seen, [{ url: '/accounts', spiffeId: workloadId, version: 'TLSv1.3', http: '1.1', authorization: undefined }]);
  const outcome = await eventually(() => events().find(({ kind }) => kind === 'outcome'));
  t.match(outcome['credentials'], [
    { providerKind: 'x509', provider: 'identity', placement: 'client_certificate', fingerprint: /^[0-9a-f]{32}$/ },
  ]);
});

t.test('over HTTP/2 too, where that is what the target speaks', async (t) => {
  const { ask, seen } = await rig(t, () => minted(), `${mutual}, protocol: h2`, { allowHTTP1: false });
  t.match(await ask('/accounts'), /^HTTP\/1\.1 200/);
  t.match(seen, [{ spiffeId: workloadId, http: '2.0' }]);
});

t.test('a target below the TLS floor gets nothing', async (t) => {
  const { ask, seen, apply } = await rig(t, () => minted(), `${mutual}, tlsVersionMin: "1.3"`, { maxVersion: 'TLSv1.2' });
  t.match(await ask('/accounts'), /^HTTP\/1\.1 502 [^]*"code":"target_tls_failed"/);
  t.same(seen, []);
  apply(minted(), mutual);
  await eventually(async () => (await ask('/accounts')).startsWith('HTTP/1.1 200'));
  t.match(seen, [{ version: 'TLSv1.2', spiffeId: workloadId }], 'the floor was the reason');
});

t.test('a new certificate is shown on a new connection, never an old one on its behalf', async (t) => {
  const { ask, seen, apply } = await rig(t, () => minted(), mutual);
  await ask('/1');
  await ask('/2');
  t.equal(seen[0]?.serial, seen[1]?.serial, 'one grant, one certificate');
  apply(minted('30m'));
  await eventually(async () => {
    await ask('/later');
    return seen.at(-1)?.serial !== seen[0]?.serial;
  });
  const serial = seen.at(-1)?.serial;
  await ask('/again');
  t.equal(seen.at(-1)?.serial, serial, 'and from then on it alone');
});

t.test('a certificate from a file: shown, re-read, refused when it is broken, and said nowhere', async (t) => {
  const [first, second] = [soundBundle(Date.now()), soundBundle(Date.now())];
  const authorityOf = (bundle: string): string => certificateText(bundle).split(/(?<=-----END CERTIFICATE-----\n)/)[1] as string;
  let file = '';
  const stack = await rig(
    t,
    (dir) => {
      file = join(dir, 'client.pem');
      writeFileSync(file, first);
      return `  - { kind: static_file, name: identity, file: "${file}", recheck: 1s }`;
    },
    mutual,
  );
  const { ask, seen, clientCas, proxy, logs, events } = stack;
  clientCas(authorityOf(first), authorityOf(second));
  const said: string[] = [await ask('/first')];
  t.match(said[0], /^HTTP\/1\.1 200/);
  t.equal(seen.at(-1)?.spiffeId, 'spiffe://clients.test/a');
  writeFileSync(file, second);
  await eventually(async () => {
    said.push(await ask('/second'));
    return seen.at(-1)?.serial !== seen[0]?.serial;
  });
  writeFileSync(file, certificateText(first) + keyText(second));
  const answer = await eventually(async () => {
    const text = await ask('/broken');
    return text.includes('credential_invalid') && text;
  });
  t.match(answer, /^HTTP\/1\.1 502 [^]*private key that is not that of its first certificate/);
  t.ok((await metric(proxy.admin, 'outrider_proxy_static_credential_requests_total', 'target="bank"')) > 0, 'counted as migration debt');
  const places = [...said, answer, ...logs, JSON.stringify(await eventually(() => (events().length > 0 ? events() : undefined)))].join(
    '\n',
  );
  for (const bundle of [first, second])
    for (const line of keyText(bundle)
      .split('\n')
      .filter((one) => one.length > 40))
      t.notOk(places.includes(line), 'no line of a key');
});
