import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createH2cServer } from 'node:http2';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import t, { type Test } from 'tap';
import { buildBundle } from '../../scripts/build.ts';
import { field } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import {
  type Finished,
  podsArePossible,
  proxyUid,
  startTransparentStack,
  transparentPort,
  type TransparentStack,
} from '../support/namespace.ts';
import { fromBundle } from '../support/processes.ts';
import { eventually, host } from '../support/stack.ts';

t.setTimeout(120_000);

/** Real programs in a real network namespace, behind rules that `outrider steer` installed; nothing tells them of a proxy. */
const speaker = join(import.meta.dirname, 'transparent/speak.mjs');
const mail = 'mail.outrider.test';
/** A target's name that leads to somebody else's machine. */
const moved = 'moved.outrider.test';

const twoTargets = {
  targets: `  - name: echo
    hosts: [${host}, ${moved}]
    ports: [443, 80]
    cleartext: allowed
    credentials: [{ provider: echo-token, placement: { kind: bearer } }]
  - name: mail
    hosts: [${mail}]
    ports: [2525, 3306]
    credentials: [{ provider: echo-token, placement: { kind: bearer } }]`,
  policies: `  - name: demo
    rules:
      - { name: use-both, effect: allow, workloads: [demo-app], targets: [echo, mail] }`,
};

const curl = (stack: TransparentStack, ...args: readonly string[]): Promise<Finished> =>
  stack.pod.run('curl', ['--silent', '--show-error', '--max-time', '20', '--cacert', stack.bundle, ...args]);

const speak = async (stack: TransparentStack, ...args: readonly string[]): Promise<Record<string, string>> => {
  const { out, err } = await stack.pod.run(process.execPath, [speaker, ...args]);
  if (out === '') throw new Error(err);
  return JSON.parse(out) as Record<string, string>;
};

const listen = async (t: Test, server: Server, port: number, address: string): Promise<void> => {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  server.listen(port, address);
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
};

/** Answers all that it was sent with the same bytes twice, when the program has said that it is done. */
const twice = (heard: Buffer[]): Server =>
  createServer({ allowHalfOpen: true }, (socket) => {
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('end', () => {
      const all = Buffer.concat(chunks);
      heard.push(all);
      socket.end(Buffer.concat([all, all]));
    });
  });

const sha256 = (...parts: readonly Buffer[]): string => createHash('sha256').update(Buffer.concat(parts)).digest('hex');

