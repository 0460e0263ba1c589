import { once } from 'node:events';
import { existsSync, readFileSync, statSync, watch } from 'node:fs';
import { request } from 'node:https';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from 'jose';
import t, { type Test } from 'tap';
import { needs } from '../pki/external-program.ts';
import { type DemoProcess, launch, npmStart, shell, startDemo } from '../support/demo-process.ts';
import { directoryOf } from '../support/directory.ts';

const start = (t: Test, directory: string, ...args: readonly string[]): Promise<DemoProcess> =>
  startDemo(t, npmStart('--any-port', '--dir', directory, ...args), directory);

interface Echoed {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

const curl = async (command: string): Promise<Echoed> => JSON.parse((await shell(command)).out) as Echoed;

const getJson = async (url: string, ca: string): Promise<unknown> => {
  const sent = request(url, { ca, agent: false });
  sent.end();
  const [response] = (await once(sent, 'response')) as [AsyncIterable<Buffer>];
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString());
};

/** The claims of a bearer token, after checking it as the target would: by the issuer's discovery. */
const verified = async (authorization: string, directory: string) => {
  const token = /^Bearer (\S+)$/.exec(authorization)?.[1] ?? '';
  const issuer = (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { iss: string }).iss;
  const ca = readFileSync(join(directory, 'broker-ca.pem'), 'utf8');
  const { jwks_uri, issuer: named } = (await getJson(`${issuer}/.well-known/openid-configuration`, ca)) as Record<string, string>;
  const keys = createLocalJWKSet((await getJson(jwks_uri as string, ca)) as JSONWebKeySet);
  return (await jwtVerify(token, keys, { issuer: named as string, audience: 'https://echo.outrider.test' })).payload;
};

t.test('a newcomer copies the commands of the demo, one after the other', needs('curl'), async (t) => {
  const demo = await start(t, directoryOf(t));
  const [injected = '', refused = '', events = '', metrics = ''] = demo.commands;
  t.equal(demo.commands.length, 4);
  const token = (echoed: Echoed) => verified(echoed.headers['authorization'] ?? '', demo.directory);

  await t.test('a request over HTTPS gets a credential that the target can verify', async (t) => {
    t.match(injected, 'https://echo.outrider.test/hello');
    const echoed = await curl(injected);
    t.match(echoed, { method: 'GET', path: '/hello', body: '' });
    const claims = await token(echoed);
    t.equal(claims.sub, 'spiffe://outrider.test/ns/demo/sa/demo-app');
    t.equal(claims.aud, 'https://echo.outrider.test');
    const lifetime = (claims.exp as number) - (claims.iat as number);
    t.ok(lifetime > 0 && lifetime <= 600, `${lifetime} s`);
  });

  await t.test('so does one over HTTP', async (t) => {
    const echoed = await curl(`${injected.replace('https://echo', 'http://echo')}?a=b -d 'x=1'`);
    t.match(echoed, { method: 'POST', path: '/hello?a=b', body: 'x=1' });
    t.equal((await token(echoed)).sub, 'spiffe://outrider.test/ns/demo/sa/demo-app');
  });

  await t.test('an Authorization of the client is replaced, however it is written', async (t) => {
    const echoed = await curl(`${injected} -H 'Authorization: Bearer canary-one' -H 'AUTHORIZATION: Basic canary-two'`);
    t.notMatch(JSON.stringify(echoed), 'canary');
    await token(echoed);
  });

  await t.test('what policy denies is refused with a problem that names the rule', async (t) => {
    t.match(refused, 'https://echo.outrider.test/admin/');
    const { out, status } = await shell(`${refused} -i`);
    t.equal(status, 0);
    const [head = '', body = ''] = out.slice(out.lastIndexOf('HTTP/1.1 403')).split('\r\n\r\n');
    t.match(head, /^HTTP\/1\.1 403 /);
    t.match(head, /^content-type: application\/problem\+json/im);
    t.match(head, /^proxy-status: /im);
    t.match(JSON.parse(body), { status: 403, code: 'policy_denied', decision: { policy: 'demo', rule: 'no-admin' } });
  });

  await t.test('the evidence is there: an intent and an outcome for each, and the refusal', async (t) => {
    const recorded = async () => {
      const { out } = await shell(events);
      return out
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as { kind: string; path: string; requestId: string; decision: { rule: string } });
    };
    let lines = await recorded();
    // The collector stores and acknowledges after the client has its answer.
    while (!lines.some(({ kind }) => kind === 'refusal')) lines = await recorded();
    const first = lines.filter(({ requestId }) => requestId === lines[0]?.requestId);
    t.strictSame(
      first.map(({ kind }) => kind),
      ['intent', 'outcome'],
    );
    t.match(first[0], { path: '/hello', decision: { rule: 'use-echo' } });
    t.strictSame(
      lines.filter(({ kind }) => kind === 'refusal').map(({ path, decision }) => [path, decision.rule]),
      [['/admin/users', 'no-admin']],
    );
    t.notMatch(JSON.stringify(lines), /a=b|canary|eyJ/, 'no query string, no credential');
  });

  await t.test('the metrics are there', async (t) => {
    const { out } = await shell(metrics);
    t.match(out, /^outrider_proxy_requests_total\{target="echo",decision="allow",code_class="2xx"\} 3$/m);
    t.match(out, /^outrider_proxy_requests_total\{target="echo",decision="deny",code_class="4xx"\} 1$/m);
    t.match(out, /^outrider_proxy_broker_calls_total\{method="GetGrant",code="ok"\} 1$/m, 'one grant served them all');
  });

  await t.test('the front door shows every role, and that it is ready', async (t) => {
    for (const role of ['proxy', 'broker', 'collector']) {
      const ready = await fetch(`${demo.frontDoor}/${role}/readyz`);
      t.equal(`${role} ${ready.status} ${await ready.text()}`, `${role} 200 ready\n`);
      t.match(await (await fetch(`${demo.frontDoor}/${role}/metrics`)).text(), `outrider_${role}_`);
    }
    const page = await (await fetch(demo.frontDoor)).text();
    for (const command of demo.commands) t.ok(page.includes(command), command);
    t.notMatch(page, /<script|src=|http-equiv/i);
    t.equal(page.match(/class="ready"/g)?.length, 3);
  });

  await t.test('keys and tokens are for their owner alone, and no log has one', async (t) => {
    for (const file of ['token', 'demo.log', 'broker']) t.equal(statSync(join(demo.directory, file)).mode & 0o077, 0, file);
    const log = readFileSync(join(demo.directory, 'demo.log'), 'utf8');
    t.notMatch(log, /eyJ[\w-]+\.eyJ|PRIVATE KEY|canary/);
    for (const role of ['broker', 'collector', 'proxy']) t.match(log, `"role":"${role}"`);
  });

  t.equal(await demo.stop(), 0, 'SIGTERM is a clean end');
  t.match(demo.output(), /\nstopping\n$/);
});

