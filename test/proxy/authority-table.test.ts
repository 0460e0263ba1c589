import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { hostPort, parseAuthority } from '../../src/core/destination.ts';
import { routingTable } from '../../src/proxy/route.ts';
import { needs, run } from '../pki/external-program.ts';
import { target } from '../support/path.ts';
import { judge, type Judged, type Names } from './authority/judge.ts';

/**
 * THREATS E-1 and E-4, the whole product: five names with five values each, three ways in, two protocols; then every spelling of every
 * name against every other. The oracle is the sentence "all that are there are the same, and a target names it", on text.
 */
const hosts = { allowed: 'allowed.outrider.test', other: 'other.outrider.test', denied: 'denied.outrider.test', attacker: 'attacker.test' };
const values = [...Object.values(hosts), undefined];
const ways = ['explicit', 'transparent', 'reverse'] as const;
const protocols = ['h1', 'h2'] as const;
const own = '127.0.0.1:8081';

const namesIn = (...names: readonly (string | undefined)[]): Set<string> => new Set(names.filter((name) => name !== undefined));

interface Case {
  readonly way: (typeof ways)[number];
  readonly protocol: (typeof protocols)[number];
  readonly first: string | undefined;
  readonly sni: string | undefined;
  readonly absolute: string | undefined;
  readonly host: string | undefined;
  /** What targets name: nothing but this. */
  readonly configured: string | undefined;
}

/**
 * The first name is CONNECT's, a reverse route's destination, or, in transparent mode, whose address the program dialled: that is no
 * name at all, and the connection is for what its first bytes say.
 */
const namesOf = ({ way, first, sni, absolute, host }: Case): Names => {
  const withPort = (name: string | undefined): string | undefined => (name === undefined ? undefined : `${name}:443`);
  if (way === 'transparent') return { connect: withPort(sni ?? host), sni, absolute, host };
  // A program that calls a reverse route by the port's own name makes no claim.
  return { connect: withPort(first), sni, absolute, host: way === 'reverse' && host === undefined ? own : host };
};

const expected = (one: Case): RegExp => {
  const { way, protocol, first, sni, absolute, host, configured } = one;
  const { connect } = namesOf(one);
  const isForward = connect === undefined && sni === undefined;
  // HTTP/2 without :authority takes Host for it.
  const isHostMissing = host === undefined && way !== 'reverse' && !(protocol === 'h2' && absolute !== undefined);
  if (isHostMissing) return /^refused authority_invalid$/;
  // On a reverse route "absent" is the port's own name; HTTP/2 says it in :authority, and Host has to say the same.
  const isOwnName = way === 'reverse' && host === undefined && !isForward;
  if (way === 'reverse' && host === undefined && protocol === 'h2' && absolute !== undefined) return /^refused authority_mismatch$/;
  if (protocol === 'h1' && isForward && absolute === undefined) return /^refused authority_invalid$/;
  // A server name alone says who is spoken to, and not where a request goes.
  if (way === 'reverse' && connect === undefined && sni !== undefined && absolute === undefined && host === undefined)
    return /^refused authority_invalid$/;
  const said = namesIn(
    way === 'transparent' ? undefined : first,
    sni,
    absolute,
    isOwnName ? undefined : (host ?? (way === 'reverse' ? own : undefined)),
  );
  if (said.size !== 1) return /^refused authority_mismatch$/;
  const [name] = said as unknown as [string];
  if (name !== configured) return new RegExp(`^pass ${name.replaceAll('.', '\\.')}`);
  return name === hosts.denied ? /^refused policy_denied$/ : new RegExp(`^credential ${name.replaceAll('.', '\\.')}:443$`);
};

const shown = ({ kind, what }: Judged): string => `${kind} ${what}`;

