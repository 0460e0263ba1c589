import { channel } from 'node:diagnostics_channel';
import { isIP, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { createDialer, createResolver, type Lookup } from '../../src/net/dial.ts';
import { OutboundError, outboundFetch } from '../../src/net/fetch.ts';
import { classifyAddress } from '../../src/net/guard.ts';
import { noProxy } from '../../src/net/no-proxy.ts';
import { field, startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import {
  allowAll,
  bearer,
  dial,
  exchange,
  grantOf,
  type Path,
  type PathOptions,
  startPath,
  target,
  wholeResponse,
} from '../support/path.ts';

/**
 * THREATS E-6 to E-8 and E-20: what is never dialled, on every way that something is dialled. Every connection that this process begins
 * is noted, so that "was not dialled" is what happened and not what was answered.
 */
t.setTimeout(120_000);
const authority = createTestAuthority();

const begun: string[] = [];
channel('net.client.socket').subscribe((message) => {
  const { socket } = message as { socket: Socket };
  socket.on('connectionAttempt', (address: string, port: number) => void begun.push(`${address} ${port}`));
});

t.beforeEach(() => {
  begun.length = 0;
});

const ipv4 = [
  '169.254.169.254',
  '169.254.170.2',
  '169.254.170.23',
  '168.63.129.16',
  '100.100.100.200',
  '169.254.0.1',
  '169.254.255.255',
  '127.0.0.1',
  '127.255.255.254',
  '0.0.0.0',
  '0.255.255.255',
  '10.0.0.1',
  '10.255.255.255',
  '172.16.0.1',
  '172.31.255.255',
  '192.168.0.1',
  '100.64.0.1',
  '100.127.255.255',
  '192.0.0.1',
  '192.0.2.1',
  '198.18.0.1',
  '198.19.255.255',
  '198.51.100.1',
  '203.0.113.1',
  '224.0.0.1',
  '240.0.0.1',
  '255.255.255.255',
];
const ipv6 = [
  '::1',
  '::',
  'fe80::1',
  'febf::1',
  'fec0::1',
  'feff::1',
  'fc00::1',
  'fdff::1',
  'ff02::1',
  'ff05::2',

  'fd00:ec2::254',
  'fd00:ec2::23',
  'fd20:ce::254',
  'fd00:42::42',
  '2001:db8::1',
  '3fff::1',
  '5f00::1',
  '64:ff9b:1::1',
  '100::1',
  '2001:2::1',
  '2001:10::1',
  '2001:20::1',
];

const numbersOf = (address: string): number[] => address.split('.').map(Number);
const hex = (high: number, low: number): string => ((high << 8) | low).toString(16);

/** Ways to write one IPv4 address: by itself, by what libc takes for it, and inside IPv6. */
const formsOf = (address: string): string[] => {
  const [a, b, c, d] = numbersOf(address) as [number, number, number, number];
  const whole = ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
  const [high, low] = [hex(a, b), hex(c, d)];
  const inverted = [hex(a ^ 255, b ^ 255), hex(c ^ 255, d ^ 255)];
  return [
    address,
    String(whole),
    `0x${whole.toString(16)}`,
    `0${whole.toString(8)}`,
    `${a}.${(b << 16) | (c << 8) | d}`,
    `${a}.${b}.${(c << 8) | d}`,
    [a, b, c, d].map((part) => `0x${part.toString(16)}`).join('.'),
    [a, b, c, d].map((part) => `0${part.toString(8)}`).join('.'),
    `[::ffff:${address}]`,
    `[::FFFF:${high}:${low}]`,
    `[0:0:0:0:0:ffff:${high}:${low}]`,
    `[::ffff:0:${address}]`,
    `[64:ff9b::${address}]`,
    `[64:ff9b::${high}:${low}]`,
    `[2002:${high}:${low}::1]`,
    `[2002:${high}:${low}:1:2:3:4:5]`,
    `[2001:0:4136:e378:8000:63bf:${inverted.join(':')}]`,
    `[2606:4700::5efe:${high}:${low}]`,
    `[2606:4700::200:5efe:${address}]`,
    ...(a === 0 ? [] : [`[::${address}]`, `[::${high}:${low}]`]),
  ];
};
const fullOf = (address: string): string => {
  const [left = '', right] = address.split('::');
  const [before, after] = [left, right ?? ''].map((text) => (text === '' ? [] : text.split(':'))) as [string[], string[]];
  const zeros = Array.from({ length: right === undefined ? 0 : 8 - before.length - after.length }, () => '0');
  return [...before, ...zeros, ...after].map((group) => group.padStart(4, '0').toUpperCase()).join(':');
};
const literals = [...ipv4.flatMap(formsOf), ...ipv6.flatMap((address) => [`[${address}]`, `[${fullOf(address)}]`])];
/** The same as a name server may give them. */
const answers = [...new Set(literals.map((one) => one.replace(/^\[|\]$/g, '').toLowerCase()))].filter((one) => isIP(one) !== 0);

interface Guarded extends Path {
  /** Names that were asked for. */
  readonly asked: string[];
  readonly answer: (...addresses: string[]) => void;
}

const startGuarded = async (t: Test, options: Partial<PathOptions> = {}): Promise<Guarded> => {
  const asked: string[] = [];
  let given: readonly string[] = [];
  const lookup: Lookup = async (host) => {
    asked.push(host);
    return given;
  };
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo'), target('denied')],
    pins: [],
    trustPem: authority.pem,
    lookup,
    routes: [
      { listen: { host: '127.0.0.1', port: 0 }, to: { scheme: 'http', host: 'echo.outrider.test', port: 80 } },
      { listen: { host: '127.0.0.1', port: 0 }, to: { scheme: 'http', host: 'unlisted.outrider.test', port: 80 } },
    ],
    ...options,
  });
  t.teardown(() => path.close());
  return { ...path, asked, answer: (...addresses) => void (given = addresses) };
};

