import { once } from 'node:events';
import { get } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { connect as connectTls } from 'node:tls';
import t, { type Test } from 'tap';
import { between, type Between, files, host, httpTarget, outcomeOf, program, whole } from '../support/between.ts';

/** Reverse routes: a port of this machine that stands for one destination, for programs that know no proxy. */
interface Heard {
  readonly host: string | undefined;
  readonly url: string | undefined;
  readonly authorization: string | undefined;
}

const setUp = async (
  t: Test,
  { listen = '127.0.0.1', scheme = 'https' }: { listen?: string; scheme?: 'http' | 'https' } = {},
): Promise<Between & { port: number; heard: Heard[] }> => {
  const heard: Heard[] = [];
  const answer: Parameters<typeof httpTarget>[0] = ({ url, headers }, response) => {
    heard.push({ url, host: headers.host, authorization: headers.authorization });
    response.end('ok');
  };
  const both = await between(t, scheme === 'https' ? createTlsServer(files, answer) : httpTarget(answer), {
    routes: [{ listen: { host: listen, port: 0 }, to: { scheme, host, port: scheme === 'https' ? 443 : 80 } }],
  });
  return { ...both, heard, port: both.path.routes[0] as number };
};

const request = (line: string, ...fields: readonly string[]): string => [`${line} HTTP/1.1`, ...fields, '', ''].join('\r\n');

t.test('a plain client without any proxy settings is given the credential, and the target its own name', async (t) => {
  const { port, heard, path } = await setUp(t);
  const [response] = await once(
    get(`http://localhost:${port}/a?b=1`, { family: 4, agent: false, headers: { authorization: 'Bearer theirs' } }),
    'response',
  );
  t.equal(response.statusCode, 200);
  response.resume();
  t.same(heard, [{ url: '/a?b=1', host, authorization: 'Bearer credential-for-echo' }]);
  t.match(await outcomeOf(path), { target: 'echo', destination: `${host}:443`, scheme: 'https', path: '/a', outcome: { status: 200 } });
});

t.test(
  "Host is the port's own name or the target's; any other, as after DNS rebinding, is refused before the target hears of it",
  async (t) => {
    const { port, heard, path, origin } = await setUp(t);
    const ask = async (...hosts: readonly string[]): Promise<string> => {
      const client = await program(path, { port });
      client.say(request('GET /', ...hosts.map((one) => `Host: ${one}`), 'Connection: close'));
      await client.end;
      return client.text();
    };
    const own = [
      `localhost:${port}`,
      `LOCALHOST:${port}`,
      `127.0.0.1:${port}`,
      `[::1]:${port}`,
      host,
      `${host}:443`,
      `${host.toUpperCase()}.`,
    ];
    for (const one of own) t.match(await ask(one), /^HTTP\/1\.1 200 /, one);
    t.same(new Set(heard.map(({ host: seen }) => seen)), new Set([host]));
    const accepted = origin.accepted();
    const foreign = [
      'attacker.test',
      `attacker.test:${port}`,
      'localhost',
      '127.0.0.1',
      `localhost:${port + 1}`,
      `localhost.attacker.test:${port}`,
      `127.0.0.2:${port}`,
      `0.0.0.0:${port}`,
      `${host}:80`,
      `${host}:${port}`,
      `other.outrider.test`,
    ];
    for (const one of foreign) t.match(await ask(one), /^HTTP\/1\.1 421 [^]*"code":"authority_mismatch"/, one);
    for (const bad of ['', `localhost:${port}, attacker.test`, `a@localhost:${port}`, 'local host'])
      t.match(await ask(bad), /^HTTP\/1\.1 4(?:00|21) /, bad);
    t.match(await ask(`localhost:${port}`, `localhost:${port}`), /^HTTP\/1\.1 400 [^]*authority_invalid/);
    t.match(await ask(), /^HTTP\/1\.1 400 [^]*authority_invalid/);
    t.equal(heard.length, own.length);
    t.equal(origin.accepted(), accepted);
  },
);

t.test("HTTP/1.0 without Host is for the route's target", async (t) => {
  const { port, heard, path } = await setUp(t);
  const client = await program(path, { port });
  client.say('GET / HTTP/1.0\r\n\r\n');
  t.equal(await client.end, 'end');
  t.match(client.text(), whole(200, 'ok'));
  t.equal(heard[0]?.host, host);
});

t.test('TLS is refused in its own language, and the log says why', async (t) => {
  const { port, path, origin } = await setUp(t);
  const secured = connectTls({ port, host: '127.0.0.1', ca: path.bundle, servername: host });
  const [error] = (await once(secured, 'error')) as [NodeJS.ErrnoException];
  t.match(error.code, /ALERT_HANDSHAKE_FAILURE/);
  t.match(path.logs.join(), /TLS is not spoken here/);
  t.equal(origin.accepted(), 0);
});

t.test('CONNECT, absolute URLs of other places, and what is no HTTP are refused', async (t) => {
  const { port, path, origin } = await setUp(t, { scheme: 'http' });
  const ask = async (bytes: string): Promise<string> => {
    const client = await program(path, { port });
    client.say(bytes);
    await client.end;
    return client.text();
  };
  t.match(await ask(request(`CONNECT ${host}:443`, `Host: ${host}:443`)), /^HTTP\/1\.1 405 [^]*"code":"method_refused"/);
  t.match(await ask(request('GET http://attacker.test/', 'Host: attacker.test')), /^HTTP\/1\.1 421 /);
  t.match(await ask(request(`GET https://${host}/`, `Host: ${host}`)), /^HTTP\/1\.1 421 /);
  t.equal(await ask('SSH-2.0-OpenSSH_9.9\r\n'), '');
  t.equal(await ask('\u0000\u0000\u0000\u0008\u0004\u00d2\u0016\u002f'), '');
  t.equal(origin.accepted(), 0);
  // The target's own URL is as good as its path.
  t.match(await ask(request(`GET http://${host}/a`, `Host: ${host}`, 'Connection: close')), /^HTTP\/1\.1 200 /);
});

t.test('a route listens on IPv6 too, and is called by that name', async (t) => {
  const { port, heard } = await setUp(t, { listen: '::1' });
  const [response] = await once(get(`http://[::1]:${port}/`, { agent: false }), 'response');
  t.equal(response.statusCode, 200);
  response.resume();
  t.same(heard, [{ url: '/', host, authorization: 'Bearer credential-for-echo' }]);
});

t.test('a connection is kept for many requests, each judged by itself', async (t) => {
  const { port, heard, path } = await setUp(t);
  const client = await program(path, { port });
  for (let i = 1; i <= 5; i += 1) {
    client.say(request(`GET /${i}`, `Host: localhost:${port}`));
    await client.until(new RegExp(`(?:ok[^]*){${i}}$`));
  }
  client.say(request('GET /6', 'Host: attacker.test'));
  await client.end;
  t.equal(heard.length, 5);
});