t.test('the token is rotated, and a second start in the same directory goes on from the first', async (t) => {
  const directory = directoryOf(t);
  const demo = await start(t, directory, '--token-lifetime', '2');
  const file = join(directory, 'token');
  const before = readFileSync(file, 'utf8');
  const { ino } = statSync(file);
  const watcher = watch(dirname(file));
  while (statSync(file).ino === ino) await once(watcher, 'change');
  watcher.close();
  t.not(readFileSync(file, 'utf8'), before);
  const authority = readFileSync(join(directory, 'broker-ca.pem'), 'utf8');
  t.equal(await demo.stop('SIGINT'), 0, 'and so is Ctrl-C');

  const again = await start(t, directory);
  t.equal(readFileSync(join(directory, 'broker-ca.pem'), 'utf8'), authority, 'the same trust domain');
  t.equal((await fetch(`${again.frontDoor}/proxy/readyz`)).status, 200);
  t.equal(await again.stop(), 0);
});

t.test('a port in use gets a sentence that says what to do', async (t) => {
  const server = createServer();
  await new Promise<void>((resolve) => {
    // It may be in use already, by a demo that someone runs: that does as well.
    server.once('error', () => resolve());
    server.listen(15_012, '127.0.0.1', resolve);
  });
  t.teardown(() => server.close());
  const directory = directoryOf(t);
  const child = launch(npmStart('--dir', directory));
  let complaints = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaints += text;
  });
  const [status] = (await once(child, 'close')) as [number];
  t.equal(status, 1);
  t.match(
    complaints,
    /^127\.0\.0\.1:15012 is in use: stop the program that listens there .*\nOr run the demo on free ports: npm start -- --any-port\n$/,
  );
  t.notOk(existsSync(join(directory, 'token')));
});

t.test('the stand-ins run alone too, for roles started one by one', async (t) => {
  const directory = directoryOf(t);
  const child = launch(npmStart('--any-port', '--only', 'issuer,target', '--dir', directory));
  t.teardown(() => child.kill('SIGKILL'));
  let output = '';
  await new Promise<void>((resolve) => {
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (/^ready/m.test(output)) resolve();
    });
  });
  for (const file of ['token', 'issuer-ca.pem', 'echo-ca.pem']) t.ok(existsSync(join(directory, file)), file);
  t.notOk(existsSync(join(directory, 'broker')));
  t.notMatch(output, 'broker');
  const port = /https:\/\/127\.0\.0\.1:(\d+), projects/.exec(output)?.[1];
  const ca = readFileSync(join(directory, 'issuer-ca.pem'), 'utf8');
  t.match(await getJson(`https://127.0.0.1:${port}/openid/v1/jwks`, ca), { keys: [{ kty: 'RSA', alg: 'RS256' }] });
  child.kill('SIGTERM');
  t.equal((await once(child, 'close'))[0], 0);
  t.match(output, /\nstopping\n$/);
});
