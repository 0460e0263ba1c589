/**
 * Prometheus metrics. Owns prom-client, which shows them; counting is ours, because its label handling cost more than a request's
 * routing: values are found by one lookup per label, or held by the caller. The names are in ops/metric-table.ts. Label values are
 * bounded: a label that has seen `limits.labelValuesMax` different values (more for namespaces) counts further ones as "other".
 */
import { collectDefaultMetrics, type Metric, Registry } from 'prom-client';
import { limits } from '../core/limits.ts';
import { type MetricLabels, type MetricName, type MetricRow, metricTable } from './metric-table.ts';

export type Role = 'proxy' | 'broker' | 'collector' | 'injector';

export interface Metrics {
  /** Adds to a counter or gauge. */
  readonly add: <N extends MetricName>(name: N, labels: MetricLabels<N>, amount?: number) => void;
  /** Sets a gauge. */
  readonly set: <N extends MetricName>(name: N, labels: MetricLabels<N>, value: number) => void;
  /** Observes a histogram, seconds. */
  readonly observe: <N extends MetricName>(name: N, labels: MetricLabels<N>, seconds: number) => void;
  /** The same for one label set that is known beforehand: for the request path. Shown from its first observation on. */
  readonly observer: <N extends MetricName>(name: N, labels: MetricLabels<N>) => (seconds: number) => void;
  /**
   * Forgets every label value of a metric, for gauges that mirror a list. What follows is to be added rather than set where the list may be
   * longer than its label's bound: the others share one value.
   */
  readonly reset: (name: MetricName) => void;
  readonly expose: () => Promise<string>;
  readonly contentType: string;
}

type Labels = Readonly<Record<string, string>>;

interface Cell {
  readonly labels: Labels;
  /** A counter's or gauge's value; a histogram's sum. */
  value: number;
  /** Observations by bucket, the last for what is above them all; undefined for counters and gauges. */
  readonly buckets: number[] | undefined;
}

/** Cells by the value of the first label, then of the second, … */
type Branch = Map<string, Branch | Cell>;

interface Instrument {
  readonly name: string;
  readonly row: MetricRow;
  readonly root: Branch;
  /** In the order of their making; reset() empties it. */
  cells: Cell[];
  /** Without labels there is one, there from the start. */
  only: Cell | undefined;
  /** Values seen, by label. */
  readonly seen: readonly Set<string>[];
}

/** Label sets of one metric; further ones are counted under "other" in every label. */
const labelSetsMax = 4_096;

const durationBuckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** The role's metrics, all present from the start (those without labels at zero), plus the process' own. */
export const createMetrics = (role: Role): Metrics => {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const instruments = new Map<MetricName, Instrument>();
  for (const [name, row] of Object.entries(metricTable) as [MetricName, MetricRow][]) {
    if (!name.startsWith(`outrider_${role}_`)) continue;
    const instrument: Instrument = { name, row, root: new Map(), cells: [], only: undefined, seen: row.labels.map(() => new Set()) };
    begin(instrument);
    instruments.set(name, instrument);
    registry.registerMetric(shown(instrument));
  }
  const instrumentOf = (name: MetricName): Instrument => {
    const found = instruments.get(name);
    if (!found) throw new TypeError(`${name} is not a metric of the ${role}`);
    return found;
  };
  const cellOf = (name: MetricName, labels: Labels): Cell => {
    const instrument = instrumentOf(name);
    return instrument.only ?? find(instrument, labels) ?? make(instrument, labels);
  };
  return {
    add: (name, labels, amount = 1) => {
      cellOf(name, labels).value += amount;
    },
    set: (name, labels, value) => {
      cellOf(name, labels).value = value;
    },
    observe: (name, labels, seconds) => count(cellOf(name, labels), seconds),
    observer: (name, labels) => {
      instrumentOf(name);
      let cell: Cell | undefined;
      return (seconds) => count((cell ??= cellOf(name, labels)), seconds);
    },
    reset: (name) => {
      const instrument = instrumentOf(name);
      instrument.cells = [];
      instrument.root.clear();
      for (const values of instrument.seen) values.clear();
      begin(instrument);
    },
    expose: () => registry.metrics(),
    contentType: registry.contentType,
  };
};

const begin = (instrument: Instrument): void => {
  if (instrument.row.labels.length > 0) return;
  instrument.only = newCell(instrument, {});
};

const newCell = (instrument: Instrument, labels: Labels): Cell => {
  const isHistogram = instrument.row.kind === 'histogram';
  const cell: Cell = { labels, value: 0, buckets: isHistogram ? durationBuckets.map(() => 0).concat(0) : undefined };
  instrument.cells.push(cell);
  return cell;
};

const find = ({ row, root }: Instrument, labels: Labels): Cell | undefined => {
  let at: Branch | Cell | undefined = root;
  for (const label of row.labels) {
    at = (at as Branch).get(labels[label] as string);
    if (at === undefined) return undefined;
  }
  return at as Cell;
};

/** A cell for labels that have none yet; where a value or a label set is one too many, the one that counts the others. */
const make = (instrument: Instrument, labels: Labels): Cell => {
  const { row, root, seen, cells } = instrument;
  const isFull = cells.length >= labelSetsMax;
  const bounded: Record<string, string> = {};
  for (const [i, label] of row.labels.entries()) {
    const values = seen[i] as Set<string>;
    const value = labels[label] as string;
    const valuesMax = label === 'namespace' ? limits.namespaceLabelValuesMax : limits.labelValuesMax;
    const isKept = !isFull && (values.has(value) || values.size < valuesMax);
    if (isKept) values.add(value);
    bounded[label] = isKept ? value : 'other';
  }
  const known = find(instrument, bounded);
  if (known) return known;
  const cell = newCell(instrument, bounded);
  let at = root;
  for (const label of row.labels.slice(0, -1)) {
    const value = bounded[label] as string;
    const next = (at.get(value) as Branch | undefined) ?? new Map<string, Branch | Cell>();
    at.set(value, next);
    at = next;
  }
  at.set(bounded[row.labels.at(-1) as string] as string, cell);
  return cell;
};

const count = (cell: Cell, seconds: number): void => {
  // A clock that stepped, or a metric that is no histogram, must not spoil a sum for good.
  if (!Number.isFinite(seconds)) throw new TypeError('an observation is a finite number');
  const buckets = cell.buckets as number[];
  let bucket = 0;
  while (bucket < durationBuckets.length && seconds > (durationBuckets[bucket] as number)) bucket += 1;
  (buckets[bucket] as number) += 1;
  cell.value += seconds;
};

interface Sample {
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
  readonly metricName: string;
}

/** What prom-client asks of a metric when it is scraped. */
const shown = (instrument: Instrument): Metric => {
  const { name, row } = instrument;
  const get = async () => ({
    name,
    help: row.help,
    type: row.kind,
    aggregator: 'sum',
    values: instrument.cells.flatMap((cell): Sample[] =>
      cell.buckets === undefined ? [{ labels: cell.labels, value: cell.value, metricName: name }] : bucketSamples(name, cell, cell.buckets),
    ),
  });
  return { name, help: row.help, get } as unknown as Metric;
};

const bucketSamples = (name: string, { labels, value }: Cell, buckets: readonly number[]): Sample[] => {
  let below = 0;
  const samples = buckets.map((observations, i): Sample => {
    below += observations;
    return { labels: { le: durationBuckets[i] ?? '+Inf', ...labels }, value: below, metricName: `${name}_bucket` };
  });
  return [...samples, { labels, value, metricName: `${name}_sum` }, { labels, value: below, metricName: `${name}_count` }];
};
