/**
 * The dashboards of the chart, as tables of panels: title, what is asked, and its unit. Grafana's JSON is made of them. Every query is held
 * against the metrics that the roles export (test/chart/dashboards.test.ts).
 */

interface Panel {
  readonly title: string;
  /** PromQL and the legend of its series. */
  readonly queries: readonly (readonly [expr: string, legend: string])[];
  readonly unit?: string;
  readonly help?: string;
  /** One figure instead of a curve. */
  readonly isFigure?: boolean;
}

interface Description {
  readonly title: string;
  /** Which labels are chosen above, and of which metric's series. */
  readonly choices: Readonly<Record<string, string>>;
  readonly panels: readonly Panel[];
}

const figure = (title: string, expr: string, help: string, unit = 'short'): Panel => ({
  title,
  queries: [[expr, '']],
  unit,
  help,
  isFigure: true,
});
const quantiles = (metric: string, by: string, selector: string): Panel['queries'] =>
  ['0.5', '0.99'].map((q) => [
    `histogram_quantile(${q}, sum by (${by}le) (rate(${metric}_bucket{${selector}}[$__rate_interval])))`,
    `p${Number(q) * 100}${by === '' ? '' : ` {{${by.replace(', ', '')}}}`}`,
  ]);

const inNamespaces = 'namespace=~"$namespace"';
const ofPod = 'namespace="$namespace", pod="$pod"';

const fleet: Description = {
  title: 'Outrider: fleet',
  choices: { namespace: 'outrider_proxy_targets' },
  panels: [
    figure('Proxies', `sum(outrider:proxies:count{${inNamespaces}})`, 'Injected pods that are scraped.'),
    figure(
      'Pods without a proxy',
      `sum(max by (namespace) (outrider_injector_pods{state="uninjected", ${inNamespaces}}))`,
      'In labelled namespaces, or labelled themselves, and not injected.',
    ),
    figure(
      'Failed injections',
      `sum(outrider:injection_failures:rate1h{${inNamespaces}}) / sum(outrider:injections:rate1h{${inNamespaces}})`,
      'Of the last hour, by the doing of Outrider itself. The alerts allow 0.1 % a month.',
      'percentunit',
    ),
    {
      title: 'Requests by decision',
      queries: [[`sum by (decision) (rate(outrider_proxy_requests_total{${inNamespaces}}[$__rate_interval]))`, '{{decision}}']],
      unit: 'reqps',
    },
    {
      title: 'Requests by target',
      queries: [
        [`topk(15, sum by (target) (rate(outrider_proxy_requests_total{target!="", ${inNamespaces}}[$__rate_interval])))`, '{{target}}'],
      ],
      unit: 'reqps',
    },
    {
      title: 'Faults',
      queries: [[`topk(15, sum by (code) (rate(outrider_proxy_faults_total{${inNamespaces}}[$__rate_interval])))`, '{{code}}']],
      unit: 'reqps',
      help: 'README.md has what each code means and whose doing it is.',
    },
    {
      title: 'Failed injections by namespace',
      queries: [[`outrider:injection_failures:rate5m{${inNamespaces}} / outrider:injections:rate5m{${inNamespaces}}`, '{{namespace}}']],
      unit: 'percentunit',
    },
    {
      title: 'Time of a request (p99)',
      queries: [[`outrider:request_duration_seconds:p99_5m{${inNamespaces}}`, '{{namespace}}']],
      unit: 's',
      help: "From the accepted head to the end of the response; the target's time is in it.",
    },
    {
      title: 'Static credentials',
      queries: [
        [`sum by (target) (rate(outrider_proxy_static_credential_requests_total{${inNamespaces}}[$__rate_interval]))`, '{{target}}'],
      ],
      unit: 'reqps',
      help: 'Migration debt: these do not expire.',
    },
    {
      title: 'Pods by state',
      queries: [[`sum by (state) (max by (namespace, state) (outrider_injector_pods{${inNamespaces}}))`, '{{state}}']],
    },
    {
      title: 'Reviews of the webhook',
      queries: [['sum by (result) (rate(outrider_injector_reviews_total[$__rate_interval]))', '{{result}}']],
      unit: 'reqps',
    },
    {
      title: 'Time of a review',
      queries: quantiles('outrider_injector_review_duration_seconds', '', ''),
      unit: 's',
    },
  ],
};

