/**
 * test/golden/injector: each NAME.yaml is a pod, after it perhaps a document of settings that differ from the example's, and NAME.injected.yaml
 * is what becomes of it. To write those anew: GOLDEN=write node test/injector/golden.test.ts, then read the diff.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parseAllDocuments, stringify } from 'yaml';
import { decide, type Decision } from '../../src/injector/decide.ts';
import { type Pod, readPod } from '../../src/injector/pod.ts';
import type { SidecarSettings } from '../../src/settings/injector.ts';
import { applied, exampleSidecar } from '../support/injector-pods.ts';

const directory = join(import.meta.dirname, '../golden/injector');
const suffix = '.injected.yaml';
const files = readdirSync(directory);
const names = files.filter((name) => !name.endsWith(suffix)).map((name) => name.replace(/\.yaml$/, ''));

const read = (name: string): { readonly pod: Pod; readonly settings: SidecarSettings } => {
  const [pod, settings = {}] = parseAllDocuments(readFileSync(join(directory, `${name}.yaml`), 'utf8')).map(
    (document) => document.toJS() as object,
  );
  return { pod: readPod(pod) as Pod, settings: { ...exampleSidecar, ...settings } };
};

const shown = (decision: Decision): string =>
  stringify(decision.kind === 'injected' ? decision.pod : decision, { lineWidth: 0, aliasDuplicateObjects: false });

for (const name of names) {
  t.test(`${name}.yaml becomes ${name}${suffix}`, async (t) => {
    const { pod, settings } = read(name);
    const decision = decide(pod, settings);
    const expected = join(directory, name + suffix);
    if (process.env['GOLDEN'] === 'write') writeFileSync(expected, shown(decision));
    t.equal(shown(decision), readFileSync(expected, 'utf8'));
    t.notMatch(decision.kind === 'injected' ? decision.notes.join() : '', /canary/, 'no value is in a note');
    t.equal(decision.kind, name.startsWith('refused') ? 'denied' : name.startsWith('left') ? 'unchanged' : 'injected');
    if (decision.kind !== 'injected') return;
    t.strictSame(applied(pod, decision.pod), decision.pod, 'the patch makes it');
    t.strictSame(decide(decision.pod, settings), decision, 'and the same again of its result');
  });
}

t.test('every result has its pod', async (t) => {
  const results = files.filter((name) => name.endsWith(suffix)).map((name) => name.slice(0, -suffix.length));
  t.strictSame(results.toSorted(), names.toSorted());
});
