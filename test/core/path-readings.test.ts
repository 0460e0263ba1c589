/**
 * One path, many readers: what policy says of a path must be true for whatever the target makes of it. The readers below are written after the
 * documentation of the servers they are named for and share nothing with the product.
 */
import fc from 'fast-check';
import t from 'tap';
import { type Action, decide, type Rule } from '../../src/core/policy.ts';
import { canonicalTarget, verbatimTarget } from '../../src/core/request-target.ts';

const octets = (text: string): string =>
  text.replace(/%([0-9A-Fa-f]{2})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));

/** Dot segments resolved, as a file system would. */
const climbed = (path: string, isMerging: boolean): string => {
  const kept: string[] = [];
  const segments = path.split('/').slice(1);
  for (const [i, segment] of segments.entries()) {
    const isLast = i === segments.length - 1;
    if (segment === '..') kept.pop();
    if (segment === '.' || segment === '..') {
      if (isLast) kept.push('');
    } else if (segment !== '' || isLast || !isMerging) kept.push(segment);
  }
  return `/${kept.join('/')}`;
};

const readers: Readonly<Record<string, (path: string) => string>> = {
  'nginx: decoded once, slashes merged, dots resolved': (path) => climbed(octets(path), true),
  'Apache httpd: as nginx, but encoded slashes stay': (path) =>
    climbed(octets(path.replace(/%2f/gi, '%252f')), true).replace(/%2f/gi, '%2f'),
  'WHATWG URL (Node, browsers)': (path) => octets(new URL(`http://h${path}`).pathname),
  'Go: unescaped, then path.Clean': (path) => climbed(octets(path), true).replace(/(?<=.)\/$/, ''),
  'Python: normpath of unquote': (path) => climbed(octets(path), true).replace(/(?<=.)\/$/, ''),
  'Tomcat: parameters dropped, decoded, backslashes turned, normalised': (path) =>
    climbed(octets(path.replace(/;[^/]*/g, '')).replaceAll('\\', '/'), true),
  'behind a proxy that decodes, too': (path) => climbed(octets(octets(path)).replaceAll('\\', '/'), true),
  'C strings: all up to NUL': (path) => octets(path).split('\u0000')[0] as string,
  'S3: decoded, nothing else': octets,
  'as it came': (path) => octets(path),
};

