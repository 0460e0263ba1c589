/** Our certificates before those who must accept or refuse them: OpenSSL, Node, Go and Python. */
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import tls from 'node:tls';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { type SpiffeId, spiffeId } from '../../src/core/spiffe-id.ts';
import { type Authority, type AuthorityOptions, createAuthority, loadAuthority } from '../../src/pki/authority.ts';
import { objectIdentifier, octetString, sequence } from '../../src/pki/der.ts';
import { extensionIds, subjectAltName } from '../../src/pki/extension.ts';
import { createKeyPair } from '../../src/pki/key.ts';
import { issueEndEntity, issueLeaf } from '../../src/pki/leaf.ts';
import { attestedOf, issueSvid, spiffeIdOf } from '../../src/pki/svid.ts';
import { needs, run, runBeside } from './external-program.ts';

const nowMs = Date.now();
const hourMs = 3_600_000;
const authority = (o: Partial<AuthorityOptions> = {}): Authority =>
  createAuthority({ commonName: 'test authority', key: createKeyPair(), nowMs, lifetimeMs: 24 * hourMs, ...o });
const interception = (...permittedHosts: string[]): Authority => authority({ permittedHosts });
const domain = authority({ commonName: 'outrider.test', spiffeTrustDomain: 'outrider.test' });

const key = createKeyPair();
const keyPem = key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
const leaf = (from: Authority, host: string): string => issueLeaf(from, { host, publicKey: key.publicKey, nowMs, lifetimeMs: hourMs }).pem;
const svid = (from: Authority, id: SpiffeId, ...hosts: string[]): string =>
  issueSvid(from, { spiffeId: id, publicKey: key.publicKey, hosts, nowMs, lifetimeMs: hourMs }).pem;

interface Case {
  readonly name: string;
  readonly authority: Authority;
  readonly certificate: string;
  /** What a client asks for; '' to look at the chain alone. */
  readonly host: string;
  readonly isAccepted: boolean;
  /** Where Go differs. */
  readonly isAcceptedByGo?: boolean;
}

const mixed = interception('echo.outrider.test', '127.0.0.1', '2001:db8::7');
const namesOnly = interception('echo.outrider.test', 'api.outrider.test');
const addressesOnly = interception('127.0.0.1');
const nothing = interception();
const workload = spiffeId('outrider.test', 'ns', 'demo', 'sa', 'demo-app');
const odd = authority({ commonName: 'odd', spiffeTrustDomain: '10.0.0.1' });

