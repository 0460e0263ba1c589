import { join } from 'node:path';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { stringify } from 'yaml';
import { dashboards } from '../../scripts/chart-dashboards.ts';
import { groupsIn } from '../../scripts/chart-runbook.ts';
import { startInjector } from '../../src/injector/run.ts';
import { createLog } from '../../src/ops/log.ts';
import { metricTable } from '../../src/ops/metric-table.ts';
import { parseSettings } from '../../src/settings/document.ts';
import type { InjectorSettings } from '../../src/settings/injector.ts';
import { directoryOf } from '../support/directory.ts';
import { chart, hasHelm, hasPromtool, named, render, runPromtool } from '../support/helm.ts';
import { type StackFiles, startStack } from '../support/stack.ts';
import { asked, exported, recorded } from './promql.ts';

interface Dashboard {
  readonly uid: string;
  readonly title: string;
  readonly schemaVersion: number;
  readonly templating: { readonly list: readonly { readonly name: string; readonly type: string; readonly definition?: string }[] };
  readonly panels: readonly {
    readonly id: number;
    readonly title: string;
    readonly datasource: object;
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
    readonly targets: readonly { readonly expr: string; readonly legendFormat: string; readonly datasource: object }[];
  }[];
}

const all = Object.entries(dashboards()) as [string, Dashboard][];
const records = recorded(groupsIn(readFileSync(join(chart, 'files/recording-rules.yaml'), 'utf8')).flatMap(({ rules }) => rules));
/** As Grafana asks it, with its variables filled in. */
const queriesOf = ({ panels }: Dashboard): { title: string; expr: string; legend: string }[] =>
  panels.flatMap(({ title, targets }) =>
    targets.map(({ expr, legendFormat }) => ({ title, expr: expr.replaceAll('$__rate_interval', '2m'), legend: legendFormat })),
  );

t.test('each query asks for metrics and labels that there are, and names in its legend what it groups by', async (t) => {
  const known = { ...exported, ...records };
  for (const [name, dashboard] of all) {
    for (const { title, expr, legend } of queriesOf(dashboard)) {
      const found = asked(expr);
      t.ok(found.length > 0, `${name}: ${title}`);
      for (const { metric, labels } of found) {
        const has = known[metric];
        if (has === undefined) t.fail(`${name}: ${title}: there is no ${metric}`);
        else for (const label of labels) if (!has.includes(label)) t.fail(`${name}: ${title}: ${metric} has no label ${label}`);
      }
      for (const [, label] of legend.matchAll(/\{\{(\w+)\}\}/g)) {
        t.ok(
          found.some(({ metric }) => known[metric]?.includes(label as string)),
          `${name}: ${title}: legend ${label}`,
        );
      }
    }
  }
});

t.test('promtool reads each query', async (t) => {
  if (!hasPromtool(t)) return;
  const rules = all.flatMap(([, dashboard]) => queriesOf(dashboard)).map(({ expr }, i) => ({ record: `query:${i}`, expr }));
  const directory = directoryOf(t, { 'queries.yaml': stringify({ groups: [{ name: 'queries', rules }] }) });
  const { status, stdout, stderr } = runPromtool('check', 'rules', join(directory, 'queries.yaml'));
  t.equal(status, 0, `${stdout}${stderr}`);
});

/** Of an injector that nobody answers: its metrics are there all the same. */
const injectorSettings = ({ brokerCa, token }: StackFiles): InjectorSettings =>
  parseSettings(
    `kind: injector
listen: 127.0.0.1:0
admin: 127.0.0.1:0
cluster: { apiServer: "https://127.0.0.1:1", caFile: ${brokerCa}, tokenFile: ${token} }
namespace: outrider
serving: { selfSigned: { secret: outrider-injector-tls, dnsNames: [outrider-injector.outrider.svc], webhookConfiguration: outrider-injector } }
trust: { configMap: outrider-trust }
webhookConfiguration: outrider-injector
sidecar:
  image: outrider:test
  broker: { address: "broker.outrider.svc:15002", spiffeId: spiffe://outrider.test/outrider/broker }
  collector: { address: "collector.outrider.svc:15005", spiffeId: spiffe://outrider.test/ns/outrider/sa/collector }
`,
    'injector.yaml',
  ) as InjectorSettings;

