import { once } from 'node:events';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, connect, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import t, { type Test } from 'tap';
import { directoryOf } from '../support/directory.ts';
import { allowAll, grantOf, type Path, type PathOptions, startPath, target } from '../support/path.ts';
import { authority, type Conversation, httpTarget, outcomeOf, talk, until, whole } from '../support/between.ts';

/**
 * LESSONS 1: the shapes in which programs speak to a proxy were separate code in other systems, and each lacked something. Every shape
 * here has every feature, on IPv4 with names and on IPv6 with address literals.
 */
interface Ground {
  readonly name: string;
  /** Where the proxy and the target listen. */
  readonly listen: string;
  /** As it stands in an authority. */
  readonly host: string;
  readonly hostOfTarget: string;
}
const grounds: readonly Ground[] = [
  { name: 'IPv4, a name', listen: '127.0.0.1', host: 'echo.outrider.test', hostOfTarget: 'echo.outrider.test' },
  { name: 'IPv6, an address', listen: '::1', host: '[2001:db8::7]', hostOfTarget: '2001:db8::7' },
];

type Field = string;
interface Shape {
  readonly scheme: 'http' | 'https';
  /** A connection on which requests can be written. */
  readonly open: (path: Path, ground: Ground) => Promise<Duplex>;
  /** What stands in the request line. */
  readonly target: (path: string, ground: Ground) => string;
}

const dialTo = async (port: number, { listen }: Ground): Promise<Socket> => {
  const socket = connect({ host: listen, port, noDelay: true });
  await once(socket, 'connect');
  return socket;
};
const connectMethod = async (path: Path, ground: Ground, port: number): Promise<Socket> => {
  const socket = await dialTo(path.port, ground);
  socket.write(`CONNECT ${ground.host}:${port} HTTP/1.1\r\nHost: ${ground.host}:${port}\r\n\r\n`);
  const [answer] = (await once(socket, 'data')) as [Buffer];
  if (String(answer) !== 'HTTP/1.1 200 Connection Established\r\n\r\n') throw new Error(String(answer));
  return socket;
};
const shapes: Record<string, Shape> = {
  'absolute-form http': {
    scheme: 'http',
    open: (path, ground) => dialTo(path.port, ground),
    target: (path, { host }) => `http://${host}${path}`,
  },
  'absolute-form https': {
    scheme: 'https',
    open: (path, ground) => dialTo(path.port, ground),
    target: (path, { host }) => `https://${host}${path}`,
  },
  'CONNECT with TLS': {
    scheme: 'https',
    open: async (path, ground) => {
      const socket = await connectMethod(path, ground, 443);
      const secured = connectTls({ socket, ca: path.bundle, host: ground.hostOfTarget, ALPNProtocols: ['http/1.1'] });
      await once(secured, 'secureConnect');
      return secured;
    },
    target: (path) => path,
  },
  'CONNECT with plain HTTP': {
    scheme: 'http',
    open: (path, ground) => connectMethod(path, ground, 80),
    target: (path) => path,
  },
  'a reverse route': {
    scheme: 'https',
    open: (path, ground) => dialTo(path.routes[0] as number, ground),
    target: (path) => path,
  },
};

interface Heard {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly host: string | undefined;
  readonly authorization: string | undefined;
  body: string;
  trailers: NodeJS.Dict<string>;
  isGone: boolean;
}

interface Scene {
  readonly path: Path;
  readonly heard: Heard[];
  readonly ask: (line: string, ...fields: readonly Field[]) => Promise<Conversation>;
}

const act =
  (heard: Heard[]): Parameters<typeof httpTarget>[0] =>
  (request, response) => {
    const { method, url, headers } = request;
    const one: Heard = { method, url, host: headers.host, authorization: headers.authorization, body: '', trailers: {}, isGone: false };
    heard.push(one);
    response.once('close', () => (one.isGone = !response.writableFinished));
    request.on('error', () => undefined);
    request.on('data', (chunk) => (one.body += chunk));
    request.on('end', () => {
      one.trailers = request.trailers;
      if (url === '/hang') return;
      if (url === '/rich') response.writeEarlyHints({ link: '</a>; rel=preload' });
      response.writeHead(200, url === '/rich' ? { Trailer: 'x-sum' } : { 'Content-Length': 2 });
      if (method !== 'HEAD') response.write('ok');
      if (url === '/rich') response.addTrailers({ 'x-sum': '7' });
      response.end();
    });
  };

const listenOn = async (t: Test, server: Server, { listen }: Ground): Promise<number> => {
  server.on('upgrade', (_request, socket: Socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
    socket.on('error', () => undefined);
    socket.on('data', (data) => socket.end(`heard ${String(data)}`));
  });
  server.listen(0, listen);
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    (server as Server & { closeAllConnections: () => void }).closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
};

const setUp = async (t: Test, shape: Shape, ground: Ground, options: Partial<PathOptions> = {}): Promise<Scene> => {
  const heard: Heard[] = [];
  const clear = await listenOn(t, httpTarget(act(heard)), ground);
  const secure = await listenOn(t, createTlsServer(authority.serverFor(ground.hostOfTarget), act(heard)), ground);
  const pin = (port: number, addressPort: number) => ({ host: ground.hostOfTarget, port, address: ground.listen, addressPort });
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo', { hosts: [ground.hostOfTarget] })],
    pins: [pin(80, clear), pin(443, secure)],
    trustPem: authority.pem,
    host: ground.listen,
    routes: [{ listen: { host: ground.listen, port: 0 }, to: { scheme: 'https', host: ground.hostOfTarget, port: 443 } }],
    grants: { get: () => grantOf(target('echo', { hosts: [ground.hostOfTarget] }), { rules: [deny, allowAll] }) },
    ...options,
  });
  t.teardown(() => path.close());
  return {
    path,
    heard,
    ask: async (line, ...fields) => {
      const client = talk(await shape.open(path, ground));
      const [method = '', where = ''] = line.split(' ');
      client.say([`${method} ${shape.target(where, ground)} HTTP/1.1`, `Host: ${ground.host}`, ...fields, '', ''].join('\r\n'));
      return client;
    },
  };
};
const deny = { ...allowAll, name: 'no-admin', effect: 'deny' as const, paths: ['/admin/**'] };

