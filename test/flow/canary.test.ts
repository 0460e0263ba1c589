import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { dial, exchange, secure, tunnelTo, wholeResponse } from '../support/path.ts';
import { eventually, startStack } from '../support/stack.ts';

/**
 * One canary a secret, then everything that can be asked of the running roles, good and bad. Afterwards each canary, and each of its
 * encodings, is looked for in all that was said or written: it may be nowhere but in the file it came from and at the target.
 */
const encodings = (secret: string): string[] => [
  secret,
  Buffer.from(secret).toString('base64').replace(/=+$/, ''),
  Buffer.from(`x${secret}`).toString('base64').slice(2).replace(/=+$/, ''),
  Buffer.from(`xx${secret}`).toString('base64').slice(3).replace(/=+$/, ''),
  Buffer.from(secret).toString('hex'),
  encodeURIComponent(secret),
  JSON.stringify(secret).slice(1, -1),
];

const filesBelow = (dir: string): string[] =>
  readdirSync(dir).flatMap((name) => (statSync(join(dir, name)).isDirectory() ? filesBelow(join(dir, name)) : [join(dir, name)]));

t.test('no secret is said or written anywhere', async (t) => {
  const canaries = {
    bearer: `canary-bearer-${randomBytes(9).toString('hex')}`,
    basic: `canary basic/${randomBytes(9).toString('hex')}`,
    header: `canary-header-${randomBytes(9).toString('hex')}`,
    query: `canary&query=${randomBytes(9).toString('hex')}`,
    clientSecret: `canary-client-${randomBytes(9).toString('hex')}`,
    typed: `canary-typed-${randomBytes(9).toString('hex')}`,
  };
  const secrets = mkdtempSync(join(tmpdir(), 'outrider-canary-'));
  t.teardown(() => rmSync(secrets, { recursive: true }));
  for (const [name, value] of Object.entries(canaries)) writeFileSync(join(secrets, name), `${value}\n`);
  writeFileSync(join(secrets, 'unwritable'), `${canaries.header}\r\nX-Evil: 1`);
  const file = (name: string): string => `  - { kind: static_file, name: ${name.toLowerCase()}, file: "${join(secrets, name)}" }`;
  const target = (name: string, ...credentials: string[]): string =>
    `  - { name: ${name}, hosts: [${name}.outrider.test], ports: [80, 443], cleartext: allowed, credentials: [${credentials.join(', ')}] }`;
  const stack = await startStack(t, {
    providers: [
      ...['bearer', 'basic', 'header', 'query', 'unwritable'].map(file),
      `  - { kind: oauth2_client_credentials, name: oauth, tokenUrl: "https://127.0.0.1:1/token", clientId: me, clientAuthentication: { method: client_secret_basic, clientSecret: { file: "${join(secrets, 'clientSecret')}" } } }`,
    ].join('\n'),
    targets: [
      target(
        'echo',
        '{ provider: bearer, placement: { kind: bearer } }',
        '{ provider: header, placement: { kind: header, name: X-Key } }',
        '{ provider: query, placement: { kind: query, name: key } }',
      ),
      target('basic', '{ provider: basic, placement: { kind: basic, username: me } }'),
      target('unwritable', '{ provider: unwritable, placement: { kind: bearer } }'),
      target('oauth', '{ provider: oauth, placement: { kind: bearer } }'),
    ].join('\n'),
    policies:
      '  - name: demo\n    rules:\n      - { name: all, effect: allow, workloads: [demo-app] }\n      - { name: no-admin, effect: deny, targets: [echo], paths: ["/admin/**"] }',
    answer: (request, response) => {
      // A target that breaks off after it has seen the credential.
      if (request.url?.startsWith('/broken')) return void request.socket.destroy();
      response.end('ok');
    },
  });
  const { proxy, broker, collector, files } = stack;
  const said: string[] = [];
  const ask = async (host: string, path: string, fields = ''): Promise<void> => {
    const socket = await dial(proxy.listen.port);
    said.push(
      await exchange(socket, `GET http://${host}${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n${fields}\r\n`, wholeResponse),
    );
    socket.destroy();
  };
  for (const path of ['/hello', '/admin/x', '/broken', '/a/../b', `/hello?token=${canaries.typed}`])
    await ask('echo.outrider.test', path, `Authorization: Bearer ${canaries.typed}\r\nCookie: ${canaries.typed}\r\n`);
  for (const name of ['basic', 'unwritable', 'oauth', 'unlisted']) await ask(`${name}.outrider.test`, '/');
  await ask('echo.outrider.test', '/x', `Content-Length: 5, 5\r\nX: ${canaries.typed}\r\n`);
  const { socket } = await tunnelTo(proxy.listen.port, 'echo.outrider.test:443', `Proxy-Authorization: Basic ${canaries.typed}\r\n`);
  const secured = await secure(socket, readFileSync(files.bundle, 'utf8'), 'echo.outrider.test');
  said.push(await exchange(secured, 'GET /hello HTTP/1.1\r\nHost: echo.outrider.test\r\n\r\n', wholeResponse));
  secured.destroy();
  t.match(stack.origin.raw().join(''), new RegExp(canaries.bearer), 'the target was sent the credential');
  t.ok(
    said.some((answer) => answer.includes('credential_unavailable')) && said.some((answer) => answer.includes('credential_invalid')),
    'providers failed, too',
  );

  stack.projectToken({ signature: () => Buffer.alloc(256) });
  await eventually(() => stack.events().filter(({ kind }) => kind === 'outcome').length >= 3);
  for (const { port } of [proxy.admin, broker.admin, collector.admin]) {
    for (const path of ['/metrics', '/readyz', '/livez', '/', '/heap'])
      said.push(await (await fetch(`http://127.0.0.1:${port}${path}`)).text());
  }
  await Promise.all([proxy.close(), collector.close(), broker.close()]);

  const token = readFileSync(files.collectorToken, 'utf8');
  const written = filesBelow(files.dir).filter((path) => !path.endsWith('token'));
  t.ok(written.some((path) => path.endsWith('events.jsonl')));
  const places: Record<string, string> = {
    answers: said.join('\n'),
    logs: stack.logs.join('\n'),
    ...Object.fromEntries(written.map((path) => [path, readFileSync(path, 'latin1')])),
  };
  t.ok(stack.logs.length > 20, 'the roles logged at debug level');
  for (const [name, canary] of Object.entries({ ...canaries, token, tokenSignature: token.split('.')[2] as string })) {
    for (const form of encodings(canary))
      for (const [place, text] of Object.entries(places)) if (text.includes(form)) t.fail(`${name} is in ${place}`);
  }
  t.notMatch(places['logs'], /PRIVATE KEY/);
  t.match(places['answers'], /outrider_proxy_static_credential_requests_total\{target="echo"\} [1-9]/);
  t.match(places['answers'], /outrider_broker_static_credentials\{provider="bearer"\} 1/);
});