const say = async (port: number, head: string): Promise<string> => {
  const socket = await dial(port);
  const answer = await exchange(socket, head, wholeResponse);
  socket.destroy();
  return answer;
};
const get = (host: string): string => `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
const connectTo = (authorityOf: string): string => `CONNECT ${authorityOf} HTTP/1.1\r\nHost: ${authorityOf}\r\n\r\n`;

/** What this process began to connect to, but for the proxy's own ports. */
const beyond = (...own: readonly (number | undefined)[]): string[] =>
  begun.filter((one) => !own.some((port) => one === `127.0.0.1 ${port}`));

const refused = /^HTTP\/1\.1 4(?:03 [^]*"code":"destination_prohibited"|00 [^]*"code":"authority_invalid")/;

t.test('no spelling of a special address is dialled for a program: absolute form, CONNECT, or steered there', async (t) => {
  let original = { address: '', port: 80 };
  const path = await startGuarded(t, { originalOf: () => original, onUnmatched: 'tunnel' });
  const wrong: string[] = [];
  let cases = 0;
  const check = (how: string, answer: string): void => {
    cases += 1;
    if (!refused.test(answer)) wrong.push(`${how}: ${answer.slice(0, 200)}`);
  };
  for (const literal of literals) {
    check(`GET ${literal}`, await say(path.port, get(literal)));
    check(`CONNECT ${literal}`, await say(path.port, connectTo(`${literal}:443`)));
  }
  for (const address of answers) {
    original = { address, port: 80 };
    check(`steered to ${address}`, await say(path.transparentPort as number, `GET / HTTP/1.1\r\nHost: unlisted.outrider.test\r\n\r\n`));
  }
  t.strictSame(wrong.slice(0, 5), []);
  t.equal(wrong.length, 0);
  t.strictSame(beyond(path.port, path.transparentPort), []);
  t.strictSame(path.asked, [], 'and no name was asked for');
  t.comment(`${cases} cases: ${literals.length} spellings of ${ipv4.length + ipv6.length} addresses`);
  t.ok(cases > 1_500);
});

t.test(
  'no name that leads to a special address is dialled, alone or among others: absolute form, CONNECT, reverse route, target',
  async (t) => {
    const path = await startGuarded(t);
    const isForTargets = (address: string): boolean => classifyAddress(address) === 'private';
    const wrong: string[] = [];
    let cases = 0;
    for (const address of answers) {
      for (const given of [[address], ['8.8.8.8', '2606:4700::1111', address]]) {
        path.answer(...given);
        const ways: [string, Promise<string>][] = [
          ['absolute form', say(path.port, get('unlisted.outrider.test'))],
          ['CONNECT', say(path.port, connectTo('unlisted.outrider.test:443'))],
          [
            'reverse route to what no target names',
            say(path.routes[1] as number, 'GET / HTTP/1.1\r\nHost: unlisted.outrider.test\r\n\r\n'),
          ],
        ];
        if (!isForTargets(address))
          ways.push(
            ['target', say(path.port, get('echo.outrider.test'))],
            ['reverse route to a target', say(path.routes[0] as number, 'GET / HTTP/1.1\r\nHost: echo.outrider.test\r\n\r\n')],
          );
        for (const [way, answer] of ways) {
          cases += 1;
          if (!refused.test(await answer)) wrong.push(`${way} to ${given.join()}: ${(await answer).slice(0, 200)}`);
        }
      }
    }
    t.strictSame(wrong.slice(0, 5), []);
    t.equal(wrong.length, 0);
    t.strictSame(beyond(path.port, ...path.routes), []);
    t.comment(`${cases} cases, ${answers.length} addresses`);
    t.ok(cases > 2_000);
  },
);

t.test('the proxy on the way neither is nor is sent to a special address', async (t) => {
  const chainTo = (host: string, given: readonly string[]) => {
    const resolver = createResolver([], undefined, async () => given);
    const chain = {
      proxy: { scheme: 'http' as const, host, port: 3128 },
      credential: () => undefined,
      noProxy: noProxy([]),
      trustPems: [],
    };
    return createDialer({ resolver, chain, patience: { connectMs: 50 } });
  };
  const before = begun.length;
  for (const address of answers) {
    const policy = { privateAllowed: false, named: [] };
    // To the address, by way of a proxy that would go there.
    await t.rejects(
      chainTo('127.0.0.1', []).open({ scheme: 'http', host: address, port: 80 }, policy, undefined),
      { code: 'destination_prohibited' },
      address,
    );
    const kind = classifyAddress(address);
    if (kind === 'private' || kind === 'loopback') continue;
    await t.rejects(
      chainTo('proxy.outrider.test', [address]).open({ scheme: 'http', host: 'any.outrider.test', port: 80 }, policy, undefined),
      { code: 'upstream_proxy_unreachable', detail: /not dialled/ },
      `the proxy at ${address}`,
    );
  }
  t.strictSame(begun.slice(before), []);
});

t.test("the broker's own calls (token endpoints, discovery, keys) go to no metadata service, link-local or reserved address", async (t) => {
  const fetch = outboundFetch({ timeoutMs: 1_000, bodyBytesMax: 1_000 });
  const before = begun.length;
  let cases = 0;
  for (const literal of literals) {
    const url = `https://${literal}/token`;
    const plain = URL.canParse(url) ? new URL(url).hostname.replace(/^\[|\]$/g, '') : undefined;
    const kind = plain === undefined ? 'reserved' : classifyAddress(plain);
    // An operator may well have an issuer on a private network, or beside the broker.
    if (kind === 'private' || kind === 'loopback') continue;
    cases += 1;
    const error: unknown = await fetch(url).catch((thrown: unknown) => thrown);
    if (!(error instanceof OutboundError) || error.reason !== 'url_refused') t.fail(`${literal}: ${String(error)}`);
  }
  t.strictSame(begun.slice(before), []);
  t.comment(`${cases} cases`);
  t.ok(cases > 300);
});

