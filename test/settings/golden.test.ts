/**
 * test/golden/config: each NAME.yaml is read, and what comes of it, settings and warnings or problems, is NAME.txt. To write the
 * texts anew after a change of wording: GOLDEN=write node test/settings/golden.test.ts, then read the diff.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseSettings, SettingsError, warningsOf } from '../../src/settings/document.ts';
import { configurationVersionOf } from '../../src/settings/version.ts';

const directory = join(import.meta.dirname, '../golden/config');
const nowMs = Date.parse('2026-11-25T00:00:00Z');

const outcomeOf = (file: string, text: string): string => {
  try {
    const settings = parseSettings(text, file);
    const warnings = warningsOf(settings, nowMs).map((warning) => `warning: ${warning}\n`);
    const version = settings.kind === 'broker' ? `version ${configurationVersionOf(settings)}\n` : '';
    return `${JSON.stringify(settings, null, 2)}\n${version}${warnings.join('')}`;
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    return `${error.message}\n`;
  }
};

const names = readdirSync(directory)
  .filter((name) => name.endsWith('.yaml'))
  .map((name) => name.slice(0, -'.yaml'.length));

for (const name of names) {
  t.test(`${name}.yaml reads as ${name}.txt says`, async (t) => {
    const outcome = outcomeOf(`${name}.yaml`, readFileSync(join(directory, `${name}.yaml`), 'utf8'));
    const expected = join(directory, `${name}.txt`);
    if (process.env['GOLDEN'] === 'write') writeFileSync(expected, outcome);
    t.equal(outcome, readFileSync(expected, 'utf8'));
    t.notMatch(outcome, /canary/i, 'what was written in the place of a secret is not shown');
  });
}

t.test('every golden text has its configuration', async (t) => {
  const texts = readdirSync(directory).filter((name) => name.endsWith('.txt'));
  t.strictSame(texts.map((name) => name.slice(0, -'.txt'.length)).toSorted(), names.toSorted());
});

t.test('every line of a problem says where, and what to do', async (t) => {
  for (const name of names) {
    const outcome = outcomeOf('f.yaml', readFileSync(join(directory, `${name}.yaml`), 'utf8'));
    for (const line of outcome.split('\n').filter((one) => one.startsWith('f.yaml'))) {
      t.match(line, /^f\.yaml:[1-9]\d*:[1-9]\d* ([A-Za-z][\w.[\]"*]*: )?(not YAML: )?\S/, line);
      t.match(
        line,
        /(write|remove|did you mean|known here are|belongs|are exact|are not evaluated|is named as|must be a whole|put a value|put the value|close|use spaces|keep one|add it|too deep)/,
        line,
      );
    }
  }
});
