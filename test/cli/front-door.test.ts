import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import t, { type Test } from 'tap';
import { startFrontDoor } from '../../src/cli/front-door.ts';

const host = '127.0.0.1';

const portOf = (server: Server): number => (server.address() as AddressInfo).port;

const startBackend = async (t: Test, listener: RequestListener): Promise<{ host: string; port: number }> => {
  const server = createServer(listener);
  server.listen(0, host);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return { host, port: portOf(server) };
};

interface Seen {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: IncomingHttpHeaders;
}

/** A door before an admin server that records what reaches it. */
const openDoor = async (t: Test, backends: Readonly<Record<string, { host: string; port: number }>> = {}) => {
  const seen: Seen[] = [];
  const admin = await startBackend(t, ({ method, url, headers }, response) => {
    seen.push({ method, url, headers });
    response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4' });
    response.end(`outrider_test 1 ${url}\n`);
  });
  const door = await startFrontDoor({
    host,
    port: 0,
    backends: { proxy: admin, ...backends },
    page: () => Promise.resolve({ html: '<!doctype html><title>door</title>', policy: "default-src 'none'" }),
  });
  t.teardown(() => door.close());
  return { seen, port: door.address.port, url: `http://${host}:${door.address.port}` };
};

/** Bytes in, the whole answer as text out. Asks for the connection to be closed, besides what the request says. */
const raw = (port: number, request: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(port, host, () => socket.write(request.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')));
    let answer = '';
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
    });
    socket.once('close', () => resolve(answer));
    socket.once('error', reject);
  });

t.test('metrics and readiness of a role come through, without anything that could be a credential', async (t) => {
  const { seen, url } = await openDoor(t);
  const headers = {
    authorization: 'Bearer canary',
    'proxy-authorization': 'Basic canary',
    cookie: 'session=canary',
    'x-api-key': 'canary',
    'x-forwarded-for': '10.0.0.1',
    accept: 'text/plain',
  };
  const metrics = await fetch(`${url}/proxy/metrics?token=canary`, { headers });
  t.equal(metrics.status, 200);
  t.equal(await metrics.text(), 'outrider_test 1 /metrics\n');
  t.match(metrics.headers.get('content-type'), 'version=0.0.4');
  t.equal((await fetch(`${url}/proxy/readyz`, { method: 'HEAD' })).status, 200);
  t.strictSame(
    seen.map(({ method, url }) => `${method} ${url}`),
    ['GET /metrics', 'HEAD /readyz'],
  );
  t.notMatch(JSON.stringify(seen), 'canary');
  t.strictSame(Object.keys(seen[0]?.headers ?? {}).toSorted(), ['accept', 'connection', 'host', 'user-agent']);
});