t.test('running roles export what is asked for, by these names and labels', async (t) => {
  const { files, broker, collector, proxy } = await startStack(t);
  const injector = await startInjector(injectorSettings(files), { log: createLog({ role: 'injector', level: 'silent' }) });
  t.teardown(() => injector.close());
  const texts = await Promise.all(
    [broker, collector, proxy, injector].map(async ({ admin }) => (await fetch(`http://127.0.0.1:${admin.port}/metrics`)).text()),
  );
  const kinds = new Map([...texts.join('\n').matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name, kind]) => [name as string, kind]));
  for (const [name, { kind }] of Object.entries(metricTable)) {
    t.equal(kinds.get(name), kind, name);
  }
  const queries = all.flatMap(([, dashboard]) => queriesOf(dashboard)).map(({ expr }) => expr);
  for (const { metric } of queries.flatMap(asked)) {
    if (metric.includes(':')) continue;
    t.ok(kinds.has(metric) || kinds.get(metric.replace(/_(?:bucket|sum|count)$/, '')) === 'histogram', metric);
  }
  // Not declared alone: with the labels that the table says, as soon as there is something to count.
  for (const [, metric = '', labels = ''] of texts.join('\n').matchAll(/^(outrider_\w+)\{([^}]*)\} /gm)) {
    const written = [...labels.matchAll(/(\w+)="/g)].map(([, label]) => label as string);
    for (const label of written) t.ok(exported[metric]?.includes(label), `${metric} ${label}`);
  }
});

t.test(
  'dashboards are what Grafana imports: one of each id, no data source of anybody in particular, nothing on top of another',
  async (t) => {
    t.strictSame(all.map(([name]) => name).toSorted(), ['broker', 'evidence', 'fleet', 'pod']);
    t.equal(new Set(all.map(([, { uid }]) => uid)).size, all.length);
    for (const [name, dashboard] of all) {
      t.ok(dashboard.schemaVersion >= 39, name);
      const variables = dashboard.templating.list;
      t.has(variables[0], { name: 'datasource', type: 'datasource' });
      for (const { datasource, targets } of dashboard.panels)
        for (const source of [datasource, ...targets.map(({ datasource }) => datasource)])
          t.strictSame(source, { type: 'prometheus', uid: '${datasource}' });
      const text = JSON.stringify(dashboard.panels);
      for (const [, variable] of text.matchAll(/\$(?!_)\{?(\w+)/g))
        t.ok(
          variables.some(({ name }) => name === variable),
          `${name}: $${variable}`,
        );
      const places = dashboard.panels.map(({ gridPos: { x, y, w } }) => `${x + w <= 24} ${x} ${y}`);
      t.equal(new Set(places).size, dashboard.panels.length, name);
      t.notOk(
        places.some((place) => place.startsWith('false')),
        name,
      );
      t.equal(new Set(dashboard.panels.map(({ id }) => id)).size, dashboard.panels.length, name);
    }
  },
);

t.test('the chart installs them where Grafana looks', async (t) => {
  if (!hasHelm(t)) return;
  const manifests = render(t, ['--set', 'monitoring.dashboards=true']);
  for (const [name, dashboard] of all) {
    const { metadata, data } = named(manifests, 'ConfigMap', `outrider-dashboard-${name}`);
    t.equal(metadata.labels?.['grafana_dashboard'], '1');
    t.strictSame(JSON.parse((data as Record<string, string>)[`outrider-${name}.json`] as string), dashboard);
  }
});
