import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { noProxy } from '../../src/net/no-proxy.ts';
import { needs } from '../pki/external-program.ts';

/** [what is written, hosts left out, hosts that go through the proxy] */
const table: readonly (readonly [string, readonly string[], readonly string[]])[] = [
  ['', [], ['example.com', '10.0.0.1', '::1', 'localhost']],
  ['*', ['example.com', '10.0.0.1', '::1'], []],
  ['*,other.example', ['other.example'], ['example.com', '10.0.0.1']],
  ['*.example.com', [], ['www.example.com', 'example.com']],
  ['example.com', ['example.com', 'www.example.com', 'a.b.example.com'], ['notexample.com', 'example.com.evil.test', 'example.org', 'com']],
  ['.example.com', ['example.com', 'www.example.com'], ['notexample.com', '.com']],
  ['EXAMPLE.com', ['example.com', 'Www.Example.COM'], ['example.org']],
  ['example.com.', ['example.com', 'example.com.', 'www.example.com.'], ['example.co']],
  ['example.com', ['example.com.'], ['example.com..']],
  ['com', ['example.com', 'com'], ['example.org', 'telecom']],
  ['.', [], ['example.com', 'localhost']],
  ['localhost', ['localhost', 'app.localhost'], ['notlocalhost', '127.0.0.1', '::1']],
  ['a.test,b.test', ['a.test', 'b.test'], ['c.test']],
  ['a.test, b.test', ['a.test', 'b.test'], ['c.test']],
  ['a.test b.test', ['a.test', 'b.test'], ['c.test']],
  [',,a.test,,  ,b.test,', ['a.test', 'b.test'], ['c.test']],
  ['a.test:8080', [], ['a.test']],
  ['10.0.0.1:8080', [], ['10.0.0.1']],
  ['http://a.test', [], ['a.test']],
  ['10.0.0.1', ['10.0.0.1'], ['10.0.0.2', '110.0.0.1', 'ten.10.0.0.1.test']],
  ['0.0.1', [], ['10.0.0.1']],
  ['10.', [], ['10.0.0.1']],
  ['10.0.0.0/8', ['10.0.0.0', '10.255.255.255'], ['11.0.0.0', '9.255.255.255', '10.example.com']],
  ['10.1.2.3/8', ['10.9.9.9'], ['11.1.2.3']],
  ['192.168.1.0/31', ['192.168.1.0', '192.168.1.1'], ['192.168.1.2']],
  ['192.168.1.7/32', ['192.168.1.7'], ['192.168.1.6']],
  ['0.0.0.0/0', ['10.0.0.1', '8.8.8.8'], ['::1', 'example.com']],
  ['::/0', ['::1', '2001:db8::1'], ['10.0.0.1', 'example.com']],
  ['10.0.0.0/33,10.0.0.0/,10.0.0.0/8x,/8,10.0.0/8,10.0.0.0/-1', [], ['10.0.0.1', '10.0.0.0']],
  ['::1', ['::1', '0:0:0:0:0:0:0:1'], ['::2', '127.0.0.1']],
  ['0:0::1', ['::1'], ['::2']],
  ['2001:DB8::5', ['2001:db8::5'], ['2001:db8::6']],
  // Brackets belong to URLs, not to this list: curl knows them there no more than it knows ports.
  ['[::1]', [], ['::1']],
  ['2001:db8::/32', ['2001:db8::', '2001:db8:ffff::1'], ['2001:db9::', '32.1.13.184']],
  ['2001:db8::/33', ['2001:db8:7fff::1'], ['2001:db8:8000::1']],
  ['fe80::/10', ['fe80::1', 'febf::1'], ['fec0::1']],
  ['2001:db8::/129,fe80::1%eth0', [], ['2001:db8::', 'fe80::1']],
  // A mapped address is an IPv6 address; whoever means the IPv4 one names that.
  ['10.0.0.0/8', [], ['::ffff:10.0.0.1']],
];

t.test('what a proxy is left out for is read as curl documents it', async (t) => {
  for (const [written, leftOut, proxied] of table) {
    const isLeftOut = noProxy(written);
    for (const host of leftOut) t.ok(isLeftOut(host), `"${written}" leaves out ${host}`);
    for (const host of proxied) t.notOk(isLeftOut(host), `"${written}" does not leave out ${host}`);
  }
});