const host = (name: string, from: Authority, host: string, isAccepted: boolean): Case => ({
  name,
  authority: from,
  certificate: leaf(from, host),
  host,
  isAccepted,
});
const cases: readonly Case[] = [
  host('a permitted name', mixed, 'echo.outrider.test', true),
  host('a permitted IPv4 address', mixed, '127.0.0.1', true),
  host('a permitted IPv6 address', mixed, '2001:db8::7', true),
  host('a name beside the permitted one', mixed, 'evil.test', false),
  host('the name above the permitted one', mixed, 'outrider.test', false),
  host('a name that ends like the permitted one', mixed, 'xecho.outrider.test', false),
  host('an address beside the permitted one', mixed, '127.0.0.2', false),
  host('an IPv6 address beside the permitted one', mixed, '2001:db8::8', false),
  host('a permitted name, names only', namesOnly, 'api.outrider.test', true),
  host('an address, names only', namesOnly, '127.0.0.1', false),
  host('an IPv6 address, names only', namesOnly, '2001:db8::7', false),
  host('a permitted address, addresses only', addressesOnly, '127.0.0.1', true),
  host('a name, addresses only', addressesOnly, 'echo.outrider.test', false),
  host('an address of the other family, addresses only', addressesOnly, '2001:db8::7', false),
  host('a name, nothing permitted', nothing, 'echo.outrider.test', false),
  host('an address, nothing permitted', nothing, '127.0.0.1', false),
  host('an IPv6 address, nothing permitted', nothing, '2001:db8::7', false),
  host('any name, unconstrained', authority(), 'echo.outrider.test', true),
  { name: 'an SVID', authority: domain, certificate: svid(domain, workload), host: '', isAccepted: true },
  {
    name: 'an SVID that says what was attested',
    authority: domain,
    certificate: issueSvid(domain, {
      spiffeId: workload,
      publicKey: key.publicKey,
      attested: '{"is":"nobody else\'s to read"}',
      nowMs,
      lifetimeMs: hourMs,
    }).pem,
    host: '',
    isAccepted: true,
  },
  {
    name: 'an SVID with hosts, by name',
    authority: domain,
    certificate: svid(domain, workload, 'localhost', '127.0.0.1'),
    host: 'localhost',
    isAccepted: true,
  },
  {
    name: 'an SVID with hosts, by address',
    authority: domain,
    certificate: svid(domain, workload, 'localhost', '127.0.0.1'),
    host: '127.0.0.1',
    isAccepted: true,
  },
  {
    name: 'an SVID of another trust domain',
    authority: domain,
    certificate: svid(domain, spiffeId('other.test', 'ns', 'demo')),
    host: '',
    isAccepted: false,
  },
  {
    name: 'an SVID of a trust domain below',
    authority: domain,
    certificate: svid(domain, spiffeId('sub.outrider.test', 'ns')),
    host: '',
    isAccepted: false,
    // Go reads a URI constraint as it reads a DNS one. Those who verify SVIDs compare the trust domain as well.
    isAcceptedByGo: true,
  },
  {
    name: 'an SVID of a trust domain that is no host name',
    authority: odd,
    certificate: svid(odd, spiffeId('10.0.0.1', 'ns')),
    host: '',
    isAccepted: true,
  },
];

const files = (t: Test, { authority: { certificatePem }, certificate }: Case): { authority: string; certificate: string } => {
  const dir = t.testdir({ 'authority.pem': certificatePem, 'certificate.pem': certificate });
  return { authority: join(dir, 'authority.pem'), certificate: join(dir, 'certificate.pem') };
};

t.test('openssl judges strictly as meant', needs('openssl', 'version'), async (t) => {
  for (const c of cases) {
    const { authority, certificate } = files(t, c);
    for (const purpose of c.host === '' ? ['sslserver', 'sslclient'] : ['sslserver']) {
      const name = c.host === '' ? [] : [/^[0-9.]+$|:/.test(c.host) ? '-verify_ip' : '-verify_hostname', c.host];
      const { ok, output } = run('openssl', [
        'verify',
        '-x509_strict',
        '-check_ss_sig',
        '-purpose',
        purpose,
        ...name,
        '-CAfile',
        authority,
        certificate,
      ]);
      t.equal(ok, c.isAccepted, `${c.name}, ${purpose}: ${output}`);
      if (!c.isAccepted) t.match(output, /permitted subtree violation|excluded subtree violation/, 'refused for its name');
    }
  }
});

t.test('Go judges as meant', { ...needs('go', 'version'), timeout: 110_000 }, async (t) => {
  const dir = t.testdir();
  const program = join(dir, 'verify');
  const built = run('go', ['build', '-o', program, join(import.meta.dirname, 'verify.go')]);
  t.ok(built.ok, built.output);
  for (const c of cases) {
    const paths = { authority: join(dir, 'authority.pem'), certificate: join(dir, 'certificate.pem') };
    writeFileSync(paths.authority, c.authority.certificatePem);
    writeFileSync(paths.certificate, c.certificate);
    const { ok, output } = run(program, [paths.authority, paths.certificate, c.host]);
    const isAccepted = c.isAcceptedByGo ?? c.isAccepted;
    t.equal(ok, isAccepted, `${c.name}: ${output}`);
    if (!isAccepted) t.match(output, /is not permitted by any constraint|is excluded by constraint/, 'refused for its name');
  }
});