t.test(
  'a name is resolved once for a connection, and what was judged is what is dialled: 10,000 tries against answers that change',
  async (t) => {
    const { createServer } = await import('node:net');
    const reached = { permitted: 0, forbidden: 0 };
    const permitted = createServer((socket) => void ((reached.permitted += 1), socket.on('error', () => undefined).end()));
    await new Promise<void>((resolve) => permitted.listen(0, '127.0.0.1', resolve));
    const { port } = permitted.address() as { port: number };
    const forbidden = createServer((socket) => void ((reached.forbidden += 1), socket.destroy()));
    await new Promise<void>((resolve) => forbidden.listen(port, '127.0.0.2', resolve));
    t.teardown(() => {
      permitted.close();
      forbidden.close();
    });
    let asked = 0;
    // Two queries for one connection would get past it: the first is good, the second is not.
    const lookup: Lookup = async () => [(asked += 1) % 2 === 1 ? '127.0.0.1' : '127.0.0.2'];
    const dialer = createDialer({ resolver: createResolver([], undefined, lookup), chain: undefined });
    const policy = { privateAllowed: false, named: ['127.0.0.1'] };
    const tries = 10_000;
    let refusals = 0;
    const attempt = async (): Promise<void> => {
      try {
        const { socket } = await dialer.open({ scheme: 'http', host: 'rebinding.test', port }, policy, undefined);
        await new Promise((resolve) =>
          socket
            .on('error', () => undefined)
            .once('close', resolve)
            .resume()
            .end(),
        );
      } catch (fault) {
        if ((fault as { code?: string }).code !== 'destination_prohibited') throw fault;
        refusals += 1;
      }
    };
    for (let i = 0; i < tries; i += 50) await Promise.all(Array.from({ length: 50 }, attempt));
    t.strictSame({ asked, refusals, ...reached }, { asked: tries, refusals: tries / 2, permitted: tries / 2, forbidden: 0 });
  },
);

