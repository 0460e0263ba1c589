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

t.test(
  'no secret of the placements that sign, that need the body or that stand in the path is said or written anywhere',
  { timeout: 60_000 },
  async (t) => {
    const unique = (name: string): string => `canary-${name}-${randomBytes(9).toString('hex')}`;
    const canaries = {
      cookie: unique('cookie'),
      segment: unique('segment'),
      field: unique('field'),
      form: unique('form'),
      hmac: unique('hmac'),
    };
    const aws = { secret: unique('aws-secret'), session: unique('aws-session') };
    const secrets = mkdtempSync(join(tmpdir(), 'outrider-canary-'));
    t.teardown(() => rmSync(secrets, { recursive: true }));
    for (const [name, value] of Object.entries(canaries)) writeFileSync(join(secrets, name), value);
    const keys = { Version: 1, AccessKeyId: 'AKIDCANARY0123456789', SecretAccessKey: aws.secret, SessionToken: aws.session };
    writeFileSync(join(secrets, 'aws'), JSON.stringify(keys));
    const placements: Record<string, string> = {
      cookie: '{ kind: cookie, name: session }',
      segment: '{ kind: path_segment, segment: 1 }',
      field: '{ kind: body_field, format: json, field: /auth/key }',
      form: '{ kind: body_field, format: form, field: key }',
      hmac: '{ kind: hmac, name: X-Signature, message: "{method} {path} {timestamp}", timestampName: X-Timestamp }',
      aws: '{ kind: aws_sigv4, service: s3, region: us-east-1 }',
    };
    const names = Object.keys(placements);
    const hosts = names.map((name) => `${name}.outrider.test`);
    const stack = await startStack(t, {
      hosts,
      providers: names.map((name) => `  - { kind: static_file, name: ${name}, file: "${join(secrets, name)}" }`).join('\n'),
      targets: names
        .map(
          (name) =>
            `  - { name: ${name}, hosts: [${name}.outrider.test], ports: [80], cleartext: allowed, credentials: [{ provider: ${name}, placement: ${placements[name]} }] }`,
        )
        .join('\n'),
      policies: '  - name: demo\n    rules:\n      - { name: all, effect: allow, workloads: [demo-app] }',
      answer: (request, response) => {
        if (request.headers['x-test'] === 'break') return void request.socket.destroy();
        // Says what it was sent, which is the credential: the program must not hear it (E-9).
        const chunks: Buffer[] = [];
        request.on('data', (chunk: Buffer) => chunks.push(chunk));
        request.once('end', () => response.end(JSON.stringify([request.url, request.rawHeaders, Buffer.concat(chunks).toString()])));
      },
    });
    const { proxy, broker, collector, files } = stack;
    const said: string[] = [];
    const ask = async (name: string, type: string, body: string, fields: string): Promise<void> => {
      const socket = await dial(proxy.listen.port);
      const at = `${name}.outrider.test`;
      const head = `POST http://${at}/bot/x HTTP/1.1\r\nHost: ${at}\r\nConnection: close\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n${fields}\r\n`;
      said.push(await exchange(socket, head + body, wholeResponse));
      socket.destroy();
    };
    for (const name of names) {
      for (const fields of ['', 'X-Test: break\r\n']) {
        await ask(name, 'application/json', '{"auth":{"key":"typed"}}', fields);
        await ask(name, 'application/x-www-form-urlencoded', 'key=typed&other=1', fields);
        await ask(name, 'application/json', '{"auth":', fields);
      }
    }
    const sent = stack.origin.raw().join('');
    for (const [name, canary] of Object.entries({ ...canaries, session: aws.session }))
      if (name !== 'hmac') t.ok(sent.includes(canary), `the target was sent ${name}`);
    t.notOk(sent.includes(aws.secret) || sent.includes(canaries.hmac), 'what signs never leaves');
    t.match(sent, /AWS4-HMAC-SHA256/);
    t.match(sent, /x-signature: /i);
    await eventually(() => stack.events().filter(({ kind }) => kind === 'outcome').length >= names.length);
    for (const { port } of [proxy.admin, broker.admin, collector.admin])
      said.push(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text());
    await Promise.all([proxy.close(), collector.close(), broker.close()]);
    const places: Record<string, string> = {
      answers: said.join('\n'),
      logs: stack.logs.join('\n'),
      ...Object.fromEntries(
        filesBelow(files.dir)
          .filter((path) => !path.endsWith('token'))
          .map((path) => [path, readFileSync(path, 'latin1')]),
      ),
    };
    for (const [name, canary] of Object.entries({ ...canaries, ...aws })) {
      for (const form of encodings(canary))
        for (const [place, text] of Object.entries(places))
          if (text.includes(form))
            t.fail(`${name} is in ${place}: ${text.slice(Math.max(0, text.indexOf(form) - 200), text.indexOf(form))}`);
    }
  },
);