t.test('steered programs', async (t) => {
  if (!podsArePossible(t)) return;
  const stack = await startTransparentStack(t, twoTargets);
  const { pod, origin } = stack;
  /** What is outside and no target. */
  const authority = createTestAuthority('Outrider test authority elsewhere');
  const otherCa = join(stack.podDir, 'other-ca.pem');
  const originCa = join(stack.podDir, 'public/origin-ca.pem');
  writeFileSync(otherCa, authority.pem);
  copyFileSync(stack.files.originCa, originCa);
  chmodSync(originCa, 0o644);
  pod.nameHosts({
    [host]: [pod.outside.ipv4, pod.outside.ipv6],
    [moved]: [pod.elsewhere.ipv4],
    'plain.outrider.test': [pod.elsewhere.ipv4, pod.elsewhere.ipv6],
  });

  for (const family of ['-4', '-6']) {
    for (const scheme of ['https', 'http']) {
      t.test(`IPv${family[1]}, ${scheme}: the credential is there, and the program's own is not`, async (t) => {
        const before = origin.requests.length;
        const { status, out, err } = await curl(stack, family, '-H', 'Authorization: Bearer mine', `${scheme}://${host}/hello`);
        t.strictSame({ status, out, err }, { status: 0, out: 'ok', err: '' });
        const [request, ...more] = origin.requests.slice(before);
        t.strictSame(more, []);
        t.match(request && field(request, 'authorization'), [/^Bearer eyJ/]);
        t.equal(request && field(request, 'authorization').length, 1);
      });
    }
  }

  for (const how of ['whole', 'segments', 'records']) {
    t.test(`a ClientHello sent ${how === 'whole' ? 'at once' : `in many ${how}`} is read to its end`, async (t) => {
      const { answer, issuer } = await speak(stack, 'get', `https://${host}/split`, pod.outside.ipv4, stack.bundle, how);
      t.match(answer, /^HTTP\/1\.1 200 [^]*ok/);
      t.match(issuer, /^Outrider interception/, 'intercepted');
    });
  }

  t.test('HTTP/2 in clear text: each request by its own name, with the credential for a target, else to where it was sent', async (t) => {
    const elsewhere: string[] = [];
    const server = createH2cServer((request, response) => {
      elsewhere.push(`${request.headers[':authority']} ${request.headers['authorization'] ?? 'no credential'}`);
      response.end('elsewhere');
    });
    await listen(t, server, 80, pod.elsewhere.ipv4);
    const before = origin.requests.length;
    t.match(await curl(stack, '-4', '--http2-prior-knowledge', `http://${host}/h2c`), { status: 0, out: 'ok' });
    t.match(
      origin.requests.slice(before).map((request) => field(request, 'authorization')),
      [[/^Bearer eyJ/]],
    );
    t.match(await curl(stack, '-4', '--http2-prior-knowledge', 'http://plain.outrider.test/h2c'), { status: 0, out: 'elsewhere' });
    t.strictSame(elsewhere, ['plain.outrider.test no credential']);
  });

  t.test('TLS to a name that no target has is the far end’s own, on a port of targets and on any other', async (t) => {
    for (const port of [443, 8443]) {
      const server = createTlsServer(authority.serverFor('plain.outrider.test'), (socket) => {
        socket.on('error', () => undefined);
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nplain');
      });
      await listen(t, server, port, pod.elsewhere.ipv4);
      const url = `https://plain.outrider.test:${port}/`;
      t.match(await curl(stack, '-4', '--cacert', otherCa, url), { status: 0, out: 'plain' });
      t.match(await curl(stack, '-4', url), { status: 60 }, 'the bundle is not what verifies it');
    }
  });

  for (const [what, port, hex] of [
    ['bytes that are nobody’s protocol, on a port of a target', 443, 'deadbeef'],
    ['what begins like TLS and is not, on a port of a target', 443, '16030100ff01000000'],
    [
      'a request for a name that no target has, on a port of a target',
      80,
      Buffer.from('GET / HTTP/1.1\r\nHost: other.test\r\n\r\n').toString('hex'),
    ],
    [
      'a request with two hosts, on a port of a target',
      80,
      Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\nHost: ${host}\r\n\r\n`).toString('hex'),
    ],
    ['anything, on a port that no target names', 9_000, Buffer.from('GET / HTTP/1.1\r\n').toString('hex')],
  ] as const) {
    t.test(`${what}: passed byte for byte both ways, IPv4 and IPv6`, async (t) => {
      for (const address of [pod.elsewhere.ipv4, pod.elsewhere.ipv6]) {
        const heard: Buffer[] = [];
        await listen(t, twice(heard), port, address);
        const { sent, got } = await speak(stack, 'exchange', address, String(port), '3000000', hex);
        const [all = Buffer.alloc(0)] = heard;
        t.equal(all.length, 3_000_000 + hex.length / 2);
        t.equal(sha256(all), sent);
        t.equal(sha256(all, all), got);
      }
    });
  }

  for (const [what, port, greeting] of [
    ['SMTP on a port of a target', 2_525, '220 mail.outrider.test ESMTP\r\n'],
    ['MySQL on a port of a target', 3_306, '\x4a\x00\x00\x00\x0a8.4.0\x00 and its salt'],
    ['SMTP on a port that no target names', 2_526, '220 other ESMTP\r\n'],
  ] as const) {
    t.test(`${what}: the server that speaks first is heard`, async (t) => {
      const server = createServer((socket) => {
        socket.write(Buffer.from(greeting, 'latin1'));
        socket.once('data', () => socket.end('221 bye\r\n'));
      });
      await listen(t, server, port, pod.elsewhere.ipv4);
      const { got } = await speak(stack, 'listen', pod.elsewhere.ipv4, String(port), String(greeting.length));
      t.equal(got, `${greeting}221 bye\r\n`);
    });
  }

  t.test('an attacker’s address under a target’s name sees neither a credential nor a handshake', async (t) => {
    const seen: string[] = [];
    let connections = 0;
    const count = (server: Server): Server => server.on('connection', () => (connections += 1));
    // For the target's name, from an authority that nobody trusts.
    const secure = createTlsServer(createTestAuthority('attacker').serverFor(moved), (socket) => {
      seen.push('a handshake');
      socket.on('data', (chunk) => seen.push(chunk.toString()));
    });
    const plain = createServer((socket) => void socket.on('data', (chunk) => seen.push(chunk.toString())));
    await listen(t, count(secure), 443, pod.elsewhere.ipv4);
    await listen(t, count(plain), 80, pod.elsewhere.ipv4);

    t.test('when the program is told the wrong address, the right one is asked', async (t) => {
      const before = origin.requests.length;
      for (const [scheme, port] of [
        ['https', 443],
        ['http', 80],
      ] as const) {
        const resolve = ['--resolve', `${host}:${port}:${pod.elsewhere.ipv4}`];
        t.match(await curl(stack, ...resolve, `${scheme}://${host}/attacked`), { status: 0, out: 'ok' });
      }
      t.match(
        origin.requests.slice(before).map((request) => field(request, 'authorization')),
        [[/^Bearer eyJ/], [/^Bearer eyJ/]],
      );
      t.equal(connections, 0);
    });

    t.test('when the name itself leads there, its certificate is not believed', async (t) => {
      t.match(await curl(stack, `https://${moved}/poisoned`), { status: 0, out: /"code":"target_certificate_invalid"/ });
      t.ok(connections > 0);
      t.strictSame(seen, []);
    });
  });

  t.test('the proxy’s own user is not steered', async (t) => {
    const before = origin.requests.length;
    const { status, out } = await pod.run('curl', ['--silent', '--cacert', originCa, '-4', `https://${host}/own`], { uid: proxyUid });
    t.strictSame({ status, out }, { status: 0, out: 'ok' }, 'it meets the origin’s certificate');
    t.strictSame(
      origin.requests.slice(before).map((request) => field(request, 'authorization')),
      [[]],
    );
  });

  t.test('a connection that nobody steered is closed and counted', async (t) => {
    for (const address of ['127.0.0.1', '[::1]']) {
      const { status } = await curl(stack, '--globoff', `http://${address}:${transparentPort}/`);
      // Reset while curl connects, or right after.
      t.ok([7, 52, 56].includes(status as number), `curl ended with ${status}`);
    }
    t.equal(await stack.metric('outrider_proxy_faults_total', 'code="authority_invalid"'), 2);
  });

  t.test('excepted ports and ranges go by themselves, and so does all but the only ports', async (t) => {
    const steer = (...args: readonly string[]): Promise<Finished> =>
      pod.outrider('steer', 'install', '--except-uid', String(proxyUid), ...args);
    const isSteered = async (url: string): Promise<boolean> => {
      const [by, past] = [await curl(stack, '-4', url), await curl(stack, '-4', '--cacert', originCa, url)];
      if ((by.status === 0) === (past.status === 0)) throw new Error(`${by.err}, ${past.err}`);
      return by.status === 0;
    };
    for (const [flags, steered] of [
      [['--except-port', '25,400-500'], false],
      [['--except-port', '25,444-500'], true],
      [['--except-range', `fd00::/8,${pod.outside.ipv4}/28`], false],
      [['--except-range', `fd00::/8,${pod.elsewhere.ipv4}`], true],
      [['--only-port', '80,8000-9000'], false],
      [['--only-port', '80,443'], true],
      [[], true],
    ] as const) {
      t.match(await steer(...flags), { status: 0, err: '' });
      t.equal(await isSteered(`https://${host}/excepted`), steered, flags.join(' '));
    }
  });

  t.test('what passed is on record with its name or its address, and nothing stays open', async (t) => {
    await eventually(async () => (await stack.metric('outrider_proxy_connections')) === 0);
    const passed = await eventually(() => {
      const found = stack.events().filter(({ kind, scheme }) => kind === 'pass' && scheme === 'tunnel');
      return found.some(({ destination }) => destination === `${pod.elsewhere.ipv4}:2526`) ? found : undefined;
    });
    const destinations = new Set(passed.map(({ destination }) => destination));
    for (const wanted of ['plain.outrider.test:443', `${pod.elsewhere.ipv4}:8443`, 'other.test:80', `[${pod.elsewhere.ipv6}]:9000`])
      t.ok(destinations.has(wanted), wanted);
  });
});