const pod: Description = {
  title: 'Outrider: one pod',
  choices: { namespace: 'outrider_proxy_targets', pod: 'outrider_proxy_targets{namespace="$namespace"}' },
  panels: [
    figure('SVID expires in', `outrider_proxy_svid_expiry_timestamp_seconds{${ofPod}} - time()`, 'Renewed at half of its life.', 's'),
    figure('Events waiting', `outrider_proxy_events_queued{${ofPod}}`, 'For the collector to store them.'),
    figure('Collector connected', `outrider_proxy_collector_connected{${ofPod}}`, '1 or 0.'),
    {
      title: 'Requests',
      queries: [[`sum by (target, decision) (rate(outrider_proxy_requests_total{${ofPod}}[$__rate_interval]))`, '{{decision}} {{target}}']],
      unit: 'reqps',
    },
    {
      title: 'Faults',
      queries: [[`sum by (code) (rate(outrider_proxy_faults_total{${ofPod}}[$__rate_interval]))`, '{{code}}']],
      unit: 'reqps',
    },
    {
      title: 'Time by stage (p99)',
      queries: [
        [
          `histogram_quantile(0.99, sum by (stage, le) (rate(outrider_proxy_stage_duration_seconds_bucket{${ofPod}}[$__rate_interval])))`,
          '{{stage}}',
        ],
      ],
      unit: 's',
    },
    {
      title: 'Grants expire in',
      queries: [[`min by (target) (outrider_proxy_grant_expiry_timestamp_seconds{${ofPod}}) - time()`, '{{target}}']],
      unit: 's',
      help: 'Those in use are refreshed at 70 to 80 % of their life.',
    },
    {
      title: 'Lookups of grants',
      queries: [[`sum by (result) (rate(outrider_proxy_grant_cache_requests_total{${ofPod}}[$__rate_interval]))`, '{{result}}']],
      unit: 'ops',
    },
    {
      title: 'Calls to the broker',
      queries: [[`sum by (method, code) (rate(outrider_proxy_broker_calls_total{${ofPod}}[$__rate_interval]))`, '{{method}} {{code}}']],
      unit: 'ops',
    },
    {
      title: 'Connections',
      queries: [
        [`outrider_proxy_connections{${ofPod}}`, '{{kind}}'],
        [`outrider_proxy_connections_max{${ofPod}}`, 'at most'],
      ],
    },
    {
      title: 'Load',
      queries: [
        [`outrider_proxy_event_loop_utilization_ratio{${ofPod}}`, 'the one thread busy'],
        [`outrider_proxy_memory_short{${ofPod}}`, 'memory short'],
      ],
      unit: 'percentunit',
    },
    {
      title: 'Memory',
      queries: [
        [`process_resident_memory_bytes{${ofPod}, container="outrider-proxy"}`, 'resident'],
        [`outrider_proxy_held_bytes{${ofPod}}`, 'held bodies'],
      ],
      unit: 'bytes',
    },
  ],
};

const broker: Description = {
  title: 'Outrider: broker',
  choices: {},
  panels: [
    figure('Proxies connected', 'sum(outrider_broker_watchers)', 'Open Watch streams.'),
    figure('Grants that are out', 'sum(outrider_broker_leases)', 'And have not expired.'),
    figure(
      'Authority expires in',
      'min(outrider_broker_authority_expiry_timestamp_seconds) - time()',
      'Its successor signs long before.',
      's',
    ),
    {
      title: 'Calls',
      queries: [['sum by (method, code) (rate(outrider_broker_rpc_requests_total[$__rate_interval]))', '{{method}} {{code}}']],
      unit: 'ops',
    },
    { title: 'Time of a call', queries: quantiles('outrider_broker_rpc_duration_seconds', 'method, ', ''), unit: 's' },
    {
      title: 'Calls that fail, as proxies see it',
      queries: [['outrider:broker_call_failures:ratio_rate5m', 'failing']],
      unit: 'percentunit',
    },
    {
      title: 'Attestations',
      queries: [['sum by (attestor, result) (rate(outrider_broker_attestations_total[$__rate_interval]))', '{{attestor}} {{result}}']],
      unit: 'ops',
    },
    {
      title: 'Grants by result',
      queries: [['topk(15, sum by (target, result) (rate(outrider_broker_grants_total[$__rate_interval])))', '{{target}} {{result}}']],
      unit: 'ops',
    },
    {
      title: 'Providers',
      queries: [['sum by (provider, result) (rate(outrider_broker_provider_requests_total[$__rate_interval]))', '{{provider}} {{result}}']],
      unit: 'ops',
    },
    { title: 'Time of a provider', queries: quantiles('outrider_broker_provider_duration_seconds', 'provider, ', ''), unit: 's' },
    {
      title: 'Configuration reloads',
      queries: [
        ['sum by (result) (increase(outrider_broker_configuration_reloads_total[1h]))', '{{result}}'],
        ['count(outrider_broker_configuration_current == 0)', 'brokers on the one before'],
      ],
    },
    {
      title: 'Keys',
      queries: [
        ['max(outrider_broker_signing_keys)', 'published signing keys'],
        ['max by (provider) (outrider_broker_static_credentials)', 'targets with static {{provider}}'],
      ],
    },
    { title: 'Without a broker', queries: [['outrider:proxies_without_broker:count', '{{namespace}}']], help: 'Proxies that watch none.' },
  ],
};