/** A TLS server with the certificate, until the callback is done. */
const serving = async (c: Case, callback: (port: number) => Promise<void>): Promise<void> => {
  const server = tls.createServer({ cert: c.certificate, key: keyPem }, (socket) => socket.end());
  server.on('tlsClientError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  await callback((server.address() as AddressInfo).port);
  server.close();
};

t.test('Node judges as meant', async (t) => {
  for (const c of cases) {
    await serving(c, async (port) => {
      const isName = c.host !== '' && !/^[0-9.]+$|:/.test(c.host);
      const socket = tls.connect({
        port,
        host: '127.0.0.1',
        ca: c.authority.certificatePem,
        ...(isName ? { servername: c.host } : {}),
        // Node compares with the address it dialled; these are judged by the name that the case is about.
        checkServerIdentity: (_, certificate) => (c.host === '' ? undefined : tls.checkServerIdentity(c.host, certificate)),
      });
      const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => {
        socket.once('secureConnect', () => resolve(undefined));
        socket.once('error', resolve);
      });
      socket.destroy();
      t.equal(error === undefined, c.isAccepted, `${c.name}: ${error?.message}`);
      if (!c.isAccepted) t.match(error?.message, /permitted subtree violation|excluded subtree violation/, 'refused for its name');
    });
  }
});

t.test('Python judges strictly as meant', needs('python3'), async (t) => {
  const wanted = [
    'a permitted name',
    'a permitted IPv4 address',
    'a name beside the permitted one',
    'a name, nothing permitted',
    'an SVID with hosts, by name',
  ];
  for (const c of cases.filter(({ name }) => wanted.includes(name))) {
    const { authority } = files(t, c);
    await serving(c, async (port) => {
      const { ok, output } = await runBeside('python3', [join(import.meta.dirname, 'verify.py'), authority, String(port), c.host]);
      t.equal(ok, c.isAccepted, `${c.name}: ${output}`);
      if (!c.isAccepted) t.match(output, /permitted subtree violation|excluded subtree violation/, 'refused for its name');
    });
  }
});

t.test('openssl reads in them what they are meant to say', needs('openssl', 'version'), async (t) => {
  const text = (pem: string): string => run('openssl', ['x509', '-noout', '-text'], { input: pem }).output;
  const ofAuthority = text(namesOnly.certificatePem);
  t.match(ofAuthority, /Version: 3 .*Basic Constraints: critical\s+CA:TRUE, pathlen:0.*Key Usage: critical\s+Certificate Sign\s/s);
  t.match(
    ofAuthority,
    /Name Constraints: critical\s+Permitted:\s+DNS:echo.outrider.test\s+DNS:api.outrider.test\s+Excluded:\s+IP:0.0.0.0\/0.0.0.0\s+IP:0:/,
  );
  t.match(text(nothing.certificatePem), /Permitted:\s+DNS:invalid\s+Excluded:\s+IP:0.0.0.0\/0.0.0.0\s+IP:0:/);
  t.match(text(domain.certificatePem), /URI:spiffe:\/\/outrider.test\n.*Name Constraints: critical\s+Permitted:\s+URI:outrider.test/s);
  const ofLeaf = text(leaf(mixed, 'echo.outrider.test'));
  t.match(ofLeaf, /Subject: \n.*Basic Constraints: critical\s+CA:FALSE.*Key Usage: critical\s+Digital Signature\n/s);
  t.match(ofLeaf, /Extended Key Usage: \s+TLS Web Server Authentication\n.*Subject Alternative Name: critical\s+DNS:echo.outrider.test\n/s);
  t.match(
    text(svid(domain, workload)),
    /TLS Web Server Authentication, TLS Web Client Authentication.*critical\s+URI:spiffe:\/\/outrider.test\/ns\/demo\/sa\/demo-app\n/s,
  );
});

