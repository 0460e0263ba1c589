import t from 'tap';
import { Fault } from '../../src/core/fault.ts';
import { reconcile } from '../../src/proxy/route.ts';
import { type Recorder, startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { dial, exchange, type Path, secure, startPath, target, tunnelTo, wholeResponse } from '../support/path.ts';

/**
 * THREATS E-1 to E-3: a client names its destination up to four times (CONNECT, TLS server name, absolute-form, Host). A credential
 * is seen only where all that are there agree. Every combination over real sockets.
 */
const authority = createTestAuthority();
const values = { allowed: 'echo.outrider.test', otherAllowed: 'other.outrider.test', unlisted: 'attacker.outrider.test' } as const;
const names = [...Object.values(values), undefined] as const;

let origin: Recorder;
let path: Path;

t.before(async () => {
  origin = await startRecorder(authority.serverFor(values.allowed));
  path = await startPath({
    dir: t.testdir(),
    targets: [target('echo'), target('other')],
    pins: Object.values(values).flatMap((host) => [
      { host, port: 80, address: '127.0.0.1', addressPort: origin.httpPort },
      { host, port: 443, address: '127.0.0.1', addressPort: origin.httpsPort },
    ]),
    trustPem: authority.pem,
  });
});
t.teardown(async () => {
  await path?.close();
  await origin?.close();
});

const headFor = (scheme: string, absolute: string | undefined, host: string | undefined): string =>
  `GET ${absolute === undefined ? '/x' : `${scheme}://${absolute}/x`} HTTP/1.1\r\n${host === undefined ? '' : `Host: ${host}\r\n`}Connection: close\r\n\r\n`;

const credentialsSeen = (): number =>
  origin
    .raw()
    .join('')
    .match(/credential-for/g)?.length ?? 0;

t.test('outside a tunnel: absolute-form and Host', async (t) => {
  for (const scheme of ['http']) {
    for (const absolute of names) {
      for (const host of names) {
        const before = credentialsSeen();
        const answer = await exchange(await dial(path.port), headFor(scheme, absolute, host), wholeResponse);
        const seen = credentialsSeen() - before;
        const agrees = absolute !== undefined && absolute === host;
        const label = `${absolute} ${host}`;
        t.equal(seen, agrees && absolute !== values.unlisted ? 1 : 0, `${label}: credential`);
        if (absolute !== undefined && host !== undefined && absolute !== host)
          t.match(answer, /^HTTP\/1\.1 421 [^]*"code":"authority_mismatch"/, label);
        else if (!agrees) t.match(answer, /^HTTP\/1\.1 400 [^]*"code":"authority_invalid"/, label);
      }
    }
  }
});

t.test('inside an intercepted tunnel: CONNECT, server name, absolute-form and Host', async (t) => {
  let mismatches = 0;
  for (const connect of [values.allowed, values.otherAllowed]) {
    for (const sni of names) {
      for (const absolute of names) {
        for (const host of names) {
          if (connect === values.otherAllowed && sni !== connect) continue;
          const before = credentialsSeen();
          const { socket } = await tunnelTo(path.port, `${connect}:443`);
          const secured = await secure(socket, path.bundle, connect, sni ?? '');
          const answer = await exchange(secured, headFor('https', absolute, host), wholeResponse);
          const given = [connect, sni, absolute, host].filter((name) => name !== undefined);
          const agrees = given.every((name) => name === connect);
          const label = `CONNECT ${connect} SNI ${sni} absolute ${absolute} Host ${host}`;
          // "other" is served by a certificate for "echo", so an agreed request to it fails at the certificate, without a credential sent.
          const wanted = agrees && host !== undefined && connect === values.allowed ? 1 : 0;
          if (credentialsSeen() - before !== wanted) t.fail(label);
          if (host === undefined) t.match(answer, /^HTTP\/1\.1 400 /, label);
          else if (!agrees) t.match(answer, /^HTTP\/1\.1 421 /, label);
          mismatches += agrees ? 0 : 1;
        }
      }
    }
  }
  t.ok(mismatches > 60, `${mismatches} disagreements tried`);
});

t.test('each request of a tunnel is judged, not only the first', async (t) => {
  const { socket } = await tunnelTo(path.port, `${values.allowed}:443`);
  const secured = await secure(socket, path.bundle, values.allowed);
  const before = credentialsSeen();
  for (let i = 1; i <= 7; i += 1) {
    const host = i === 7 ? values.otherAllowed : values.allowed;
    const answer = await exchange(secured, `GET /${i} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
    t.match(answer, i === 7 ? /^HTTP\/1\.1 421 / : /^HTTP\/1\.1 200 /);
    if (i === 7) t.match(answer, /connection: close/i, 'the tunnel is closed');
  }
  t.equal(credentialsSeen() - before, 6);
});

t.test('other ports, schemes and spellings of a destination', async (t) => {
  const rows: [string, RegExp][] = [
    ['GET http://ECHO.outrider.test./x HTTP/1.1\r\nHost: echo.OUTRIDER.test\r\n', /^HTTP\/1\.1 200 /],
    ['GET http://echo.outrider.test:80/x HTTP/1.1\r\nHost: echo.outrider.test\r\n', /^HTTP\/1\.1 200 /],
    ['GET http://echo.outrider.test/x HTTP/1.1\r\nHost: echo.outrider.test:8080\r\n', /^HTTP\/1\.1 421 /],
    [
      'GET http://echo.outrider.test@attacker.outrider.test/x HTTP/1.1\r\nHost: echo.outrider.test\r\n',
      /^HTTP\/1\.1 400 [^]*authority_invalid/,
    ],
    [
      'GET http://echo.outrider.test/x HTTP/1.1\r\nHost: echo.outrider.test, attacker.outrider.test\r\n',
      /^HTTP\/1\.1 400 [^]*authority_invalid/,
    ],
    [
      'GET http://echo.outrider.test/x HTTP/1.1\r\nHost: echo.outrider.test\r\nHost: echo.outrider.test\r\n',
      /^HTTP\/1\.1 400 [^]*authority_invalid/,
    ],
    ['GET http://echo.outrider.test/x HTTP/1.1\r\nHost:\r\n', /^HTTP\/1\.1 400 [^]*authority_invalid/],
    ['GET http:///x HTTP/1.1\r\nHost: echo.outrider.test\r\n', /^HTTP\/1\.1 400 /],
    ['GET ftp://echo.outrider.test/x HTTP/1.1\r\nHost: echo.outrider.test\r\n', /^HTTP\/1\.1 400 /],
    ['GET /x HTTP/1.1\r\nHost: echo.outrider.test\r\n', /^HTTP\/1\.1 400 [^]*forward proxy/],
    ['GET http://echo.outrider.test/x HTTP/1.1\r\nHost: echo.outrider.test/x\r\n', /^HTTP\/1\.1 400 /],
    ['GET http://echo.outrider.test/x HTTP/1.1\r\nHost_: a\r\nHost: echo.outrider.test\r\n', /^HTTP\/1\.1 200 /],
  ];
  for (const [head, wanted] of rows)
    t.match(await exchange(await dial(path.port), `${head}Connection: close\r\n\r\n`, wholeResponse), wanted, head);
});

t.test('CONNECT has one authority with a port, and its Host agrees', async (t) => {
  const connect = async (head: string): Promise<string> =>
    exchange(await dial(path.port), `${head}\r\n`, (text) => text.includes('\r\n\r\n'));
  t.match(await connect('CONNECT echo.outrider.test:443 HTTP/1.1\r\nHost: other.outrider.test:443\r\n'), /^HTTP\/1\.1 421 /);
  t.match(await connect('CONNECT echo.outrider.test HTTP/1.1\r\nHost: echo.outrider.test\r\n'), /^HTTP\/1\.1 400 /);
  t.match(await connect('CONNECT echo.outrider.test:443 HTTP/1.1\r\nHost: echo.outrider.test\r\n'), /^HTTP\/1\.1 200 /);
  t.match(
    await connect('CONNECT echo.outrider.test:443 HTTP/1.1\r\nHost: echo.outrider.test:443\r\nContent-Length: 5\r\n'),
    /^HTTP\/1\.1 400 /,
  );
  const { socket } = await tunnelTo(path.port, 'echo.outrider.test:80');
  t.match(
    await exchange(socket, 'CONNECT echo.outrider.test:80 HTTP/1.1\r\nHost: echo.outrider.test:80\r\n\r\n'),
    /^HTTP\/1\.1 405 /,
    'not inside a tunnel',
  );
});

t.test('reconcile yields one destination or a fault, for every combination of claims', async (t) => {
  const claims = ['a.example', 'a.example:443', 'A.EXAMPLE.', 'b.example', 'a.example:8443', 'a@b', undefined];
  const agree = new Set(['a.example', 'a.example:443', 'A.EXAMPLE.', undefined]);
  let count = 0;
  for (const connect of claims) {
    for (const absolute of claims) {
      for (const host of claims) {
        for (const sni of [undefined, 'a.example', 'b.example', 'a.example:443', '']) {
          count += 1;
          const all = [connect, absolute, host];
          const isAgreed =
            all.every((claim) => agree.has(claim)) &&
            all.some((claim) => claim !== undefined) &&
            (sni === undefined || sni === 'a.example');
          try {
            const found = reconcile('https', { connect, absolute, host, sni });
            const same = new Set(all.filter((claim) => claim !== undefined).map((claim) => claim.toLowerCase().replace(/\.?(:443)?$/, '')));
            if (same.size !== 1 || (!isAgreed && found.host === 'a.example' && found.port === 443))
              t.fail(`${all.join()} ${sni} became ${found.host}:${found.port}`);
          } catch (thrown) {
            if (!(thrown instanceof Fault)) throw thrown;
            if (isAgreed) t.fail(`${all.join()} ${sni} was refused with ${thrown.code}`);
          }
        }
      }
    }
  }
  t.equal(count, 7 ** 3 * 5);
});