/** What every shape can do. */
const features: Record<string, (t: Test, scene: Scene, shape: Shape, ground: Ground) => Promise<void>> = {
  "the credential, once, and the target's own name": async (t, { ask, heard, path }, shape, ground) => {
    await (await ask('GET /a?b=1', 'Authorization: Bearer theirs', 'Proxy-Authorization: Basic theirs')).until(whole(200, 'ok'));
    t.match(heard, [{ url: '/a?b=1', host: ground.host, authorization: 'Bearer credential-for-echo' }]);
    t.match(await outcomeOf(path), {
      scheme: shape.scheme,
      target: 'echo',
      destination: `${ground.host}:${shape.scheme === 'https' ? 443 : 80}`,
      path: '/a',
    });
  },
  'a body with trailers, and an answer with 103 and trailers': async (t, { ask, heard }) => {
    const client = await ask('POST /rich', 'Transfer-Encoding: chunked', 'TE: trailers');
    client.say('2\r\nhi\r\n0\r\nX-Up: 1\r\n\r\n');
    t.match(await client.until(/x-sum: 7\r\n\r\n$/), /^HTTP\/1\.1 103 Early Hints\r\nLink: [^\r]*\r\n\r\nHTTP\/1\.1 200 OK\r\n/i);
    t.match(heard, [{ body: 'hi', trailers: { 'x-up': '1' } }]);
  },
  'Expect: 100-continue': async (t, { ask, heard }) => {
    const client = await ask('PUT /a', 'Expect: 100-continue', 'Content-Length: 4');
    t.equal(await client.until(/\r\n\r\n/), 'HTTP/1.1 100 Continue\r\n\r\n');
    client.say('body');
    await client.until(/\r\n\r\nok$/);
    t.match(heard, [{ body: 'body' }]);
  },
  'HEAD, and the connection kept for the next request': async (t, { ask, heard }, shape, ground) => {
    const client = await ask('HEAD /a');
    await client.until(/content-length: 2\r\n[^]*\r\n\r\n$/i);
    client.say(`GET ${shape.target('/b', ground)} HTTP/1.1\r\nHost: ${ground.host}\r\n\r\n`);
    await client.until(/\r\n\r\nok$/);
    t.same(
      heard.map(({ method, url }) => [method, url]),
      [
        ['HEAD', '/a'],
        ['GET', '/b'],
      ],
    );
  },
  'an upgrade': async (t, { ask, path }) => {
    const client = await ask('GET /up', 'Connection: Upgrade', 'Upgrade: tcp');
    await client.until(/^HTTP\/1\.1 101 [^]*\r\n\r\n$/);
    client.say('you');
    await client.until(/heard you$/);
    t.equal(await client.end, 'end');
    client.socket.destroy();
    t.match((await outcomeOf(path)).outcome, { status: 101, requestBodyBytes: 3, responseBodyBytes: 9 });
  },
  "a departure that ends the target's request": async (t, { ask, heard, path }) => {
    const client = await ask('GET /hang');
    await until(() => heard.length === 1);
    client.socket.destroy();
    await until(() => heard[0]?.isGone === true);
    t.match((await outcomeOf(path)).outcome, { fault: 'client_closed' });
  },
  'a denial that names the rule, and says so to a gRPC-Web program in its words': async (t, { ask, heard }) => {
    t.match(await (await ask('GET /admin/x')).until(/\}\n$/), /^HTTP\/1\.1 403 [^]*"code":"policy_denied"[^]*"rule":"no-admin"/);
    t.match(
      await (await ask('GET /admin/x', 'Content-Type: application/grpc-web')).until(/\r\n\r\n$/),
      /^HTTP\/1\.1 200 [^]*grpc-status: 7\r\n/,
    );
    t.same(heard, []);
  },
  'the refusal of another Host, of two, and of a path with two readings': async (t, { ask, heard }, _shape, ground) => {
    for (const [path, field, status] of [
      ['/a', 'Host: attacker.test', 400],
      ['/a/../b', 'Accept: a', 400],
      ['/a//b', 'Accept: a', 400],
      ['/a', 'Transfer-Encoding: gzip, chunked', 400],
      ['/a', 'Connection: authorization', 400],
    ] as const)
      t.match(await (await ask(`GET ${path}`, field)).until(/\}\n$/), new RegExp(`^HTTP/1\\.1 ${status} `), `${path} ${field}`);
    const client = await ask('GET /first');
    await client.until(/ok$/);
    heard.length = 0;
    client.say(`GET /a HTTP/1.1\r\nHost: attacker.test\r\n\r\n`);
    t.match(await client.until(/\}\n$/), /ok\r?\n?[^]*HTTP\/1\.1 4(?:00|21) |okHTTP\/1\.1 4(?:00|21) /);
    t.equal(ground.name.length > 0 && heard.length, 0);
  },
};

for (const ground of grounds)
  for (const [shapeName, shape] of Object.entries(shapes))
    t.test(`${shapeName} (${ground.name})`, async (t) => {
      for (const [feature, prove] of Object.entries(features))
        await t.test(feature, async (t) => prove(t, await setUp(t, shape, ground), shape, ground));
    });