const evidence: Description = {
  title: 'Outrider: evidence',
  choices: {},
  panels: [
    figure('Events waiting in all proxies', 'sum(outrider_proxy_events_queued)', 'Not acknowledged yet.'),
    figure('Lost', 'sum(increase(outrider_collector_events_lost_total[1d]))', 'Reported by proxies as discarded within a day.'),
    figure('Missing', 'sum(increase(outrider_collector_events_missing_total[1d]))', 'Numbers that never arrived within a day.'),
    {
      title: 'Stored',
      queries: [['sum by (kind) (rate(outrider_collector_events_stored_total[$__rate_interval]))', '{{kind}}']],
      unit: 'ops',
    },
    { title: 'Time to store a batch', queries: quantiles('outrider_collector_store_duration_seconds', '', ''), unit: 's' },
    {
      title: 'Refused, repeated, failed',
      queries: [
        ['sum by (reason) (rate(outrider_collector_events_refused_total[$__rate_interval]))', 'refused: {{reason}}'],
        ['sum(rate(outrider_collector_events_duplicate_total[$__rate_interval]))', 'repeated'],
        ['sum(rate(outrider_collector_store_failures_total[$__rate_interval]))', 'batches not stored'],
      ],
      unit: 'ops',
    },
    {
      title: 'Queues by namespace',
      queries: [['sum by (namespace) (outrider_proxy_events_queued)', '{{namespace}}']],
    },
    {
      title: 'Sent and acknowledged',
      queries: [
        ['sum(rate(outrider_proxy_events_sent_total[$__rate_interval]))', 'sent'],
        ['sum(rate(outrider_proxy_events_acknowledged_total[$__rate_interval]))', 'acknowledged'],
      ],
      unit: 'ops',
    },
    {
      title: 'Without the collector',
      queries: [
        ['outrider:proxies_without_collector:count', '{{namespace}}'],
        ['sum(outrider_collector_streams)', 'open streams at the collector'],
      ],
    },
  ],
};

const datasource = { type: 'prometheus', uid: '${datasource}' };
/** Of 24 columns: three panels beside each other. */
const width = 8;

const panelOf = ({ title, queries, unit = 'short', help, isFigure = false }: Panel, index: number): object => ({
  id: index + 1,
  title,
  type: isFigure ? 'stat' : 'timeseries',
  ...(help === undefined ? {} : { description: help }),
  datasource,
  gridPos: { x: (index % 3) * width, y: Math.floor(index / 3) * 8, w: width, h: 8 },
  fieldConfig: { defaults: { unit, min: 0, ...(isFigure ? {} : { custom: { fillOpacity: 10, showPoints: 'never' } }) }, overrides: [] },
  options: isFigure
    ? { reduceOptions: { calcs: ['lastNotNull'] }, colorMode: 'none', graphMode: 'area' }
    : { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi', sort: 'desc' } },
  targets: queries.map(([expr, legend], i) => ({
    refId: String.fromCharCode(65 + i),
    datasource,
    expr,
    legendFormat: legend,
    editorMode: 'code',
    range: true,
  })),
});

const choiceOf = (label: string, metric: string, hasAll: boolean): object => {
  const query = `label_values(${metric}, ${label})`;
  return {
    type: 'query',
    name: label,
    label,
    datasource,
    definition: query,
    query: { qryType: 1, query, refId: 'A' },
    refresh: 2,
    sort: 1,
    ...(hasAll ? { multi: true, includeAll: true, allValue: '.*', current: { text: 'All', value: ['$__all'] } } : {}),
  };
};

const dashboardOf = (name: string, { title, choices, panels }: Description): object => ({
  uid: `outrider-${name}`,
  title,
  tags: ['outrider'],
  schemaVersion: 41,
  version: 1,
  editable: true,
  graphTooltip: 1,
  time: { from: 'now-6h', to: 'now' },
  refresh: '1m',
  timezone: 'browser',
  templating: {
    list: [
      { type: 'datasource', name: 'datasource', label: 'Data source', query: 'prometheus', refresh: 1 },
      ...Object.entries(choices).map(([label, metric]) => choiceOf(label, metric, name === 'fleet')),
    ],
  },
  annotations: { list: [] },
  links: [{ type: 'dashboards', tags: ['outrider'], title: 'Outrider', asDropdown: true, includeVars: true, keepTime: true }],
  panels: panels.map(panelOf),
});

/** By the name of the file. */
export const dashboards = (): Readonly<Record<string, object>> =>
  Object.fromEntries(Object.entries({ fleet, pod, broker, evidence }).map(([name, described]) => [name, dashboardOf(name, described)]));