/** A reading in the spelling in which rules are written. */
const spelledAsRules = (reading: string): string =>
  reading.replace(/[^A-Za-z0-9\-._~!$&'()*+,=:@/]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`);

const withoutLastSlash = (path: string): string => (path.length > 1 ? path.replace(/\/$/, '') : path);

const piece = fc.constantFrom(
  '/',
  '/',
  '/',
  '/admin',
  '/a',
  'admin',
  'a',
  'b',
  '.',
  '..',
  '/.',
  '/..',
  '/../',
  '/./',
  '//',
  '%2e',
  '%2E',
  '%2f',
  '%2F',
  '%5c',
  '\\',

  '%252e',
  '%252f',
  '%25',
  '%',
  '%4',
  ';',
  ';x=1',
  '%3b',
  '%00',
  '%61',
  '%41',
  '%c3%a9',
  '%C3%A9',
  '%c0%af',
  '%ff',
  'A',
  '~',
  '+',
  '%20',
  '=',
  '@',
);
const rawPath = fc.array(piece, { maxLength: 8 }).map((pieces) => `/${pieces.join('')}`);
const templates = ['/**', '/*', '/admin', '/admin/**', '/a/**', '/a/b', '/*/b', '/', '/a/*/**', '/%C3%A9/**'];
const rule = fc.record({
  effect: fc.constantFrom('allow' as const, 'deny' as const),
  paths: fc.subarray(templates, { maxLength: 2 }),
  methods: fc.constantFrom([], ['GET'], ['PUT']),
});
const rules = fc
  .array(rule, { minLength: 1, maxLength: 4 })
  .map((all) =>
    all.map(
      ({ effect, paths, methods }, i): Rule => ({ policy: 'p', policyVersion: 'v', name: `r${i}`, effect, paths, methods, condition: '' }),
    ),
  );

const seed = Date.now();
t.comment(`seed ${seed}`);

t.test('a path that is taken for unambiguous is the same for every reader', async (t) => {
  let taken = 0;
  fc.assert(
    fc.property(rawPath, (raw) => {
      const found = canonicalTarget(raw);
      if ('problem' in found) return;
      taken += 1;
      const ours = withoutLastSlash(octets(found.path));
      for (const [name, read] of Object.entries(readers)) {
        for (const path of [raw, found.path]) {
          const theirs = withoutLastSlash(read(path));
          if (theirs !== ours) throw new Error(`${name} reads ${path} as ${theirs}, we as ${ours}`);
        }
      }
    }),
    { seed, numRuns: 30_000 },
  );
  t.ok(taken > 1_000, `${taken} paths were taken`);
});

t.test('verbatim: what is allowed is allowed whichever way it is read, and what is sent is what was judged', async (t) => {
  const counts = { allowed: 0, ambiguous: 0, ambiguousAllowed: 0 };
  fc.assert(
    fc.property(rawPath, rules, (raw, list) => {
      const found = verbatimTarget(raw);
      if ('problem' in found) throw new Error(`${raw} is refused: ${found.problem}`);
      if (found.ambiguity === undefined) {
        if (octets(found.path) !== octets(raw)) throw new Error(`${raw} is sent as ${found.path}`);
      } else {
        counts.ambiguous += 1;
        if (found.path !== raw) throw new Error(`${raw} is sent as ${found.path}`);
      }
      const action: Action = { method: 'GET', path: found.path, ambiguity: found.ambiguity };
      if (decide(list, action).verdict !== 'allow') return;
      counts.allowed += 1;
      if (found.ambiguity !== undefined) counts.ambiguousAllowed += 1;
      for (const [name, read] of Object.entries(readers)) {
        const reading = spelledAsRules(read(found.path));
        // "/a" and "/a/" are two paths for rules, whatever some reader makes of them.
        if (found.ambiguity === undefined && reading !== found.path && reading === withoutLastSlash(found.path)) continue;
        const judged = decide(list, { method: 'GET', path: reading });
        if (judged.verdict !== 'allow') {
          throw new Error(`${raw} is allowed, and ${name} reads ${reading}: ${judged.reason}`);
        }
      }
    }),
    { seed, numRuns: 30_000 },
  );
  for (const [what, count] of Object.entries(counts)) t.ok(count > 300, `${count} ${what}`);
});

t.test('an ambiguous path is covered by rules for every path, and by every denial', async (t) => {
  const one = (effect: Rule['effect'], paths: readonly string[], methods: readonly string[] = []): Rule => ({
    policy: 'p',
    policyVersion: 'v',
    name: `${effect} ${paths.join()}`,
    effect,
    paths,
    methods,
    condition: '',
  });
  const judged = (...list: Rule[]): string =>
    decide(list, { method: 'GET', path: '/bucket//key', ambiguity: 'it has an empty segment' }).verdict;
  t.equal(judged(one('allow', [])), 'allow');
  t.equal(judged(one('allow', ['/**'])), 'allow');
  t.equal(judged(one('allow', ['/a', '/**'], ['GET'])), 'allow');
  t.equal(judged(one('allow', ['/bucket/**'])), 'deny', 'a rule for some paths allows none that could be another');
  t.equal(judged(one('allow', ['/*/*/*'])), 'deny');
  t.equal(judged(one('allow', []), one('deny', ['/elsewhere'])), 'deny', 'some reading of it might be what is denied');
  t.equal(judged(one('allow', []), one('deny', ['/elsewhere'], ['PUT'])), 'allow', 'the method is what it is');
  t.match(
    decide([one('allow', ['/x'])], { method: 'GET', path: '/a//b', ambiguity: 'the path has an empty segment' }).reason,
    /empty segment/,
  );
});

t.test('verbatim: bytes are kept where they have a second reading, and only there', async (t) => {
  const kept = ['/b//k', '/b/../k', '/b/%2Fk', '/b/%2fk', '/b/k%25', '/b/k;v', '/b/./', '/b\\k', '/b/%', '/b/%ff', '/b/%c0%af', '/b/%00'];
  for (const raw of kept) t.match(verbatimTarget(`${raw}?list=%2f`), { path: raw, query: '?list=%2f', ambiguity: String }, raw);
  const canonical: readonly (readonly [string, string])[] = [
    ['/b/k', '/b/k'],
    ['/b/%6b', '/b/k'],
    ['/b/a+b', '/b/a+b'],
    ['/b/caf%c3%a9', '/b/caf%C3%A9'],
  ];
  for (const [raw, path] of canonical) t.strictSame(verbatimTarget(raw), { path, query: '' }, raw);
  for (const raw of ['', 'b', '*', '/b k', '/b\tk', '/b\u0000', '/b\r\nX: y', '/é', '/b#k', '/b?q#f'])
    t.ok('problem' in verbatimTarget(raw), JSON.stringify(raw));
});
