import { once } from 'node:events';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { createSecureServer } from 'node:http2';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net';
import { inspect } from 'node:util';
import { createRemoteJWKSet, customFetch as joseFetch, exportJWK, generateKeyPair, SignJWT, jwtVerify } from 'jose';
import { clientCredentialsGrantRequest, customFetch as oauthFetch, None } from 'oauth4webapi';
import t, { type Test } from 'tap';
import { OutboundError, outboundFetch } from '../../src/net/fetch.ts';
import { createTestAuthority } from '../support/certificates.ts';

const authority = createTestAuthority();
const files = authority.serverFor('localhost');
const trusting = { caPem: authority.pem, timeoutMs: 5_000, bodyBytesMax: 64 * 1024 };
const canary = 'canary-2b7e151628aed2a6';

const listen = async (t: Test, server: Server, host = '127.0.0.1'): Promise<number> => {
  server.listen(0, host);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return (server.address() as AddressInfo).port;
};

const https = async (t: Test, handle: RequestListener): Promise<string> =>
  `https://localhost:${await listen(t, createHttpsServer(files, handle), 'localhost')}`;

const reasonOf = async (call: Promise<unknown>): Promise<string> => {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return error instanceof OutboundError ? `${error.reason} ${error.code}`.trim() : `not an OutboundError: ${String(error)}`;
};

t.test('an answer over https by the given authority comes whole, as a standard Response', async (t) => {
  const seen: unknown[] = [];
  const origin = await https(t, (request, response) => {
    seen.push(request.method, request.url, request.headers['x-one'], request.headers['accept-encoding'], request.httpVersion);
    response.writeHead(201, { 'content-type': 'application/json', 'set-cookie': ['a=1', 'b=2'] });
    response.end('{"ok":true}');
  });
  const response = await outboundFetch(trusting)(`${origin}/path?q=1`, { method: 'PUT', headers: { 'x-one': 'two' }, body: 'sent' });
  t.ok(response instanceof Response);
  t.equal(response.status, 201);
  t.same(await response.json(), { ok: true });
  t.same(response.headers.getSetCookie(), ['a=1', 'b=2']);
  t.same(seen, ['PUT', '/path?q=1', 'two', 'identity', '1.1']);
});

t.test('HTTP/1.1 is spoken even to a server that offers HTTP/2', async (t) => {
  const server = createSecureServer({ ...files, allowHTTP1: true }, (request, response) => {
    response.end(request.httpVersion);
  });
  const port = await listen(t, server, 'localhost');
  t.equal(await (await outboundFetch(trusting)(`https://localhost:${port}/`)).text(), '1.1');
});

t.test('no connection is left open after a call', async (t) => {
  const server = createHttpsServer(files, (_request, response) => response.end('x'));
  const port = await listen(t, server, 'localhost');
  const closed = new Promise((resolve) => server.once('secureConnection', (socket) => socket.once('close', resolve)));
  await outboundFetch(trusting)(`https://localhost:${port}/`);
  await closed;
});