t.test('our own listeners, the broker and the collector are dialled for no program, by whatever name', async (t) => {
  const peers = [
    { host: 'broker.outrider.svc', port: 15_002 },
    { host: '10.9.8.7', port: 15_003 },
  ];
  const lookup: Lookup = async (host) => (host === 'broker.outrider.svc' || host === 'alias.test' ? ['10.9.8.6'] : ['10.9.8.7']);
  const asked: string[] = [];
  const noting: Lookup = (host, isForTarget) => {
    asked.push(host);
    return lookup(host, isForTarget);
  };
  const resolver = createResolver([], ({ port }) => port === 15_001, noting, peers);
  const program = { privateAllowed: true, named: [] };
  const at = (host: string, port: number) => ({ scheme: 'https' as const, host, port });
  const detail = 'It is the broker or the collector of this proxy.';
  await t.rejects(resolver.resolve(at('broker.outrider.svc', 15_002), program), { code: 'destination_prohibited', detail });
  await t.rejects(resolver.resolve(at('10.9.8.7', 15_003), program), { code: 'destination_prohibited', detail });
  t.strictSame(asked, [], 'by its name it is refused before anybody is asked');
  await t.rejects(
    resolver.resolve(at('alias.test', 15_002), program),
    { code: 'destination_prohibited', detail },
    'another name of the same address',
  );
  await t.rejects(resolver.resolve(at('10.9.8.6', 15_002), program), { code: 'destination_prohibited', detail }, 'its address');
  await t.rejects(resolver.resolve(at('other.test', 15_003), program), { code: 'destination_prohibited', detail });
  await t.rejects(
    resolver.resolve(at('any.test', 15_002), program, { address: '10.9.8.6', port: 15_002 }),
    { code: 'destination_prohibited', detail },
    'steered there',
  );
  await t.rejects(resolver.resolve(at('any.test', 15_001), program), {
    code: 'destination_prohibited',
    detail: 'It is this proxy itself.',
  });
  t.strictSame(
    await resolver.resolve(at('alias.test', 443), program),
    [{ address: '10.9.8.6', port: 443 }],
    'another port of that machine is another server',
  );
  const forTarget = { isForTarget: true, privateAllowed: true, named: [] };
  t.strictSame(
    await resolver.resolve(at('broker.outrider.svc', 15_002), forTarget),
    [{ address: '10.9.8.6', port: 15_002 }],
    'a target that names it exactly',
  );
  await t.rejects(
    resolver.resolve(at('alias.test', 15_002), forTarget),
    { code: 'destination_prohibited', detail },
    'a target that names something else',
  );
  t.strictSame(await resolver.resolve(at('10.9.8.7', 15_003), { ...forTarget, named: ['10.9.8.7'] }), [
    { address: '10.9.8.7', port: 15_003 },
  ]);
});