t.test('only the three endpoints of known roles are reachable, under one spelling', async (t) => {
  const { seen, port } = await openDoor(t);
  const targets = [
    '/proxy/',
    '/proxy/metrics/',
    '/proxy//metrics',
    '/proxy/debug',
    '/proxy/../proxy/metrics',
    '//proxy/metrics',
    '/%70roxy/metrics',
    '/constructor/metrics',
    '/__proto__/metrics',
    '/injector/metrics',
    '/favicon.ico',
    'http://127.0.0.1/proxy/metrics',
  ];
  for (const target of targets) t.match(await raw(port, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n\r\n`), /^HTTP\/1\.1 404 /, target);
  t.equal(seen.length, 0);
});

t.test('a name that is not the loopback interface gets nothing: a web page cannot read it by DNS rebinding', async (t) => {
  const { seen, port } = await openDoor(t);
  for (const name of [
    'attacker.example',
    '127.0.0.1.attacker.example',
    `localhost.attacker.example:${port}`,
    '10.0.0.1',
    'user@127.0.0.1',
  ]) {
    t.match(await raw(port, `GET /proxy/metrics HTTP/1.1\r\nHost: ${name}\r\n\r\n`), /^HTTP\/1\.1 421 /, name);
  }
  t.match(await raw(port, `GET /proxy/metrics HTTP/1.1\r\nHost: ${host}\r\nHost: attacker.example\r\n\r\n`), /^HTTP\/1\.1 4(?:00|21) /);
  t.equal(seen.length, 0);
  for (const name of [`127.0.0.1:${port}`, `localhost:${port}`, 'LOCALHOST', `[::1]:${port}`]) {
    t.match(await raw(port, `GET /proxy/livez HTTP/1.1\r\nHost: ${name}\r\n\r\n`), /^HTTP\/1\.1 200 /, name);
  }
});

t.test('requests that have crashed or misled proxies before are refused or harmless, and the door stays open', async (t) => {
  const { seen, port, url } = await openDoor(t);
  const cases: readonly (readonly [headers: string, answer: RegExp])[] = [
    ['Expect: 100-continue', /^HTTP\/1\.1 417 /],
    ['Expect: something', /^HTTP\/1\.1 417 /],
    ['Content-Length: 5\r\nAuthorization: Bearer canary', /^HTTP\/1\.1 400 /],
    ['Transfer-Encoding: chunked', /^HTTP\/1\.1 400 /],
    ['Trailer: x', /^HTTP\/1\.1 200 /],
    ['Connection: close, authorization\r\nTE: trailers', /^HTTP\/1\.1 200 /],
    ['If-None-Match: "x"\r\nRange: bytes=0-1', /^HTTP\/1\.1 200 /],
    ['X-Forwarded-Host: \x80\xff', /^HTTP\/1\.1 200 /],
    ['Upgrade: websocket\r\nConnection: Upgrade', /^$/],
  ];
  for (const [headers, answer] of cases) {
    t.match(await raw(port, `GET /proxy/metrics HTTP/1.1\r\nHost: ${host}\r\n${headers}\r\n\r\n`), answer, headers);
    t.equal((await fetch(`${url}/proxy/livez`)).status, 200);
  }
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']) {
    t.match(await raw(port, `${method} /proxy/metrics HTTP/1.1\r\nHost: ${host}\r\n\r\n`), /^HTTP\/1\.1 405 /, method);
  }
  t.match(await raw(port, `CONNECT ${host}:1 HTTP/1.1\r\nHost: ${host}:1\r\n\r\n`), /^$/);
  t.notMatch(JSON.stringify(seen), 'canary');
});

t.test('a role that is away is said to be away', async (t) => {
  const closed = createServer().listen(0, host);
  await once(closed, 'listening');
  const port = portOf(closed);
  closed.close();
  await once(closed, 'close');
  const { url } = await openDoor(t, { broker: { host, port } });
  const response = await fetch(`${url}/broker/metrics`);
  t.equal(response.status, 502);
  t.equal(await response.text(), 'the broker does not answer\n');
  t.match(response.headers.get('content-type'), 'text/plain');
});

t.test('an answer that breaks off in the middle breaks off here too, and does not hang', async (t) => {
  const broken = await startBackend(t, (_request, response) => {
    response.writeHead(200, { 'content-length': '100' });
    response.write('half');
    setImmediate(() => response.destroy());
  });
  const { url } = await openDoor(t, { broker: broken });
  await t.rejects(fetch(`${url}/broker/metrics`).then((response) => response.text()));
  t.equal((await fetch(`${url}/proxy/livez`)).status, 200);
});

t.test('the status page is HTML that may load nothing', async (t) => {
  const { url } = await openDoor(t);
  const response = await fetch(`${url}/`);
  t.equal(response.status, 200);
  t.match(response.headers.get('content-type'), 'text/html');
  t.equal(response.headers.get('content-security-policy'), "default-src 'none'");
  t.equal(response.headers.get('x-content-type-options'), 'nosniff');
  t.match(await response.text(), '<title>door</title>');
});

t.test('a page that cannot be made is an error, not a crash', async (t) => {
  const door = await startFrontDoor({ host, port: 0, backends: {}, page: () => Promise.reject(new Error('canary')) });
  t.teardown(() => door.close());
  const response = await fetch(`http://${host}:${door.address.port}/`);
  t.equal(response.status, 500);
  t.notMatch(await response.text(), 'canary');
});