t.test('a credential goes where all names agree and nowhere else: five values of five names, three ways in, two protocols', async (t) => {
  const tables = new Map(
    values.map((name) => [name, routingTable({ configurationVersion: 'c', targets: name ? [target('it', { hosts: [name] })] : [] })]),
  );
  const counts: Record<string, number> = {};
  let cases = 0;
  const wrong: string[] = [];
  for (const way of ways)
    for (const protocol of protocols)
      for (const first of values)
        for (const sni of values)
          for (const absolute of values)
            for (const host of values)
              for (const configured of values) {
                cases += 1;
                const one: Case = { way, protocol, first, sni, absolute, host, configured };
                const table = tables.get(configured);
                if (!table) throw new Error('no table');
                const judged = judge(namesOf(one), {
                  table,
                  protocol,
                  ownAuthorities: way === 'reverse' ? [own] : [],
                  denied: configured === hosts.denied ? ['it'] : [],
                });
                const key = judged.kind === 'refused' ? judged.what : judged.kind;
                counts[key] = (counts[key] ?? 0) + 1;
                if (!expected(one).test(shown(judged))) wrong.push(`${JSON.stringify(one)}: ${shown(judged)}, not ${expected(one)}`);
                // Whatever the oracle above says: no credential beside a name that differs.
                const said = namesIn(way === 'transparent' ? undefined : first, sni, absolute, host);
                if (judged.kind === 'credential' && (said.size > 1 || ![...said].every((name) => name === configured)))
                  wrong.push(`a credential for ${JSON.stringify(one)}`);
              }
  t.strictSame(wrong.slice(0, 5), []);
  t.equal(wrong.length, 0);
  t.equal(cases, 18_750);
  t.comment(`${cases} cases: ${JSON.stringify(counts)}`);
  t.ok((counts['credential'] ?? 0) > 100 && (counts['authority_mismatch'] ?? 0) > 10_000 && (counts['pass'] ?? 0) > 100);
});

/** Spellings of `api.example.com` port 443, of other places, and of nothing, by what each is. */
const spellings: readonly (readonly [spelling: string, is: 'it' | 'other' | 'nothing'])[] = [
  ['api.example.com', 'it'],
  ['API.EXAMPLE.COM', 'it'],
  ['Api.eXample.com', 'it'],
  ['api.example.com.', 'it'],
  ['API.EXAMPLE.COM.', 'it'],
  ['api.example.com:443', 'it'],
  ['api.example.com.:443', 'it'],
  ['api.example.com:0443', 'it'],
  ['api.example.com:00443', 'it'],
  ['api.example.com:80', 'other'],
  ['api.example.com:8443', 'other'],
  ['api.example.com:1', 'other'],
  ['api.example.com:65535', 'other'],
  ['api.example.com:0', 'nothing'],
  ['api.example.com:65536', 'nothing'],
  ['api.example.com:000443', 'nothing'],
  ['api.example.com:', 'nothing'],
  ['api.example.com:+443', 'nothing'],
  ['api.example.com:-443', 'nothing'],
  ['api.example.com:443:443', 'nothing'],
  ['api.example.com:443 ', 'nothing'],
  ['api.example.com: 443', 'nothing'],
  ['api.example.com:https', 'nothing'],
  ['api.example.com:0x1bb', 'nothing'],
  ['api.example.com..', 'nothing'],
  ['.api.example.com', 'nothing'],
  ['api..example.com', 'nothing'],
  ['api.example', 'other'],
  ['example.com', 'other'],
  ['xapi.example.com', 'other'],
  ['api.example.com.attacker.test', 'other'],
  ['api-example.com', 'other'],
  ['api_example.com', 'other'],
  ['attacker.test', 'other'],
  ['user@api.example.com', 'nothing'],
  ['user:pass@api.example.com', 'nothing'],
  ['api.example.com@attacker.test', 'nothing'],
  ['api.example.com:443@attacker.test', 'nothing'],
  ['@api.example.com', 'nothing'],
  ['api.example.com/', 'nothing'],
  ['api.example.com\\attacker.test', 'nothing'],
  ['api.example.com?x', 'nothing'],
  ['api.example.com#x', 'nothing'],
  ['api.example.com;x', 'nothing'],
  ['api%2eexample.com', 'nothing'],
  ['%61pi.example.com', 'nothing'],
  ['api.example.com%00', 'nothing'],
  ['api.example.com%2f', 'nothing'],
  ['', 'nothing'],
  [' ', 'nothing'],
  [' api.example.com', 'nothing'],
  ['api.example.com ', 'nothing'],
  ['api.example.com\t', 'nothing'],
  ['api.exa mple.com', 'nothing'],
  ['api.example.com, api.example.com', 'nothing'],
  ['api.example.com,attacker.test', 'nothing'],
  ['[api.example.com]', 'nothing'],
  ['*.example.com', 'nothing'],
  ['*', 'nothing'],
  ['.', 'nothing'],
  ['-api.example.com', 'nothing'],
  // U-labels as bytes: UTF-8 to some, Latin-1 to others.
  ['\u00e4pi.example.com', 'nothing'],
  ['\u00c3\u00a4pi.example.com', 'nothing'],
  ['api.example\u3002com', 'nothing'],
  ['xn--pi-via.example.com', 'other'],
  ['XN--PI-VIA.example.com', 'other'],
  ['xn--api.example.com', 'other'],
  ['xn--.example.com', 'nothing'],
  ['xn--a-\u00e4.example.com', 'nothing'],
  ['192.0.2.1', 'other'],
  ['192.0.2.01', 'nothing'],
  ['192.0.513', 'nothing'],
  ['0xc0000201', 'nothing'],
  ['3221225985', 'nothing'],
  ['0300.0.2.1', 'nothing'],
  ['192.0.2.1.', 'nothing'],
  ['192.0.2.256', 'nothing'],
  ['[2001:db8::7]', 'other'],
  ['[2001:DB8:0:0:0:0:0:7]', 'other'],
  ['[2001:db8::0.0.0.7]', 'other'],
  ['2001:db8::7', 'nothing'],
  ['[2001:db8::7%25eth0]', 'nothing'],
  ['[fe80::1%eth0]', 'nothing'],
  ['[::ffff:192.0.2.1]', 'other'],
  ['[2001:db8::7', 'nothing'],
  ['[2001:db8::7]x', 'nothing'],
  ['[v1.fe80::a]', 'nothing'],
  ['[]', 'nothing'],
  [`${'a'.repeat(64)}.example.com`, 'nothing'],
  [`${'a.'.repeat(126)}com`, 'nothing'],
  [`${'a.'.repeat(122)}example.com.`, 'nothing'],
];

