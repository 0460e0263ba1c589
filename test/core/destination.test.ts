import fc from 'fast-check';
import t from 'tap';
import { canonicalHost, hostField, hostPort, parseAuthority } from '../../src/core/destination.ts';

t.test('spellings of one host become one name', async (t) => {
  const rows: [string, string][] = [
    ['API.Example.COM', 'api.example.com'],
    ['api.example.com.', 'api.example.com'],
    ['bücher.example', 'xn--bcher-kva.example'],
    ['BÜCHER.example', 'xn--bcher-kva.example'],
    ['xn--bcher-kva.example', 'xn--bcher-kva.example'],
    ['a_b.example', 'a_b.example'],
    ['localhost', 'localhost'],
    ['192.0.2.1', '192.0.2.1'],
    ['[2001:DB8:0:0:0:0:0:1]', '2001:db8::1'],
    ['[::ffff:192.0.2.1]', '::ffff:c000:201'],
    // Full-width letters and dots are IDNA spellings of ASCII ones.
    ['ａpi．example', 'api.example'],
  ];
  for (const [raw, wanted] of rows) t.equal(canonicalHost(raw), wanted, raw);
});

t.test('what is not one host is refused', async (t) => {
  const rows = [
    '',
    '.',
    '..',
    'a..b',
    'a.b..',
    '-a.example',
    'a-.example',
    'a b',
    'a,b',
    'a@b',
    'a/b',
    'a\\b',
    'a?b',
    'a#b',
    'a%2eb',
    'a:b',
    '[::1',
    '::1',
    '[name]',
    '[fe80::1%eth0]',
    '[]',
    'a\u0000b',
    'a\nb',
    '*.example',
    'x'.repeat(64),
    `${'a.'.repeat(127)}aa`,
  ];
  for (const raw of rows) t.equal(canonicalHost(raw), undefined, JSON.stringify(raw));
});

t.test('numbers that a resolver may read as an IPv4 address are refused', async (t) => {
  for (const raw of [
    '127.1',
    '2130706433',
    '0x7f000001',
    '0x7f.0.0.1',
    '017700000001',
    '127.0.0.01',
    '1.2.3.4.5',
    'example.0x10',
    '256.1.1.1',
    '1.2.3.4.',
  ]) {
    t.equal(canonicalHost(raw), undefined, raw);
  }
});

t.test('an authority is a host and at most one port', async (t) => {
  t.same(parseAuthority('Example.com:8443'), { host: 'example.com', port: 8443 });
  t.same(parseAuthority('example.com'), { host: 'example.com', port: undefined });
  t.same(parseAuthority('[::1]:80'), { host: '::1', port: 80 });
  for (const raw of [
    'example.com:',
    'example.com:0',
    'example.com:65536',
    'example.com:+80',
    'example.com:80:80',
    'user@example.com',
    ':80',
    'example.com:080808',
    ' example.com',
    'example.com :80',
  ]) {
    t.equal(parseAuthority(raw), undefined, JSON.stringify(raw));
  }
});

t.test('a Host field names the port only when it is not the default', async (t) => {
  t.equal(hostField({ scheme: 'https', host: 'a.example', port: 443 }), 'a.example');
  t.equal(hostField({ scheme: 'https', host: 'a.example', port: 80 }), 'a.example:80');
  t.equal(hostField({ scheme: 'http', host: '::1', port: 80 }), '[::1]');
  t.equal(hostPort({ host: '::1', port: 80 }), '[::1]:80');
});

t.test('canonicalising twice changes nothing, for any input', async (t) => {
  const seed = Date.now();
  t.comment(`seed ${seed}`);
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ unit: 'binary' }),
        fc.domain(),
        fc.ipV4(),
        fc.ipV6().map((a) => `[${a}]`),
        fc.ipV4Extended(),
      ),
      (raw) => {
        const once = canonicalHost(raw);
        if (once === undefined) return true;
        return canonicalHost(once.includes(':') ? `[${once}]` : once) === once;
      },
    ),
    { seed, numRuns: 5_000 },
  );
});