t.test('started as the image starts it, the bundle steers too: it brings what reads the original destination', async (t) => {
  if (!podsArePossible(t)) return;
  // Away from the repository, where no node_modules is above it.
  const directory = mkdtempSync(join(tmpdir(), 'outrider-bundle-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  await buildBundle(directory);
  chmodSync(directory, 0o755);
  const stack = await startTransparentStack(t, { program: fromBundle(directory) });
  for (const family of ['-4', '-6']) t.match(await curl(stack, family, `https://${host}/bundled`), { status: 0, out: 'ok' });
  t.match(
    stack.origin.requests.map((request) => field(request, 'authorization')),
    [[/^Bearer eyJ/], [/^Bearer eyJ/]],
  );
});

t.test('what no target names is refused where it is configured so, in words where there is room for them', async (t) => {
  if (!podsArePossible(t)) return;
  const stack = await startTransparentStack(t, { onUnmatched: 'refuse' });
  const { pod } = stack;
  let connections = 0;
  for (const port of [80, 443, 9_000])
    await listen(
      t,
      createServer(() => (connections += 1)),
      port,
      pod.elsewhere.ipv4,
    );
  pod.nameHosts({ [host]: [pod.outside.ipv4], 'plain.outrider.test': [pod.elsewhere.ipv4] });
  t.match(await curl(stack, `https://${host}/`), { status: 0, out: 'ok' });
  t.match(await curl(stack, 'http://plain.outrider.test/'), { status: 0, out: /"code":"destination_unmatched"/ });
  t.match(await curl(stack, 'https://plain.outrider.test/'), { status: 35, err: /alert.*access denied/i });
  t.match(await speak(stack, 'exchange', pod.elsewhere.ipv4, '9000', '10'), { error: 'ECONNRESET' });
  t.equal(connections, 0);
});