t.test('every spelling of every name against every other is the same place, or refused without a credential', async (t) => {
  const table = routingTable({ configurationVersion: 'c', targets: [target('api', { hosts: ['api.example.com'], ports: [443] })] });
  const places = ['connect', 'sni', 'absolute', 'host'] as const;
  type Place = (typeof places)[number];
  const plain: Names = { connect: 'api.example.com:443', sni: 'api.example.com', absolute: undefined, host: 'api.example.com' };
  const wrong: string[] = [];
  let cases = 0;
  let credentials = 0;
  const expectOf = (is: readonly string[], judged: Judged, what: string): void => {
    cases += 1;
    if (judged.kind === 'credential') credentials += 1;
    if (is.every((one) => one === 'it')) {
      if (judged.kind !== 'credential') wrong.push(`${what} is refused: ${shown(judged)}`);
    } else if (judged.kind === 'credential') wrong.push(`a credential for ${what}`);
    else if (is.includes('nothing') && judged.kind === 'pass') wrong.push(`${what} passes as ${judged.what}`);
    else if (judged.kind === 'refused' && !/^(?:authority_(?:invalid|mismatch)|request_malformed)$/.test(judged.what))
      wrong.push(`${what}: ${judged.what}`);
  };
  // A server name has no port; CONNECT has to have one, and is read by the tunnel before.
  const at = (place: Place, spelling: string, is: string): readonly [string, string] =>
    place === 'sni' && is === 'it' && spelling.includes(':') ? [spelling, 'other'] : [spelling, is];
  for (const protocol of protocols)
    for (const [i, one] of places.entries())
      for (const other of places.slice(i))
        for (const [a, aIs] of spellings)
          for (const [b, bIs] of one === other ? [spellings[0] as (typeof spellings)[0]] : spellings) {
            const [first, firstIs] = at(one, a, aIs);
            const [second, secondIs] = one === other ? [first, firstIs] : at(other, b, bIs);
            const names = { ...plain, [one]: first, [other]: second };
            // In a URL these end the authority: what is before them is the name, and is in the list.
            if (protocol === 'h1' && /[/?]/.test(names.absolute ?? '')) continue;
            // Where HTTP/2 has both, :authority and Host are compared as they are spelled.
            if (protocol === 'h2' && names.absolute !== undefined && names.absolute.toLowerCase() !== names.host?.toLowerCase()) {
              const judged = judge(names, { table, protocol });
              cases += 1;
              if (judged.kind !== 'refused') wrong.push(`${JSON.stringify(names)} over HTTP/2: ${shown(judged)}`);
              continue;
            }
            expectOf([firstIs, secondIs], judge(names, { table, protocol }), `${protocol} ${JSON.stringify(names)}`);
          }
  t.strictSame(wrong.slice(0, 10), []);
  t.equal(wrong.length, 0);
  t.comment(`${cases} cases, ${credentials} credentials`);
  t.ok(cases > 80_000 && credentials > 500);
});

