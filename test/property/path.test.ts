import fc from 'fast-check';
import t from 'tap';
import { canonicalTarget, pathMatches, pathTemplateProblem, withQueryParameter } from '../../src/core/request-target.ts';
import { askPython } from './python.ts';
import { holds, seed } from './seed.ts';

/** One spelling of a path (THREATS E-13, E-14): judged is sent, and no other reader finds another resource in it. */

const piece = fc.oneof(
  { weight: 6, arbitrary: fc.stringMatching(/^[A-Za-z0-9._~!$&'()*+,=:@-]{1,6}$/) },
  {
    weight: 2,
    arbitrary: fc.constantFrom('/', '/', '.', '..', '%41', '%7e', '%7E', '%2d', '%c3%a9', '%C3%A9', '%20', '%22', '%3f', '%3F', '%23'),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      '//',
      '/./',
      '/../',
      '%2e',
      '%2E%2e',
      '%2f',
      '%5c',
      '%00',
      '%25',
      '%252e',
      ';a',
      '%3b',
      '\\',
      '#',
      ' ',
      'é',
      '%c0%af',
      '%zz',
      '%',
      '%4',
      '*',
      '\u0000',
      '+',
    ),
  },
);
const rawPath = fc.array(piece, { maxLength: 8 }).map((pieces) => `/${pieces.join('')}`);
const rawQuery = fc.oneof(
  fc.constant(''),
  fc.string({ maxLength: 12 }).map((text) => `?${text.replace(/[^\x21-\x7e]|#/g, '')}`),
);
const rawTarget = fc.tuple(rawPath, rawQuery).map(([path, query]) => path + query);

t.test('canonical targets are fixed points, keep their query byte for byte, and are ASCII without what ends a request line', (t) =>
  holds(
    t,
    'a fixed point',
    fc.property(rawTarget, (raw) => {
      const once = canonicalTarget(raw);
      if ('problem' in once) return;
      const mark = raw.indexOf('?');
      if (once.query !== (mark < 0 ? '' : raw.slice(mark))) throw new Error('another query');
      if (!/^[\x21-\x7e]+$/.test(once.path + once.query) || once.path.includes('?') || once.path.includes('#'))
        throw new Error(`${once.path} ends early`);
      const twice = canonicalTarget(once.path + once.query);
      if ('problem' in twice || twice.path !== once.path || twice.query !== once.query) throw new Error(`${once.path} changes`);
    }),
    20_000,
  ),
);

t.test('spellings that differ in percent-encoding alone are one path, and different paths stay different', (t) => {
  const plain = fc
    .array(fc.stringMatching(/^[A-Za-z0-9_~-]{1,5}$/), { minLength: 1, maxLength: 4 })
    .map((segments) => `/${segments.join('/')}`);
  return holds(
    t,
    'one spelling',
    fc.property(plain, plain, fc.infiniteStream(fc.boolean()), (one, other, choice) => {
      const spelled = one.replaceAll(/[^/]/g, (letter) => {
        if (choice.next().value !== true) return letter;
        const hex = letter.charCodeAt(0).toString(16).padStart(2, '0');
        return `%${choice.next().value === true ? hex.toUpperCase() : hex}`;
      });
      const [a, b, c] = [canonicalTarget(one), canonicalTarget(spelled), canonicalTarget(other)];
      if ('problem' in a || 'problem' in b || 'problem' in c) return false;
      return a.path === one && b.path === one && (c.path === a.path) === (one === other);
    }),
    5_000,
  );
});

t.test('a URL parser, and Python, find no other resource in a canonical path', async (t) => {
  const paths = fc.sample(rawPath, { seed, numRuns: 6_000 }).flatMap((raw) => {
    const found = canonicalTarget(raw);
    return 'problem' in found ? [] : [found.path];
  });
  t.ok(paths.length > 1_000, `${paths.length} of 6000 are taken`);
  for (const path of paths) {
    const { pathname } = new URL(`http://a.test${path}`);
    if (decodeURIComponent(pathname) !== decodeURIComponent(path)) t.fail(`${path} is ${pathname} for a URL parser`);
  }
  const theirs = askPython(t, 'path', paths);
  for (const [i, path] of paths.entries()) {
    if (!theirs) break;
    const decoded = decodeURIComponent(path);
    // A rule that was judged on the segments holds after decoding and normalising, too.
    if (theirs[i]?.decoded !== decoded || theirs[i]?.normal !== decoded) t.fail(`${path} is ${JSON.stringify(theirs[i])} for Python`);
  }
});

t.test('a template made of a canonical path matches that path alone', (t) =>
  holds(
    t,
    'literal templates',
    fc.property(rawPath, rawPath, (one, other) => {
      const [a, b] = [canonicalTarget(one), canonicalTarget(other)];
      if ('problem' in a || 'problem' in b || a.path.includes('*') || pathTemplateProblem(a.path) !== undefined) return true;
      return pathMatches(a.path, a.path) && pathMatches(a.path, b.path) === (a.path === b.path) && pathMatches('/**', a.path);
    }),
    5_000,
  ),
);

t.test('a query parameter that is set is there once for every reader, and the others keep their bytes and order', (t) => {
  const parameter = fc
    .tuple(fc.constantFrom('key', 'KEY', 'k%65y', '%6bey', 'other', 'a', 'ke+y', 'key2', ''), fc.stringMatching(/^[a-z0-9%;=+]{0,6}$/))
    .map(([name, value]) => `${name}=${value}`);
  const query = fc
    .array(fc.oneof(parameter, fc.constantFrom('key', 'key;key=2', '&&', 'other')), { maxLength: 5 })
    .map((all) => (all.length === 0 ? '' : `?${all.join('&')}`));
  return holds(
    t,
    'one value',
    fc.property(query, fc.string({ minLength: 1, maxLength: 10 }), (before, value) => {
      const after = withQueryParameter(before, 'key', value);
      const theirs = [...new URLSearchParams(after)].filter(([name]) => name.toLowerCase() === 'key').map(([, one]) => one);
      // Readers for which ";" parts parameters, too.
      const semicolons = [...new URLSearchParams(after.replaceAll(';', '&'))]
        .filter(([name]) => name.toLowerCase() === 'key')
        .map(([, one]) => one);
      const kept = after.slice(1).split('&').slice(0, -1);
      let at = 0;
      const original = before.slice(1).split('&');
      const isOrdered = kept.every((one) => (at = original.indexOf(one, at) + 1) > 0);
      return theirs.length === 1 && theirs[0] === value && semicolons.length === 1 && isOrdered;
    }),
    5_000,
  );
});