t.test('names that are refused are never resolved', async (t) => {
  const grants = {
    get: ({ target: name }: { target: string }) =>
      grantOf(target(name), name === 'denied' ? { rules: [{ ...allowAll, effect: 'deny' as const }] } : {}),
  };
  const targets = [target('echo', { cleartextAllowed: false }), target('denied')];
  const path = await startGuarded(t, {
    onUnmatched: 'refuse',
    targets,
    grants,
    originalOf: () => ({ address: '203.0.114.7', port: 80 }),
    peers: [{ host: 'broker.outrider.svc', port: 15_002 }],
  });
  const secret = 'data-the-program-knows.attacker.test';
  const rows: [string, number, string, RegExp][] = [
    ['absolute form', path.port, get(secret), /destination_unmatched/],
    ['CONNECT', path.port, connectTo(`${secret}:443`), /destination_unmatched/],
    ['a steered connection', path.transparentPort as number, `GET / HTTP/1.1\r\nHost: ${secret}\r\n\r\n`, /destination_unmatched/],
    [
      'a route to what no target names',
      path.routes[1] as number,
      'GET / HTTP/1.1\r\nHost: unlisted.outrider.test\r\n\r\n',
      /destination_unmatched/,
    ],
    ['what policy denies', path.port, get('denied.outrider.test'), /policy_denied/],
    ['a credential in clear text', path.port, get('echo.outrider.test'), /cleartext_refused/],
    ['names that disagree', path.port, `GET http://${secret}/ HTTP/1.1\r\nHost: echo.outrider.test\r\n\r\n`, /authority_mismatch/],
    ['a name that is none', path.port, get(`${secret}.0x7f`), /authority_invalid/],
    ['the broker', path.port, connectTo('broker.outrider.svc:15002'), /destination_unmatched/],
    [
      'a path with two readings',
      path.port,
      `GET http://denied.outrider.test/a/../b HTTP/1.1\r\nHost: denied.outrider.test\r\n\r\n`,
      /path_ambiguous/,
    ],
  ];
  for (const [what, port, head, code] of rows) t.match(await say(port, head), code, what);
  t.strictSame(path.asked, []);
});

t.test('redirects are the program’s to follow: whatever status and place, the target is asked once and the place never', async (t) => {
  const elsewhere = await startRecorder(authority.serverFor('elsewhere.outrider.test'));
  t.teardown(() => elsewhere.close());
  let redirect = { status: 302, location: '' };
  const origin = await startRecorder(authority.serverFor('echo.outrider.test'), (_request, response) => {
    response.writeHead(redirect.status, { location: redirect.location, refresh: `0; url=${redirect.location}` }).end('moved');
  });
  t.teardown(() => origin.close());
  const credentials = [
    bearer('secret-bearer'),
    { ...bearer('secret-header'), placement: { kind: 'header', name: 'X-Api-Key', template: '{credential}' } as const },
  ];
  const path = await startPath({
    dir: directoryOf(t),
    targets: [target('echo'), target('elsewhere')],
    pins: [
      { host: 'echo.outrider.test', port: 80, address: '127.0.0.1', addressPort: origin.httpPort },
      { host: 'echo.outrider.test', port: 443, address: '127.0.0.1', addressPort: origin.httpsPort },
      { host: 'elsewhere.outrider.test', port: 80, address: '127.0.0.1', addressPort: elsewhere.httpPort },
      { host: 'elsewhere.outrider.test', port: 443, address: '127.0.0.1', addressPort: elsewhere.httpsPort },
    ],
    trustPem: authority.pem,
    grants: { get: ({ target: name }) => grantOf(target(name), { credentials }) },
  });
  t.teardown(() => path.close());
  const locations = [
    '/next',
    'next',
    '//elsewhere.outrider.test/',
    'http://echo.outrider.test/next',
    'https://echo.outrider.test/next',
    'http://echo.outrider.test:8080/next',
    'http://elsewhere.outrider.test/',
    'https://elsewhere.outrider.test/',
    'http://attacker.test/',
    `http://127.0.0.1:${elsewhere.httpPort}/`,
    'http://169.254.169.254/latest/meta-data/',
    'http://user:pass@attacker.test/',
    'ftp://attacker.test/',
    'javascript:alert(1)',
  ];
  let asked = 0;
  for (const status of [300, 301, 302, 303, 305, 307, 308])
    for (const location of locations)
      for (const scheme of ['http', 'https'])
        for (const method of ['GET', 'POST']) {
          redirect = { status, location };
          asked += 1;
          const body = method === 'POST' ? 'Content-Length: 2\r\n\r\nhi' : '\r\n';
          const answer = await say(
            path.port,
            `${method} ${scheme}://echo.outrider.test/first HTTP/1.1\r\nHost: echo.outrider.test\r\nConnection: close\r\n${body}`,
          );
          if (!answer.startsWith(`HTTP/1.1 ${status} `) || !answer.toLowerCase().includes(`\r\nlocation: ${location.toLowerCase()}\r\n`))
            t.fail(`${status} ${location}: ${answer}`);
        }
  t.equal(origin.requests.length, asked, `${asked} requests`);
  t.ok(origin.requests.every(({ url }) => url === '/first'));
  t.ok(origin.requests.every((request) => field(request, 'x-api-key')[0] === 'secret-header'));
  t.equal(elsewhere.requests.length, 0);
});