t.test('a name that is given twice is refused, whatever the two are', async (t) => {
  const { admit, admitH2 } = await import('../../src/proxy/listener/admit.ts');
  for (const [a] of spellings) {
    const twice = [['Host', 'api.example.com'] as const, ['hOST', a] as const];
    t.throws(() => admit({ method: 'GET', target: '/x', httpVersion: '1.1', headers: twice }), { code: 'authority_invalid' });
    const pseudo = [[':method', 'GET'] as const, [':path', '/x'] as const, [':authority', 'api.example.com'] as const];
    t.throws(() => admitH2([...pseudo, [':authority', a]]), { code: 'request_malformed' });
  }
});

t.test('another reading of the same grammar, in another language, finds the same places', needs('python3'), async (t) => {
  const seed = Date.now() % 2 ** 31;
  t.comment(`seed ${seed}`);
  const piece = fc.constantFrom(
    ...'abcxyzABC019-_.:@%/\\[]#?;, \t'.split(''),
    'example',
    'com',
    '.',
    '.',
    ':443',
    ':80',
    '::',
    '2001:db8',
    'fe80::1',
    '%25',
    '127',
    '0x7f',
    '255',
    '\u00e4',
    '\u3002',
    'xn--',
  );
  const generated = fc.sample(
    fc.oneof(
      fc.array(piece, { maxLength: 12 }).map((pieces) => pieces.join('')),
      fc.domain(),
      fc.tuple(fc.domain(), fc.nat(70_000)).map(([name, port]) => `${name}:${port}`),
      fc.ipV4(),
      fc.ipV4Extended(),
      fc.ipV6().map((address) => `[${address}]`),
      fc.tuple(fc.ipV6(), fc.nat(70_000)).map(([address, port]) => `[${address}]:${port}`),
      fc.tuple(fc.domain(), piece, fc.nat(200)).map(([name, extra, i]) => name.slice(0, i) + extra + name.slice(i)),
      fc.string({ unit: 'binary', maxLength: 20 }),
    ),
    { seed, numRuns: 20_000 },
  );
  const all = [...spellings.map(([spelling]) => spelling), ...generated].filter((raw) => raw.isWellFormed());
  const { ok, output } = run('python3', [join(import.meta.dirname, 'authority/oracle.py')], {
    input: all.map((raw) => `${JSON.stringify(raw)}\n`).join(''),
  });
  t.ok(ok, ok ? 'it ran' : output.slice(0, 500));
  const answers = output.trimEnd().split('\n');
  t.equal(answers.length, all.length);
  let named = 0;
  const differ: string[] = [];
  for (const [i, raw] of all.entries()) {
    const theirs = JSON.parse(answers[i] as string) as [string, number | null] | null;
    const ours = parseAuthority(raw);
    if (ours) named += 1;
    const same =
      ours === undefined ? theirs === null : theirs !== null && theirs[0] === ours.host && (theirs[1] ?? undefined) === ours.port;
    if (!same)
      differ.push(
        `${JSON.stringify(raw)}: ${ours ? hostPort({ host: ours.host, port: ours.port ?? 0 }) : 'nothing'} here, ${answers[i]} there`,
      );
  }
  t.strictSame(differ.slice(0, 10), []);
  t.comment(`${all.length} authorities, ${named} of them name a place`);
  t.ok(named > 2_000);
});
