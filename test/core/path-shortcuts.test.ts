/** What is decided about a path at a glance is what the whole rule decides. */
import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import t from 'tap';
import { canonicalTarget, pathMatches } from '../../src/core/request-target.ts';

const seed = fc.sample(fc.nat(), 1)[0] as number;
t.comment(`seed ${seed}`);
const runs = { seed, numRuns: 5_000 };

const pieces = ['/', '/', 'a', 'B9', '.', '..', '-', '~', '_', '%41', '%2F', '%zz', ';', '//', '\\', '#', ' ', '!', ':', '@', 'é', '\n'];
const rawPath = fc.array(fc.constantFrom(...pieces), { maxLength: 10 }).map((parts) => `/${parts.join('')}`);

t.test('a path is read alike with an empty query, which no glance takes in, and without', async (t) => {
  let plain = 0;
  fc.assert(
    fc.property(rawPath, (raw) => {
      const [glance, whole] = [canonicalTarget(raw), canonicalTarget(`${raw}?`)];
      if ('problem' in whole) return assert.deepEqual(glance, whole);
      if (!('problem' in glance) && glance.path === raw) plain += 1;
      // A fragment ends a target wherever it stands.
      return assert.deepEqual(glance, { path: whole.path, query: '' });
    }),
    runs,
  );
  t.ok(plain > 100, `${plain} of them were their own only spelling`);
});

/** The rule of pathMatches as a regular expression, segment by segment. */
const asPattern = (template: string): RegExp => {
  const segments = template.slice(1).split('/');
  const source = segments.map((segment) => {
    if (segment === '**') return '(?:/.*)?';
    return segment === '*' || segment.startsWith('{') ? '/[^/]+' : `/${segment.replace(/[^a-z]/g, '\\$&')}`;
  });
  return new RegExp(`^${source.join('')}$`);
};

t.test('a path that a template covers is not turned away by how it begins', async (t) => {
  const segment = fc.constantFrom('a', 'b', 'ab', 'abc', 'admin');
  const template = fc
    .tuple(fc.array(fc.oneof(segment, fc.constantFrom('*', '{id}')), { maxLength: 3 }), fc.constantFrom('', '/**', '/'))
    .map(([segments, end]) => `/${segments.join('/')}${end}`.replaceAll('//', '/'));
  const path = fc
    .array(segment, { maxLength: 4 })
    .chain((segments) => fc.constantFrom('', '/').map((end) => `/${segments.join('/')}${end}`.replaceAll('//', '/')));
  let covered = 0;
  fc.assert(
    fc.property(template, path, (one, other) => {
      const matches = pathMatches(one, other);
      if (matches) covered += 1;
      assert.equal(matches, asPattern(one).test(other), `${one} ${other}`);
    }),
    runs,
  );
  t.ok(covered > 100, `${covered} were covered`);
});
