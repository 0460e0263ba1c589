import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { startConnectProxy } from '../fakes/connect-proxy.ts';
import { field } from '../fakes/recorder.ts';
import { dial, exchange, secure, tunnelTo, wholeResponse } from '../support/path.ts';
import { eventually, host, prepareStack, writeWhole } from '../support/stack.ts';

/** A company whose only way out is a proxy that asks for a password: as an operator configures it, through every role. */
const setUp = async (t: Test, { credential = 'corp:pass-1', noProxy = '' } = {}) => {
  const stack = await prepareStack(t);
  const corporate = await startConnectProxy({
    credential: 'corp:pass-1',
    to: (authority) => ({ host: '127.0.0.1', port: authority.endsWith(':443') ? stack.origin.httpsPort : stack.origin.httpPort }),
  });
  t.teardown(() => corporate.close());
  const credentialsFile = join(stack.files.dir, 'corporate-credentials');
  writeWhole(credentialsFile, `${credential}\n`);
  const broker = await stack.startBroker();
  const collector = await stack.startCollector(broker.grpc.port);
  const proxy = await stack.startProxy(broker.grpc.port, collector.grpc.port, {
    upstreamProxy: `{ url: "http://127.0.0.1:${corporate.port}", credentialsFile: ${credentialsFile}, noProxy: [${noProxy}] }`,
  });
  await Promise.all([collector.ready(), proxy.ready()]);
  return { stack, corporate, credentialsFile, port: proxy.listen.port };
};

const get = (scheme: 'http' | 'https'): string =>
  `GET ${scheme === 'http' ? `http://${host}` : ''}/a HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;

t.test('targets are reached through the proxy on the way, with its password, and never see it', async (t) => {
  const { stack, corporate, port } = await setUp(t);
  t.match(await exchange(await dial(port), get('http'), wholeResponse), /^HTTP\/1\.1 200 /);
  const { socket } = await tunnelTo(port, `${host}:443`);
  const secured = await secure(socket, readFileSync(stack.files.bundle, 'utf8'), host);
  t.match(await exchange(secured, get('https'), wholeResponse), /^HTTP\/1\.1 200 /);
  t.strictSame(
    corporate.asked.map(({ url }) => url),
    [`${host}:80`, `${host}:443`],
  );
  t.equal(stack.origin.requests.length, 2);
  for (const request of stack.origin.requests) {
    t.match(field(request, 'authorization'), [/^Bearer eyJ/]);
    t.strictSame(field(request, 'proxy-authorization'), []);
  }
  await eventually(() => stack.events().filter(({ kind }) => kind === 'outcome').length >= 2);
  t.notMatch(stack.logs.join() + JSON.stringify(stack.events()), /pass-1|Y29ycDpwYXNzLTE/);
});

t.test('what no target names goes the same way, untouched', async (t) => {
  const { stack, corporate, port } = await setUp(t);
  const { socket } = await tunnelTo(port, 'elsewhere.example:80');
  t.match(
    await exchange(socket, 'GET /b HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n', wholeResponse),
    /^HTTP\/1\.1 200 /,
  );
  t.strictSame(
    corporate.asked.map(({ url }) => url),
    ['elsewhere.example:80'],
  );
  t.strictSame(field(stack.origin.requests[0] as never, 'authorization'), []);
});

t.test('what is left out of it is not asked of it', async (t) => {
  const { corporate, port } = await setUp(t, { noProxy: '.outrider.test' });
  t.match(await exchange(await dial(port), get('http'), wholeResponse), /^HTTP\/1\.1 502 [^]*"code":"target_unresolved"/);
  t.equal(corporate.asked.length, 0);
});

t.test('a wrong password is told from a proxy that is away, and a corrected one is used without a restart', async (t) => {
  const { corporate, credentialsFile, port } = await setUp(t, { credential: 'corp:pass-0' });
  t.match(await exchange(await dial(port), get('http'), wholeResponse), /^HTTP\/1\.1 502 [^]*"code":"upstream_proxy_refused"/);
  writeWhole(credentialsFile, 'corp:pass-1\n');
  t.match(await exchange(await dial(port), get('http'), wholeResponse), /^HTTP\/1\.1 200 /);
  await corporate.close();
  const { socket, refusal } = await tunnelTo(port, 'elsewhere.example:443');
  socket.destroy();
  t.match(refusal, /^HTTP\/1\.1 502 [^]*"code":"upstream_proxy_unreachable"/);
});