t.test('a certificate by another authority, or for another name, is not trusted and nothing is sent', async (t) => {
  let requests = 0;
  const origin = await https(t, (_request, response) => {
    requests += 1;
    response.end();
  });
  const otherName = createHttpsServer(authority.serverFor('elsewhere.outrider.test'), () => (requests += 1));
  const port = await listen(t, otherName, 'localhost');
  t.equal(
    await reasonOf(outboundFetch({ ...trusting, caPem: createTestAuthority('another').pem })(origin)),
    'untrusted UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  );
  t.equal(await reasonOf(outboundFetch({ timeoutMs: 5_000, bodyBytesMax: 100 })(origin)), 'untrusted UNABLE_TO_VERIFY_LEAF_SIGNATURE');
  t.equal(await reasonOf(outboundFetch(trusting)(`https://localhost:${port}/`)), 'untrusted ERR_TLS_CERT_ALTNAME_INVALID');
  t.equal(requests, 0);
});

t.test('a CA text without a certificate does not turn into trust in the system roots', async (t) => {
  for (const caPem of ['', '\n', 'no certificate']) {
    t.equal(await reasonOf(outboundFetch({ ...trusting, caPem })('https://localhost:1/')), 'untrusted NO_CERTIFICATE_IN_CA');
  }
});

t.test('clear text goes to loopback addresses only, and other URLs are refused before a connection', async (t) => {
  let connections = 0;
  const server = createHttpServer((_request, response) => response.end('plain'));
  server.on('connection', () => (connections += 1));
  const port = await listen(t, server);
  const fetch = outboundFetch(trusting);
  t.equal(await (await fetch(`http://127.0.0.1:${port}/`)).text(), 'plain');
  t.equal(connections, 1);
  const refused = [
    `http://localhost:${port}/`,
    'http://192.0.2.1/',
    'http://[2001:db8::1]/',
    'ftp://127.0.0.1/',
    `http://user:${canary}@127.0.0.1:${port}/`,
    `file:///${canary}`,
    canary,
  ];
  for (const url of refused) {
    t.equal(await reasonOf(fetch(url)), 'url_refused', url);
    t.notMatch(inspect(await fetch(url).catch((error: unknown) => error)), canary);
  }
  t.equal(connections, 1);
});

t.test('redirects are answers like others, never followed', async (t) => {
  const paths: string[] = [];
  const origin = await https(t, (request, response) => {
    paths.push(request.url ?? '');
    response.writeHead(Number(request.url?.slice(1)), { location: '/secret' });
    response.end('moved');
  });
  for (const status of [301, 302, 303, 307, 308]) {
    for (const redirect of ['follow', 'manual', 'error']) {
      const response = await outboundFetch(trusting)(`${origin}/${status}`, { redirect });
      t.equal(response.status, status);
      t.equal(response.headers.get('location'), '/secret');
    }
  }
  t.notOk(paths.includes('/secret'));
});

t.test('one deadline covers connecting, waiting for the head, and a body that trickles', async (t) => {
  const silent = await listen(
    t,
    createTcpServer((socket) => socket.on('error', () => {})),
  );
  const waiting = await https(t, () => {});
  const trickling = await https(t, (_request, response) => {
    response.writeHead(200);
    const timer = setInterval(() => response.write('x'), 20);
    response.on('close', () => clearInterval(timer));
  });
  const fetch = outboundFetch({ ...trusting, timeoutMs: 150 });
  for (const url of [`https://127.0.0.1:${silent}/`, waiting, trickling]) {
    const begun = performance.now();
    t.equal(await reasonOf(fetch(url)), 'timeout');
    const tookMs = performance.now() - begun;
    t.ok(tookMs >= 140 && tookMs < 2_000, `took ${Math.round(tookMs)} ms`);
  }
});

t.test("the caller's signal ends a call", async (t) => {
  const origin = await https(t, () => controller.abort());
  const controller = new AbortController();
  t.equal(await reasonOf(outboundFetch(trusting)(origin, { signal: controller.signal })), 'aborted');
  t.equal(await reasonOf(outboundFetch(trusting)(origin, { signal: AbortSignal.abort() })), 'aborted');
});

t.test('a body up to the bound comes whole; one byte more, declared or not, ends the call while it arrives', async (t) => {
  let cut: Promise<unknown> = Promise.resolve();
  const origin = await https(t, (request, response) => {
    const [, kind, size] = (request.url ?? '').split('/');
    if (kind === 'endless') {
      cut = once(response, 'close');
      const more = (): void => {
        while (response.write(Buffer.alloc(16 * 1024))) {}
      };
      response.on('drain', more);
      return more();
    }
    if (kind === 'declared') response.setHeader('content-length', Number(size));
    response.write('a');
    return response.end(Buffer.alloc(Number(size) - 1, 'b'));
  });
  const fetch = outboundFetch({ ...trusting, bodyBytesMax: 1_000 });
  for (const kind of ['declared', 'chunked']) {
    t.equal((await (await fetch(`${origin}/${kind}/1000`)).arrayBuffer()).byteLength, 1_000);
    t.equal(await reasonOf(fetch(`${origin}/${kind}/1001`)), 'too_large');
  }
  t.equal(await reasonOf(fetch(`${origin}/endless/`)), 'too_large');
  await cut;
});

t.test('an encoded body is refused rather than decoded without a bound', async (t) => {
  const origin = await https(t, (_request, response) => response.writeHead(200, { 'content-encoding': 'gzip' }).end('x'));
  t.equal(await reasonOf(outboundFetch(trusting)(origin)), 'malformed CONTENT_ENCODING');
});

t.test('a peer that is away, breaks off or does not speak HTTP is told apart', async (t) => {
  const away = createTcpServer();
  const port = await listen(t, away);
  await new Promise((resolve) => away.close(resolve));
  t.equal(await reasonOf(outboundFetch(trusting)(`https://127.0.0.1:${port}/`)), 'unreachable ECONNREFUSED');
  const cutting = await https(t, (_request, response) => {
    response.writeHead(200, { 'content-length': 100 });
    response.write('half', () => response.destroy());
  });
  t.match(await reasonOf(outboundFetch(trusting)(cutting)), /^unreachable /);
  const babbling = await listen(
    t,
    createTcpServer((socket) => socket.on('error', () => {}).end(`${canary}\r\n\r\n`)),
  );
  t.match(await reasonOf(outboundFetch(trusting)(`http://127.0.0.1:${babbling}/`)), /^malformed/);
});

t.test('an error shows nothing of what was sent or received', async (t) => {
  const babbling = await listen(
    t,
    createTcpServer((socket) => socket.on('error', () => {}).end(`HTTP/1.1 200 OK\r\nx ${canary}: y\r\n\r\n${canary}`)),
  );
  const url = `http://127.0.0.1:${babbling}/${canary}?${canary}`;
  const inits = [
    {},
    { headers: { authorization: `Bearer ${canary}` }, body: canary, method: 'POST' },
    { headers: { authorization: `Bearer ${canary}\r\n` } },
    { headers: { [`x ${canary}`]: 'y' } },
    { method: `GET ${canary}` },
  ];
  for (const init of inits) {
    const error: unknown = await outboundFetch(trusting)(url, init).catch((thrown: unknown) => thrown);
    t.ok(error instanceof OutboundError);
    t.notMatch(inspect(error, { depth: 10, showHidden: true }), canary);
    t.notMatch(JSON.stringify(error), canary);
  }
});

t.test('jose reads a key set and oauth4webapi sends a form through it', async (t) => {
  const { privateKey, publicKey } = await generateKeyPair('ES256');
  const forms: string[] = [];
  const origin = await https(t, (request, response) => {
    request.setEncoding('utf8').on('data', (chunk: string) => forms.push(`${request.headers['content-type']} ${chunk}`));
    request.on('end', () => {
      void exportJWK(publicKey).then((jwk) => response.end(JSON.stringify({ keys: [{ ...jwk, kid: 'one' }] })));
    });
  });
  const fetch = outboundFetch(trusting);
  const token = await new SignJWT({ hello: 'world' }).setProtectedHeader({ alg: 'ES256', kid: 'one' }).sign(privateKey);
  const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(`${origin}/jwks`), { [joseFetch]: fetch }));
  t.same(payload, { hello: 'world' });
  const response = await clientCredentialsGrantRequest(
    { issuer: origin, token_endpoint: `${origin}/token` },
    { client_id: 'c' },
    None(),
    { scope: 'read' },
    { [oauthFetch]: fetch },
  );
  t.equal(response.status, 200);
  t.same(forms, ['application/x-www-form-urlencoded;charset=UTF-8 scope=read&grant_type=client_credentials&client_id=c']);
});