t.test('a list of items is the text of them, and items may hold several', async (t) => {
  const isLeftOut = noProxy(['.a.test', '10.0.0.0/8, b.test']);
  for (const host of ['x.a.test', '10.1.1.1', 'b.test']) t.ok(isLeftOut(host), host);
  t.notOk(isLeftOut('c.test'));
  t.ok(noProxy(['*'])('anything.test'));
  t.notOk(noProxy([])('anything.test'));
});

const listening = async (server: Server): Promise<number> => {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
};

/** Asks curl, for each host, whether it went through the proxy: its proxy answers 418 to CONNECT, its origin 204. */
const startCurl = async () => {
  const origin = createServer((_request, response) => response.writeHead(204).end());
  const proxy = createServer().on('connect', (_request, socket) => {
    socket.on('error', () => undefined);
    socket.end('HTTP/1.1 418 Proxied\r\nContent-Length: 0\r\n\r\n');
  });
  const [originPort, proxyPort] = [await listening(origin), await listening(proxy)];
  return {
    leftOut: async (written: string, hosts: readonly string[]): Promise<readonly boolean[]> => {
      const flags = ['-q', '-s', '-g', '--max-time', '30', '-x', `http://127.0.0.1:${proxyPort}`, '--noproxy', written];
      // All that is not proxied goes to the origin, whatever its name, so nothing is resolved.
      const direct = ['--connect-to', `::127.0.0.1:${originPort}`, '-w', '%{http_connect} %{http_code}\n'];
      const urls = hosts.map((host) => `http://${host.includes(':') ? `[${host}]` : host}/`);
      const run = promisify(execFile)('curl', [...flags, ...direct, ...urls], { env: { PATH: process.env['PATH'] } });
      // A proxy's 418 makes curl end with an error of its own; what it wrote says which.
      const { stdout } = await run.catch((error: { stdout: string }) => error);
      const lines = stdout.trim().split('\n');
      if (lines.length !== hosts.length || !lines.every((line) => line === '418 000' || line === '000 204'))
        throw new Error(`curl answered ${stdout} for ${written}`);
      return lines.map((line) => line === '000 204');
    },
    close: () => {
      origin.close();
      proxy.close();
    },
  };
};

const labels = ['a', 'b', 'www', 'example', 'com', 'test', 'xa'];
const names = fc.array(fc.constantFrom(...labels), { minLength: 1, maxLength: 3 }).map((parts) => parts.join('.'));
const addresses = fc.constantFrom('10.0.0.1', '10.0.0.2', '10.1.2.3', '10.128.0.1', '192.168.1.1', '172.16.0.1', '172.31.9.9', '11.0.0.1');
const literals6 = fc.constantFrom('::1', '::2', '2001:db8::5', 'fd00::1');
const upper = (text: string): string => text.toUpperCase();
/** What releases of curl agree on: IPv6 ranges, "/0" and blanks without a comma are in the table above only. */
const item = fc.oneof(
  names,
  names.map((name) => `.${name}`),
  names.map((name) => `${name}.`),
  names.map(upper),
  names.map((name) => `${name}:80`),
  addresses,
  fc.tuple(addresses, fc.integer({ min: 1, max: 33 })).map(([address, bits]) => `${address}/${bits}`),
  literals6,
  fc.constant('*'),
);
const separator = fc.constantFrom(',', ', ', ' ,', ',,');
const written = fc
  .array(fc.tuple(item, separator), { minLength: 1, maxLength: 4 })
  .map((parts) => parts.map(([one, after], i) => (i === parts.length - 1 ? one : `${one}${after}`)).join(''));
const host = fc.oneof(
  names,
  names.map(upper),
  names.map((name) => `${name}.`),
  addresses,
  literals6,
);

t.test('a generated list leaves out the same hosts as a real curl does', needs('curl'), async (t) => {
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const curl = await startCurl();
  t.teardown(curl.close);
  const samples = fc.sample(fc.tuple(written, fc.array(host, { minLength: 25, maxLength: 25 })), { seed, numRuns: 60 });
  let leftOutCount = 0;
  for (const [list, hosts] of samples) {
    const wanted = await curl.leftOut(list, hosts);
    const isLeftOut = noProxy(list);
    for (const [i, one] of hosts.entries()) {
      if (wanted[i]) leftOutCount += 1;
      if (isLeftOut(one) !== wanted[i]) t.fail(`"${list}" and ${one}: curl ${wanted[i] ? 'leaves it out' : 'goes through the proxy'}`);
    }
  }
  t.ok(leftOutCount > 50 && leftOutCount < 1_450, `curl left out ${leftOutCount} of 1500`);
});