t.test('a leaf is back-dated and never outlives its authority', async (t) => {
  const short = authority({ lifetimeMs: 10_500 });
  const issued = issueLeaf(short, { host: 'echo.outrider.test', publicKey: key.publicKey, nowMs, lifetimeMs: hourMs });
  const read = new X509Certificate(issued.der);
  t.equal(issued.notAfterMs, short.notAfterMs);
  t.equal(read.validToDate.getTime(), issued.notAfterMs, 'what is returned is what is written, in whole seconds');
  t.equal(read.validFromDate.getTime(), Math.floor((nowMs - limits.certificateBackdateMs) / 1000) * 1000);
  t.throws(
    () => issueLeaf(short, { host: 'echo.outrider.test', publicKey: key.publicKey, nowMs: nowMs + 11_000, lifetimeMs: hourMs }),
    /expired/,
  );
});

t.test('a name that is not canonical, or a wildcard, is never written', async (t) => {
  for (const host of ['*.outrider.test', 'Echo.outrider.test', 'echo.outrider.test.', 'a b', '', '127.1', '[::1]']) {
    t.throws(() => leaf(authority(), host), /not a canonical host name/, JSON.stringify(host));
  }
});

t.test('an authority is the same after it was stored', async (t) => {
  const stored = domain.key.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const loaded = loadAuthority(domain.certificatePem, stored);
  t.ok(loaded.certificateDer.equals(domain.certificateDer));
  t.equal(loaded.notAfterMs, domain.notAfterMs);
  t.equal(spiffeIdOf(issueSvid(loaded, { spiffeId: workload, publicKey: key.publicKey, nowMs, lifetimeMs: hourMs }).der), workload);
  t.throws(() => loadAuthority(domain.certificatePem, keyPem), /not an authority with this key/);
  t.throws(() => loadAuthority(leaf(domain, 'a.test'), keyPem), /not an authority with this key/);
  t.throws(() => loadAuthority('', stored), /one certificate/);
});

t.test('the SPIFFE ID of a certificate is its only URI, on a leaf alone', async (t) => {
  const issue = (uris: readonly string[]): Buffer =>
    issueEndEntity(authority(), {
      publicKey: key.publicKey,
      nowMs,
      lifetimeMs: hourMs,
      extensions: [subjectAltName(true, { uris, hosts: ['a.test'] })],
    }).der;
  t.equal(spiffeIdOf(issue([workload])), workload);
  t.equal(spiffeIdOf(issue([workload, 'spiffe://outrider.test/other'])), undefined, 'two');
  t.equal(spiffeIdOf(issue([])), undefined, 'none');
  t.equal(spiffeIdOf(issue(['https://outrider.test/ns'])), undefined, 'another scheme');
  t.equal(spiffeIdOf(issue(['spiffe://outrider.test/a/../b'])), undefined, 'a dot segment');
  t.equal(spiffeIdOf(issue([`${workload}, URI:spiffe://outrider.test/other`])), undefined, 'what would be two in a printed list');
  t.equal(spiffeIdOf(domain.certificateDer), undefined, 'an authority');
  t.equal(spiffeIdOf(Buffer.from('30800000', 'hex')), undefined, 'no certificate');
  const whole = issue([workload]);
  t.ok(
    [...whole.keys()].every((length) => spiffeIdOf(whole.subarray(0, length)) === undefined),
    'cut',
  );
});

t.test('what was attested is read as it was written, whatever it is, and is not there in others', async (t) => {
  const issue = (attested?: string): Buffer =>
    issueSvid(domain, {
      spiffeId: workload,
      publicKey: key.publicKey,
      nowMs,
      lifetimeMs: hourMs,
      ...(attested !== undefined && { attested }),
    }).der;
  for (const text of ['', '{}', 'ümlaut \u0000 and more', 'x'.repeat(4_096)]) t.equal(attestedOf(issue(text)), text);
  t.equal(attestedOf(issue()), undefined);
  t.equal(attestedOf(domain.certificateDer), undefined);
  t.equal(attestedOf(Buffer.from('no certificate')), undefined);
  const other = issueEndEntity(domain, {
    publicKey: key.publicKey,
    nowMs,
    lifetimeMs: hourMs,
    // The extension with another type in it.
    extensions: [sequence(objectIdentifier(extensionIds.attestation), octetString(octetString(Buffer.from('{}'))))],
  });
  t.equal(attestedOf(other.der), undefined);
});
