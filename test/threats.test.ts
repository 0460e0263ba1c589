import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { securityTables, withTables } from '../scripts/readme-tables.ts';
import { threatIds, threats } from './threats.ts';

/** The list of attacks is whole, and each of its rows is a test that is there, or says why there is none. */
t.test('every attack of the threat model is in the list, once and in order', async (t) => {
  t.strictSame(
    threats.map(({ id }) => id),
    threatIds,
  );
});

t.test('what is said to show that an attack fails is a test of that name', async (t) => {
  const missing: string[] = [];
  for (const { id, shownBy } of threats) {
    for (const [file, name] of shownBy) {
      const path = join(import.meta.dirname, file);
      const text = existsSync(path) ? readFileSync(path, 'utf8').replaceAll("\\'", "'") : '';
      // A word would be found in anything.
      if (!file.endsWith('.test.ts') || name.length < 15 || !text.includes(name)) missing.push(`${id}: ${file}: ${name}`);
    }
  }
  t.strictSame(missing, []);
});

t.test('what no test shows has one sentence that says why', async (t) => {
  for (const { id, shownBy, left } of threats) {
    t.ok(shownBy.length > 0 || left !== undefined, id);
    if (left !== undefined) t.match(left, /^[A-Z][^|\n]*\.$/, id);
  }
});

t.test('the table of SECURITY.md mirrors the list ("npm run docs" writes it)', async (t) => {
  const security = readFileSync(join(import.meta.dirname, '../SECURITY.md'), 'utf8');
  t.equal(withTables(security, securityTables(), 'SECURITY.md'), security);
});
