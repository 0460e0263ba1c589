import { join } from 'node:path';
import t from 'tap';
import type { BrokerSettings } from '../../src/settings/broker.ts';
import { parseSettings, readSettings } from '../../src/settings/document.ts';
import { configurationVersionOf, policyVersionOf } from '../../src/settings/version.ts';
import { readFileSync } from 'node:fs';

const file = join(import.meta.dirname, '../../config/demo/broker.yaml');
const settings = readSettings(file) as BrokerSettings;
const text = readFileSync(file, 'utf8');
const versionOfText = (changed: string): string => configurationVersionOf(parseSettings(changed, file) as BrokerSettings);

t.test('the version depends on what is said, not on how', async (t) => {
  const reordered = Object.fromEntries(Object.entries(settings).toReversed()) as unknown as BrokerSettings;
  t.equal(configurationVersionOf(reordered), configurationVersionOf(settings));
  t.equal(versionOfText(`# a comment\n${text.replaceAll('5m', '300s')}`), configurationVersionOf(settings));
  t.match(configurationVersionOf(settings), /^[0-9a-f]{16}$/);
});

t.test('a change of one value changes it, and that of the policy it is in', async (t) => {
  t.not(versionOfText(text.replace('/admin/**', '/admin/*')), configurationVersionOf(settings));
  const [policy] = settings.policies;
  if (!policy) throw new Error('the demo has no policy');
  const [rule] = policy.rules;
  t.not(policyVersionOf({ ...policy, rules: rule ? [rule] : [] }), policyVersionOf(policy));
});
