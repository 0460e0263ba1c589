import { X509Certificate } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { connect, getCACertificates, TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import { limits } from '../../src/core/limits.ts';
import { createLog } from '../../src/ops/log.ts';
import { type Interception, publicRoots } from '../../src/proxy/listener/interception.ts';
import { dersOf, pemOf } from '../../src/pki/pem.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { isPermitted, isSameKey, podIn, roots } from './interception/pod.ts';

const host = 'echo.outrider.test';
const other = 'other.outrider.test';
const hourMs = 3_600_000;

/** What a program that trusts `trusted` is shown for the host, as many certificates as came; rejects when it does not trust it. */
const shake = async (interception: Interception, name: string, trusted: X509Certificate): Promise<X509Certificate[]> => {
  const server = createServer((plain) => {
    const socket = new TLSSocket(plain, { isServer: true, secureContext: interception.contextFor(name) });
    socket.on('error', () => undefined);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const socket = connect({ port, host: '127.0.0.1', servername: name, ca: trusted.toString() });
  try {
    await once(socket, 'secureConnect');
    const chain: X509Certificate[] = [];
    for (let next = socket.getPeerX509Certificate(); next; next = next.issuerCertificate) {
      if (chain.some(({ fingerprint256 }) => fingerprint256 === next?.fingerprint256)) break;
      chain.push(next);
    }
    return chain;
  } finally {
    socket.destroy();
    server.close();
  }
};

t.test('the bundle holds every public root once, and our authority', async (t) => {
  const pod = podIn(directoryOf(t));
  pod.start().permit([host]);
  const found = dersOf(readFileSync(pod.bundleFile, 'utf8')).map((der) => der.toString('base64'));
  t.equal(new Set(found).size, found.length, 'none twice');
  for (const pem of getCACertificates('bundled')) t.ok(found.includes((dersOf(pem)[0] as Buffer).toString('base64')));
  t.match(pod.published().subject, 'CN=Outrider interception 1');
  t.equal(found.length, roots.length + 1);
  t.ok(isPermitted(pod.published(), host));
});

t.test('what programs read is readable by all and what the proxy keeps by itself alone, whatever the umask', async (t) => {
  for (const umask of [0o000, 0o077]) {
    const pod = podIn(join(directoryOf(t), String(umask)));
    const before = process.umask(umask);
    try {
      pod.start().permit([host]);
    } finally {
      process.umask(before);
    }
    const modeOf = (file: string): number => statSync(file).mode & 0o777;
    t.equal(modeOf(pod.bundleFile), 0o644);
    t.equal(modeOf(pod.trustStoreFile), 0o644);
    t.equal(modeOf(pod.stateFile), 0o600);
    t.equal(modeOf(join(pod.stateFile, '..')) & 0o077, 0);
  }
});

t.test('the private key is in no file that programs read', async (t) => {
  const pod = podIn(directoryOf(t));
  pod.start().permit([host]);
  const key = readFileSync(pod.stateFile, 'utf8').split(/-----[A-Z ]*PRIVATE KEY-----/)[1] as string;
  const scalar = Buffer.from(key, 'base64').subarray(36, 68);
  t.equal(scalar.length, 32);
  t.strictSame(readdirSync(pod.publicDirectory).toSorted(), ['ca-bundle.pem', 'trust-store.p12']);
  for (const file of readdirSync(pod.publicDirectory)) {
    const content = readFileSync(join(pod.publicDirectory, file));
    t.notOk(content.includes(scalar) || content.includes(key.trim()) || content.includes('PRIVATE KEY'), file);
  }
});

t.test('a program that is reading the bundle while it is replaced reads the old one to its end', async (t) => {
  const pod = podIn(directoryOf(t));
  const interception = pod.start();
  interception.permit([host]);
  const old = readFileSync(pod.bundleFile);
  const reader = openSync(pod.bundleFile, 'r');
  const bytes = Buffer.alloc(old.length + 1);
  readSync(reader, bytes, 0, 1_000, null);
  interception.permit([host, other]);
  let length = 1_000;
  for (let more = 1; more > 0; length += more) more = readSync(reader, bytes, length, bytes.length - length, null);
  closeSync(reader);
  t.ok(bytes.subarray(0, length).equals(old));
  t.ok(isPermitted(pod.published(), other), 'who opens it now reads the new one');
});

t.test('nothing is written again when the same hosts are named again, in any order', async (t) => {
  const pod = podIn(directoryOf(t));
  const interception = pod.start();
  interception.permit([host, other]);
  const { serialNumber } = pod.published();
  for (const file of [pod.bundleFile, pod.trustStoreFile, pod.stateFile]) rmSync(file);
  interception.permit([other, host]);
  t.notOk(existsSync(pod.bundleFile) || existsSync(pod.trustStoreFile) || existsSync(pod.stateFile));
  interception.permit([other]);
  t.not(pod.published().serialNumber, serialNumber);
  t.notOk(isPermitted(pod.published(), host), 'what is no longer named is no longer permitted');
});

t.test('an authority outlives a restart: same name, same key, and the same certificate for the same hosts', async (t) => {
  const pod = podIn(directoryOf(t));
  pod.start().permit([host]);
  const first = pod.published();
  pod.clock.advance(60_000);
  const restarted = pod.start();
  t.ok(pod.published().raw.equals(first.raw), 'what was permitted stands before the broker is heard');
  t.throws(() => restarted.contextFor(host), /no leaf/, 'but nothing is intercepted before that');
  restarted.permit([host]);
  t.ok(pod.published().raw.equals(first.raw));
  restarted.permit([host, other]);
  const changed = pod.published();
  t.ok(isSameKey(changed, first));
  t.not(changed.serialNumber, first.serialNumber);
  const { issuer } = (await shake(restarted, host, first))[0] as X509Certificate;
  t.equal(issuer, first.subject, 'who trusts the old certificate is served');
  await t.rejects(shake(restarted, other, first), /permitted subtree/, 'where the old certificate permits it');
  t.equal(pod.logs.filter(({ level }) => level === 'error').length, 0);
});

t.test('without a file for it an authority ends with its process', async (t) => {
  const pod = podIn(directoryOf(t));
  pod.start({ stateFile: undefined }).permit([host]);
  const first = pod.published();
  const restarted = pod.start({ stateFile: undefined });
  restarted.permit([host]);
  t.notOk(isSameKey(pod.published(), first));
  await t.rejects(shake(restarted, host, first), /unable to verify|self.signed/);
  t.notOk(existsSync(pod.stateFile));
});

t.test('a file left half-written by a process that was killed is no obstacle', async (t) => {
  const pod = podIn(directoryOf(t));
  pod.start().permit([host]);
  const first = pod.published();
  for (const file of [pod.bundleFile, pod.stateFile]) writeFileSync(`${file}.new`, 'half');
  pod.start().permit([host, other]);
  t.ok(isSameKey(pod.published(), first));
  t.notOk(existsSync(`${pod.bundleFile}.new`) || existsSync(`${pod.stateFile}.new`));
});

t.test('an authority is written anew, by the same key, when half its life is over', async (t) => {
  const pod = podIn(directoryOf(t));
  const interception = pod.start();
  interception.permit([host]);
  const first = pod.published();
  pod.clock.advance(limits.interceptionAuthorityLifetimeMs / 2 - hourMs);
  interception.contextFor(host);
  t.ok(pod.published().raw.equals(first.raw), 'not before');
  pod.clock.advance(2 * hourMs);
  interception.contextFor(host);
  const second = pod.published();
  t.ok(isSameKey(second, first));
  t.ok(second.validToDate.getTime() > first.validToDate.getTime() + 100 * 24 * hourMs);
  pod.start();
  t.ok(pod.published().raw.equals(second.raw), 'and stored');
});

t.test(
  'a target that comes later is trusted by who read the bundle before, under a domain that was permitted from the start',
  async (t) => {
    const pod = podIn(directoryOf(t));
    const [later, elsewhere] = ['later.internal.example', 'later.elsewhere.example'];
    const interception = pod.start({ domains: ['internal.example'] });
    interception.permit([host]);
    const first = pod.published();
    t.throws(() => interception.contextFor(later), /no leaf/, 'a domain alone intercepts nothing');
    interception.permit([host, later, elsewhere]);
    t.equal((await shake(interception, later, first)).length > 0, true);
    await t.rejects(shake(interception, elsewhere, first), /permitted subtree/);
  },
);

t.test('a leaf for what is not permitted is never made, a name below a permitted one included', async (t) => {
  const interception = podIn(directoryOf(t)).start();
  t.throws(() => interception.contextFor(host), /no leaf/);
  interception.permit([host]);
  for (const name of [`below.${host}`, 'outrider.test', '127.0.0.1', '']) t.throws(() => interception.contextFor(name), /no leaf/, name);
  t.equal(interception.contextFor(host), interception.contextFor(host), 'one that was made is used again');
});

t.test('the authority goes along with a leaf, unless the hosts it names are many', async (t) => {
  const pod = podIn(directoryOf(t));
  const interception = pod.start();
  interception.permit([host]);
  t.strictSame(
    (await shake(interception, host, pod.published())).map(({ ca }) => ca),
    [false, true],
  );
  interception.permit([host, ...Array.from({ length: 10_000 }, (_, i) => `service-${i}.some-namespace.outrider.test`)]);
  // What Node takes in one handshake is bounded by OpenSSL: 100 KiB of certificates.
  t.ok(pod.published().raw.length > 300_000);
  t.equal((await shake(interception, host, pod.published()))[0]?.subjectAltName, `DNS:${host}`);
});

t.test('what programs are to trust must be writable at the start; later a failure is told and tried again', async (t) => {
  const dir = directoryOf(t, { file: '' });
  const pod = podIn(dir);
  t.throws(() => pod.start({ bundleFile: join(dir, 'file', 'ca-bundle.pem') }), { code: /ENOTDIR|EEXIST/ });
  t.ok(existsSync(pod.stateFile), 'nobody comes to trust what the next process would not know');
  t.throws(() => pod.start({ trustStoreFile: join(dir, 'file', 'trust-store.p12') }), { code: /ENOTDIR|EEXIST/ });

  const interception = pod.start();
  interception.permit([host]);
  const first = pod.published();
  const aside = readFileSync(pod.bundleFile);
  rmSync(pod.bundleFile);
  mkdirSync(join(pod.bundleFile, 'in-the-way'), { recursive: true });
  interception.permit([host, other]);
  t.match(pod.logs.at(-1), { level: 'error', message: 'what programs are to trust could not be written' });
  t.ok(await shake(interception, host, first), 'who has read the old one is served meanwhile');
  rmSync(pod.bundleFile, { recursive: true });
  writeFileSync(pod.bundleFile, aside);
  interception.permit([host, other]);
  t.ok(isPermitted(pod.published(), other));
});

t.test('public roots', async (t: Test) => {
  const readable = createTestAuthority('A public root');
  const lines: string[] = [];
  const log = createLog({ role: 'proxy', level: 'debug', write: (line) => lines.push(line) });
  const bundled = getCACertificates('bundled').slice(0, 3);
  const found = (system: () => readonly string[]): string[] =>
    publicRoots(log, (kind) => (kind === 'system' ? system() : bundled)).map(({ alias }) => alias.replace(/ [0-9a-f]{16}$/, ''));

  t.test('are those of the system and of Node, each once though spelled differently', async (t) => {
    const spelled = (bundled[0] as string).replaceAll('\n', '\r\n');
    const names = found(() => [readable.pem, readable.pem, spelled]);
    t.equal(names.length, 4);
    t.ok(names.includes('a public root'));
  });
  t.test('are those of Node where the system has none or cannot tell', async (t) => {
    const broken = (): never => {
      throw new Error('unreadable');
    };
    for (const system of [() => [], broken]) {
      lines.length = 0;
      t.equal(found(system).length, 3);
      t.match(lines.join(''), 'the system has no roots');
    }
  });
  t.test('are never an interception authority, as when SSL_CERT_FILE names the bundle we wrote', async (t) => {
    const pod = podIn(directoryOf(t));
    pod.start().permit([host]);
    const system = dersOf(readFileSync(pod.bundleFile, 'utf8')).map((der) => new X509Certificate(der).toString());
    t.ok(system.some((pem) => new X509Certificate(pem).subject.startsWith('CN=Outrider interception')));
    t.notOk(found(() => system).some((name) => name.startsWith('outrider')));
  });
  t.test('are no certificates of servers, which lie beside the roots on some systems, and nothing unreadable', async (t) => {
    const { cert } = readable.serverFor('localhost');
    t.strictSame(
      found(() => [cert, 'garbage', readable.pem, pemOf(Buffer.from('no certificate'))]),
      found(() => [readable.pem]),
    );
  });
});
