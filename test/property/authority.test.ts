import fc from 'fast-check';
import t from 'tap';
import { canonicalHost, type Destination, hostField, hostPort, parseAuthority } from '../../src/core/destination.ts';
import { reconcile } from '../../src/proxy/route.ts';
import { askPython } from './python.ts';
import { holds, seed } from './seed.ts';

/** One canonical authority (THREATS E-1 to E-4), against Node's URL and Python's standard library. */

const label = fc.stringMatching(/^[a-z0-9](?:[a-z0-9-]{0,12}[a-z0-9])?$/);
/** A last label of digits alone would be an address for some. */
const lastLabel = fc.stringMatching(/^[a-z][a-z0-9]{0,8}$/);
const hostName = fc.tuple(fc.array(label, { maxLength: 3 }), lastLabel).map(([labels, last]) => [...labels, last].join('.'));
const ipv6 = fc.ipV6().map((address) => `[${address}]`);

/** Spellings of one name that mean the same: case, and one dot at the end. */
const spelled = (name: fc.Arbitrary<string>): fc.Arbitrary<{ name: string; spelling: string }> =>
  fc.tuple(name, fc.infiniteStream(fc.boolean()), fc.boolean()).map(([one, upper, isDotted]) => {
    const letters = Array.from(one, (letter) => (upper.next().value === true ? letter.toUpperCase() : letter)).join('');
    return { name: one, spelling: isDotted && !one.startsWith('[') ? `${letters}.` : letters };
  });

t.test('every spelling of a host is the host', (t) =>
  holds(
    t,
    'one name',
    fc.property(
      spelled(fc.oneof(hostName, ipv6)),
      ({ name, spelling }) => canonicalHost(name) !== undefined && canonicalHost(spelling) === canonicalHost(name),
    ),
    1_500,
  ),
);

/** Text near to hosts, and text that is far from them. */
const anything = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.string({ maxLength: 40 }),
  fc
    .tuple(hostName, fc.string({ unit: 'binary', maxLength: 2 }), fc.nat(20))
    .map(([name, piece, at]) => name.slice(0, at) + piece + name.slice(at)),
  fc.webAuthority({ withPort: true, withUserInfo: true, withIPv4: true, withIPv6: true, withIPv4Extended: true }),
  fc
    .array(
      fc.constantFrom(
        'a',
        'B',
        '1',
        '.',
        '-',
        '_',
        ':',
        '[',
        ']',
        '%',
        '%2e',
        '@',
        '/',
        '\\',
        '?',
        '#',
        ' ',
        '\t',
        '\0',
        '0x7f',
        '127',
        '::',
        '。',
        'ß',
        'é',
        '\u00ad',
        '\u200d',
        'xn--',
      ),
    )
    .map((pieces) => pieces.join('')),
);

t.test('what is taken for a host is the same host for a URL parser, and its canonical form is a fixed point', (t) =>
  holds(
    t,
    'one reading',
    fc.property(anything, (raw) => {
      const authority = parseAuthority(raw);
      if (!authority) return;
      const { host, port } = authority;
      // An underscore is in no host for some parsers, and is one letter for all that take it.
      const url = new URL(`http://${raw}/`);
      const theirs = url.hostname.replace(/\.$/, '').replace(/^\[|\]$/g, '');
      if (theirs !== host) throw new Error(`${JSON.stringify(raw)} is ${host}, and ${theirs} for a URL parser`);
      if (url.username !== '' || url.pathname !== '/' || url.search !== '' || url.hash !== '')
        throw new Error(`${raw} is more than an authority`);
      if (port !== undefined && Number(url.port || 80) !== port) throw new Error(`port ${port}, and ${url.port} for a URL parser`);
      if (!/^[a-z0-9_.:-]+$/.test(host)) throw new Error(`${host} is no canonical spelling`);
      const again = parseAuthority(hostPort({ host, port: port ?? 1 }));
      if (again?.host !== host) throw new Error(`${host} becomes ${again?.host}`);
    }),
    20_000,
  ),
);

t.test('addresses of IPv6 are equal for us when they are the same number for Python, and none is taken that Python refuses', async (t) => {
  const pieces = fc
    .array(fc.constantFrom(':', '::', '0', '1', 'ff', 'FFFF', '00ab', '1.2.3.4', '01.2.3.4', '%eth0', 'g', '12345'), { maxLength: 12 })
    .map((all) => all.join(''));
  const texts = [...new Set(fc.sample(fc.oneof(fc.ipV6(), fc.ipV6(), pieces), { seed, numRuns: 4_000 }))].filter(
    (text) => !/[\n\]]/.test(text),
  );
  const numbers = askPython(t, 'ipv6', texts);
  if (!numbers) return;
  const canonical = texts.map((text) => canonicalHost(`[${text}]`));
  const again = askPython(
    t,
    'ipv6',
    canonical.map((host) => host ?? 'none'),
  );
  const wrong = texts.filter((_, i) => numbers[i] !== again?.[i]);
  t.strictSame(wrong, [], `${texts.length} texts`);
  t.ok(numbers.filter((one) => one !== null).length > 1_000 && numbers.includes(null), 'of both kinds');
});

t.test('international names become what Python makes of them', async (t) => {
  // Letters that both editions of IDNA read alike (RFC 5891, RFC 3490).
  const letter = fc.constantFrom(...Array.from('abcxyz019éüñçøåßжщя中文日本語한국ελ').filter((one) => one !== 'ß'));
  const name = fc
    .array(
      fc.array(letter, { minLength: 1, maxLength: 8 }).map((letters) => letters.join('')),
      { minLength: 1, maxLength: 3 },
    )
    .map((labels) => `${labels.join('.')}.test`);
  const texts = fc.sample(name, { seed, numRuns: 1_000 });
  const theirs = askPython(t, 'name', texts);
  if (!theirs) return;
  t.strictSame(
    texts.map((text) => canonicalHost(text) ?? null),
    theirs,
  );
});

const scheme = fc.constantFrom('http' as const, 'https' as const);

t.test('claims that are spellings of one destination are reconciled to it; one that differs in host or port refuses all', (t) =>
  holds(
    t,
    'one destination or none',
    fc.property(
      scheme,
      spelled(hostName),
      spelled(hostName),
      fc.integer({ min: 1, max: 65_535 }),
      fc.nat(2),
      fc.infiniteStream(fc.boolean()),
      (how, one, other, port, odd, choice) => {
        const destination: Destination = { scheme: how, host: one.name, port };
        const spellings = [`${one.spelling}:${port}`, hostPort(destination), hostField(destination)];
        const pick = (): string =>
          choice.next().value === true ? (spellings[0] as string) : (spellings[1 + Number(choice.next().value)] as string);
        const claims = { connect: pick(), sni: how === 'https' ? one.spelling : undefined, absolute: pick(), host: pick() };
        const found = reconcile(how, claims);
        if (found.host !== one.name || found.port !== port || found.scheme !== how) return false;
        const isOther = other.name !== one.name;
        const differing = isOther ? `${other.spelling}:${port}` : `${one.spelling}:${port === 65_535 ? 1 : port + 1}`;
        const name = (['connect', 'absolute', 'host'] as const)[odd] as 'connect';
        const refusals = [{ ...claims, [name]: differing }, ...(how === 'https' && isOther ? [{ ...claims, sni: other.spelling }] : [])];
        return refusals.every((bad) => {
          try {
            reconcile(how, bad);
            return false;
          } catch (error) {
            return (error as { code?: string }).code === 'authority_mismatch';
          }
        });
      },
    ),
    1_500,
  ),
);
