/**
 * Prometheus metrics. Owns prom-client; the names are in ops/metric-table.ts. Label values are bounded: a label that has seen
 * `limits.labelValuesMax` different values counts further ones as "other".
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { limits } from '../core/limits.ts';
import { type MetricLabels, type MetricName, type MetricRow, metricTable } from './metric-table.ts';

export type Role = 'proxy' | 'broker' | 'collector';

export interface Metrics {
  /** Adds to a counter or gauge. */
  readonly add: <N extends MetricName>(name: N, labels: MetricLabels<N>, amount?: number) => void;
  /** Sets a gauge. */
  readonly set: <N extends MetricName>(name: N, labels: MetricLabels<N>, value: number) => void;
  /** Observes a histogram, seconds. */
  readonly observe: <N extends MetricName>(name: N, labels: MetricLabels<N>, seconds: number) => void;
  /** Forgets every label value of a metric, for gauges that mirror a list. */
  readonly reset: (name: MetricName) => void;
  readonly expose: () => Promise<string>;
  readonly contentType: string;
}

type Labels = Readonly<Record<string, string>>;
type Instrument = Counter<string> | Gauge<string> | Histogram<string>;

/** Label sets remembered; further ones are checked each time. */
const labelSetsMax = 4_096;

const durationBuckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** The role's metrics, all present from the start (those without labels at zero), plus the process' own. */
export const createMetrics = (role: Role): Metrics => {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const instruments = new Map<MetricName, Instrument>();
  for (const [name, row] of Object.entries(metricTable) as [MetricName, MetricRow][]) {
    if (!name.startsWith(`outrider_${role}_`)) continue;
    const options = { name, help: row.help, labelNames: [...row.labels], registers: [registry] };
    if (row.kind === 'counter') instruments.set(name, new Counter<string>(options));
    else if (row.kind === 'gauge') instruments.set(name, new Gauge<string>(options));
    else instruments.set(name, new Histogram<string>({ ...options, buckets: durationBuckets }));
  }
  const seen = new Map<string, Set<string>>();
  const bounded = (name: MetricName, labels: Labels): Labels => {
    const result: Record<string, string> = {};
    for (const label in labels) {
      const value = labels[label] as string;
      const key = `${name} ${label}`;
      let values = seen.get(key);
      if (values === undefined) {
        values = new Set();
        seen.set(key, values);
      }
      const isKept = values.has(value) || values.size < limits.labelValuesMax;
      if (isKept) values.add(value);
      result[label] = isKept ? value : 'other';
    }
    return result;
  };
  /** Label sets that were found within bounds, by their values: on the request path one lookup replaces the check. */
  const known = new Map<string, Labels>();
  const within = (name: MetricName, labels: Labels): Labels => {
    let key: string = name;
    for (const label in labels) key += `\n${labels[label]}`;
    const found = known.get(key);
    if (found) return found;
    const result = bounded(name, labels);
    const isUnchanged = Object.keys(labels).every((label) => labels[label] === result[label]);
    if (isUnchanged && known.size < labelSetsMax) known.set(key, result);
    return result;
  };
  const instrument = (name: MetricName): Instrument => {
    const found = instruments.get(name);
    if (!found) throw new TypeError(`${name} is not a metric of the ${role}`);
    return found;
  };
  return {
    add: (name, labels, amount = 1) => (instrument(name) as Counter<string> | Gauge<string>).inc(within(name, labels), amount),
    set: (name, labels, value) => (instrument(name) as Gauge<string>).set(within(name, labels), value),
    observe: (name, labels, seconds) => (instrument(name) as Histogram<string>).observe(within(name, labels), seconds),
    reset: (name) => instrument(name).reset(),
    expose: () => registry.metrics(),
    contentType: registry.contentType,
  };
};
