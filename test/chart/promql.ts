/**
 * What a PromQL expression asks for: metrics and the labels it selects or groups by. Not a parser of PromQL, which promtool is: names and
 * braces suffice to find what does not exist.
 */
import type { Rule } from '../../scripts/chart-runbook.ts';
import { metricTable } from '../../src/ops/metric-table.ts';

export interface Asked {
  readonly metric: string;
  readonly labels: readonly string[];
}

/** What Prometheus adds to whatever it scrapes, and its operator's monitors. */
const ofTheScrape = ['namespace', 'pod', 'container', 'job', 'instance', 'endpoint', 'service'];

/** Metric → its labels, those of the scrape included. Every role has the process' own besides. */
export const exported: Readonly<Record<string, readonly string[]>> = Object.fromEntries([
  ...Object.entries(metricTable).flatMap(([name, { kind, labels }]): [string, readonly string[]][] => {
    const has = [...labels, ...ofTheScrape];
    return kind === 'histogram'
      ? [[`${name}_bucket`, [...has, 'le']], ...['_sum', '_count'].map((end): [string, string[]] => [`${name}${end}`, has])]
      : [[name, has]];
  }),
  ['process_resident_memory_bytes', ofTheScrape],
]);

/** What recording rules make, with the labels that they keep. */
export const recorded = (rules: readonly Rule[]): Readonly<Record<string, readonly string[]>> => {
  const made: Record<string, readonly string[]> = {};
  for (const { record, expr } of rules) {
    if (record === undefined) continue;
    const inherited = asked(expr).flatMap(({ metric }) => made[metric] ?? []);
    made[record] = [...new Set([...groupings(expr).filter((label) => label !== 'le'), ...inherited])];
  }
  return made;
};

const groupings = (expr: string): string[] =>
  [...expr.matchAll(/\b(?:by|on) \(([^)]*)\)/g)].flatMap(([, labels]) => (labels as string).split(/,\s*/).filter((label) => label !== ''));

const metricPattern = /\b((?:outrider[_:]|process_)[\w:]+)(?:\{([^}]*)\})?/g;

export const asked = (expr: string): readonly Asked[] =>
  [...expr.matchAll(metricPattern)].map(({ index, 1: metric, 2: selectors = '' }) => ({
    metric: metric as string,
    labels: [...[...selectors.matchAll(/(\w+)\s*(?:=~|!~|!=|=)/g)].map(([, label]) => label as string), ...groupingsAt(expr, index)],
  }));

/** The labels of the aggregations, written `sum by (label) (…)`, that a place is within. */
const groupingsAt = (expr: string, place: number): readonly string[] => {
  const open: (readonly string[])[] = [];
  for (let at = 0; at < place; at += 1) {
    if (expr[at] === ')') open.pop();
    if (expr[at] !== '(') continue;
    const labels = /\bby \(([^)]*)\)\s*$/.exec(expr.slice(0, at))?.[1] ?? '';
    open.push(labels.split(/,\s*/).filter((label) => label !== ''));
  }
  return open.flat();
};
