import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parse, stringify } from 'yaml';
import { groupsIn, type Rule } from '../../scripts/chart-runbook.ts';
import { faults } from '../../src/core/fault.ts';
import { directoryOf } from '../support/directory.ts';
import { chart, hasHelm, hasPromtool, named, render, runPromtool } from '../support/helm.ts';
import { textOf } from '../support/source-tree.ts';
import { asked, exported, recorded } from './promql.ts';

const files = ['recording-rules.yaml', 'alerts.yaml'] as const;
const pathOf = (name: string): string => join(chart, 'files', name);
const groups = files.flatMap((name) => groupsIn(readFileSync(pathOf(name), 'utf8')));
const rules = groups.flatMap(({ rules }) => rules);
const alerts = rules.filter(({ alert }) => alert !== undefined);

t.test('promtool reads the rules', async (t) => {
  if (!hasPromtool(t)) return;
  const { status, stdout, stderr } = runPromtool('check', 'rules', ...files.map(pathOf));
  t.equal(status, 0, `${stdout}${stderr}`);
});

interface Case {
  readonly promql_expr_test?: readonly { readonly expr: string }[];
  readonly alert_rule_test?: readonly { readonly alertname: string; readonly exp_alerts: readonly { readonly exp_labels: object }[] }[];
}

const cases = 'test/chart/rules-cases.yaml';
const { tests } = parse(textOf(cases)) as { readonly tests: readonly Case[] };

t.test('each rule gives what its case says', { timeout: 120_000 }, async (t) => {
  if (!hasPromtool(t)) return;
  const withoutAnnotations = ({ annotations: _annotations, ...rule }: Rule): object => rule;
  const bare = (name: string): string =>
    stringify({
      groups: groupsIn(readFileSync(pathOf(name), 'utf8')).map((group) => ({ ...group, rules: group.rules.map(withoutAnnotations) })),
    });
  const directory = directoryOf(t, Object.fromEntries(files.map((name) => [name, bare(name)])));
  const file = join(directory, 'cases.yaml');
  writeFileSync(file, textOf(cases));
  const { status, stdout, stderr } = runPromtool('test', 'rules', file);
  t.equal(status, 0, `${stdout}${stderr}`);
});

t.test('each rule has a case: an alert one in which it fires, and where it is not plain absence, one in which it does not', async (t) => {
  const expressions = tests.flatMap(({ promql_expr_test = [] }) => promql_expr_test.map(({ expr }) => expr));
  for (const { record } of rules) {
    if (record !== undefined)
      t.ok(
        expressions.some((expr) => new RegExp(`\\b${record}\\b`).test(expr)),
        record,
      );
  }
  const outcomes = tests.flatMap(({ alert_rule_test = [] }) => alert_rule_test);
  const quiet = new Set(outcomes.filter(({ exp_alerts }) => exp_alerts.length === 0).map(({ alertname }) => alertname));
  for (const { alert, annotations } of alerts) {
    const fired = outcomes.filter(({ alertname, exp_alerts }) => alertname === alert && exp_alerts.length > 0);
    t.ok(fired.length > 0, `${alert} fires`);
    if (alert !== 'OutriderInjectionsFailingSlowly') t.ok(quiet.has(alert as string), `${alert} does not always`);
    // A label that the alert does not have would be an empty place in its sentence.
    const labels = Object.keys(fired[0]?.exp_alerts[0]?.exp_labels ?? {});
    for (const [, label] of Object.values(annotations ?? {})
      .join('\n')
      .matchAll(/\$labels\.(\w+)/g)) {
      t.ok(labels.includes(label as string), `${alert} has label ${label}`);
    }
  }
});

t.test('each alert says how bad it is, what happened and what to do', async (t) => {
  for (const { alert, labels, annotations } of alerts) {
    t.match(alert, /^Outrider[A-Z]/);
    t.match(labels, { severity: /^(?:critical|warning|info)$/ }, alert ?? '');
    t.match(annotations, { summary: /^[A-Z].{9,119}[^.]$/, description: /\.$/, runbook: /^1\. / }, alert ?? '');
  }
  t.equal(new Set(alerts.map(({ alert }) => alert)).size, alerts.length);
});

t.test("what counts as a failed injection is every fault that is neither the program's, the policy's nor the target's", async (t) => {
  const expr = rules.find(({ record }) => record === 'outrider:injection_failures:rate5m')?.expr ?? '';
  const ours = Object.entries(faults).filter(([, { blame }]) => blame !== 'client' && blame !== 'policy' && blame !== 'target');
  t.strictSame(/code=~"([^"]+)"/.exec(expr)?.[1]?.split('|').toSorted(), ours.map(([code]) => code).toSorted());
});

t.test('rules ask for metrics and labels that there are', async (t) => {
  const known = { ...exported, ...recorded(rules) };
  for (const { record, alert, expr } of rules) {
    for (const { metric, labels } of asked(expr)) {
      const has = known[metric];
      if (has === undefined) t.fail(`${record ?? alert}: there is no ${metric}`);
      else for (const label of labels) if (!has.includes(label)) t.fail(`${record ?? alert}: ${metric} has no label ${label}`);
    }
    t.ok(asked(expr).length > 0, record ?? alert ?? '');
  }
});

t.test('the chart installs the rules as they are in its files', async (t) => {
  if (!hasHelm(t)) return;
  const manifests = render(t, ['--set', 'monitoring.enabled=true']);
  const installed = ['outrider-recording', 'outrider-alerts'].flatMap(
    (name) => (named(manifests, 'PrometheusRule', name)['spec'] as { readonly groups: readonly unknown[] }).groups,
  );
  t.strictSame(installed, groups);
});
