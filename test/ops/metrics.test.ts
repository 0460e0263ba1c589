import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import { metricTable } from '../../src/ops/metric-table.ts';
import { createMetrics } from '../../src/ops/metrics.ts';

t.test('names follow the conventions: outrider_<role>_, base units, _total for counters and for nothing else', async (t) => {
  for (const [name, { kind, labels, help }] of Object.entries(metricTable)) {
    t.match(name, /^outrider_(proxy|broker|collector|injector)_[a-z]+(_[a-z]+)*$/);
    t.equal(name.endsWith('_total'), kind === 'counter', name);
    t.equal(name.endsWith('_duration_seconds'), kind === 'histogram', name);
    t.notMatch(name, /_(ms|millis|milliseconds|minutes|kb|mb|percent)(_|$)/, name);
    for (const label of labels) t.match(label, /^[a-z]+(_[a-z]+)*$/);
    t.match(help, /[.]$/, name);
  }
});

t.test('a label that grows without end is cut off at its bound, the rest is counted as other, and nothing is lost', async (t) => {
  const metrics = createMetrics('proxy');
  const count = limits.labelValuesMax * 3;
  for (let round = 0; round < 2; round += 1) {
    for (let i = 0; i < count; i += 1) metrics.add('outrider_proxy_faults_total', { code: `code-${i}` });
  }
  const series = (await metrics.expose()).split('\n').filter((line) => line.startsWith('outrider_proxy_faults_total{'));
  t.equal(series.length, limits.labelValuesMax + 1);
  t.equal(
    series.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0),
    count * 2,
  );
  t.ok(series.includes(`outrider_proxy_faults_total{code="other"} ${(count - limits.labelValuesMax) * 2}`));
});

t.test('label values cannot break out of the exposition format', async (t) => {
  const metrics = createMetrics('proxy');
  metrics.add('outrider_proxy_faults_total', { code: 'a"} 1\noutrider_evil{x="\\' });
  const text = await metrics.expose();
  t.notMatch(text, /^outrider_evil/m);
  t.match(text, /outrider_proxy_faults_total\{code="a\\"\} 1\\noutrider_evil\{x=\\"\\\\"\} 1/);
});

t.test('a role has its own metrics and no others, gauges are set, histograms observed, lists forgotten', async (t) => {
  const metrics = createMetrics('broker');
  metrics.set('outrider_broker_leases', {}, 7);
  metrics.set('outrider_broker_static_credentials', { provider: 'old' }, 1);
  metrics.reset('outrider_broker_static_credentials');
  metrics.set('outrider_broker_static_credentials', { provider: 'new' }, 2);
  metrics.observe('outrider_broker_rpc_duration_seconds', { method: 'Attest' }, 0.003);
  const text = await metrics.expose();
  t.match(text, /^outrider_broker_leases 7$/m);
  t.match(text, /^outrider_broker_static_credentials\{provider="new"\} 2$/m);
  t.notMatch(text, /provider="old"|outrider_proxy_|outrider_collector_/);
  t.match(text, /^outrider_broker_rpc_duration_seconds_bucket\{le="0.005",method="Attest"\} 1$/m);
  t.match(text, /^outrider_broker_rpc_duration_seconds_bucket\{le="0.0025",method="Attest"\} 0$/m);
  t.throws(() => metrics.add('outrider_proxy_faults_total', { code: 'x' }), { name: 'TypeError' });
});

t.test(
  'a held observer counts where the named one does, shows nothing before its first observation, and every bucket counts those below',
  async (t) => {
    const metrics = createMetrics('proxy');
    const observe = metrics.observer('outrider_proxy_stage_duration_seconds', { stage: 'route' });
    t.notMatch(await metrics.expose(), /outrider_proxy_stage_duration_seconds_count/);
    observe(0.0001);
    observe(0.00011);
    metrics.observe('outrider_proxy_stage_duration_seconds', { stage: 'route' }, 61);
    const text = await metrics.expose();
    const bucket = (le: string): string => `outrider_proxy_stage_duration_seconds_bucket{le="${le}",stage="route"}`;
    t.match(text, `${bucket('0.0001')} 1\n`);
    t.match(text, `${bucket('0.00025')} 2\n`);
    t.match(text, `${bucket('60')} 2\n`);
    t.match(text, `${bucket('+Inf')} 3\n`);
    t.match(text, 'outrider_proxy_stage_duration_seconds_count{stage="route"} 3\n');
    t.match(text, /outrider_proxy_stage_duration_seconds_sum\{stage="route"\} 61\.0002/);
    t.throws(() => observe(Number.NaN), { name: 'TypeError' });
    t.throws(() => metrics.observer('outrider_broker_rpc_duration_seconds', { method: 'Attest' }), { name: 'TypeError' });
  },
);

t.test('a metric of several labels keeps each set apart, and those past its bound are counted as other', async (t) => {
  const metrics = createMetrics('proxy');
  const count = 70;
  for (let i = 0; i < count; i += 1)
    for (let j = 0; j < count; j += 1)
      metrics.add('outrider_proxy_requests_total', { target: `target-${i}`, decision: `decision-${j}`, code_class: '2xx' });
  const series = (await metrics.expose()).split('\n').filter((line) => line.startsWith('outrider_proxy_requests_total{'));
  t.equal(series.length, 4_096 + 1);
  t.ok(series.includes('outrider_proxy_requests_total{target="target-3",decision="decision-4",code_class="2xx"} 1'));
  t.ok(series.includes(`outrider_proxy_requests_total{target="other",decision="other",code_class="other"} ${count * count - 4_096}`));
});

t.test('a gauge that is forgotten begins anew', async (t) => {
  const metrics = createMetrics('proxy');
  metrics.add('outrider_proxy_connections', { kind: 'client' }, 3);
  metrics.add('outrider_proxy_connections', { kind: 'client' }, -1);
  t.match(await metrics.expose(), /^outrider_proxy_connections\{kind="client"\} 2$/m);
  metrics.reset('outrider_proxy_connections');
  t.notMatch(await metrics.expose(), /^outrider_proxy_connections\{/m);
  metrics.add('outrider_proxy_connections', { kind: 'client' }, 1);
  t.match(await metrics.expose(), /^outrider_proxy_connections\{kind="client"\} 1$/m);
});

t.test(
  'a list that is forgotten and shown anew may have other members each time: its bound is of one showing, not of the process',
  async (t) => {
    const metrics = createMetrics('broker');
    for (let round = 0; round < 3; round += 1) {
      metrics.reset('outrider_broker_static_credentials');
      for (let i = 0; i < limits.labelValuesMax; i += 1)
        metrics.set('outrider_broker_static_credentials', { provider: `provider-${round}-${i}` }, 1);
    }
    const series = (await metrics.expose()).split('\n').filter((line) => line.startsWith('outrider_broker_static_credentials{'));
    t.equal(series.length, limits.labelValuesMax);
    t.ok(
      series.every((line) => line.includes('provider-2-')),
      'each by its name',
    );
  },
);
