/** BENCHMARKS.md: the page around the markers is written by hand, what is between them by a full run. */
import { crowdConnections, pacedRate, type Row, type Running } from './compare.ts';
import { median, short, spread, table, times } from './figures.ts';
import type { Measured } from './load.ts';

export interface Growth {
  readonly title: string;
  /** One line before the table. */
  readonly intro: string;
  readonly titles: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Of the budgets, what this part measures: `[what, measured, budget]`. */
  readonly budget?: readonly [string, string, string];
}

export interface Report {
  readonly machine: string[];
  readonly absent: string[];
  readonly running: Running[];
  readonly clear: Row[];
  readonly secured: Row[];
  readonly growth: Growth[];
}

const cpu = (row: Row): readonly number[] => row.saturated.map(({ cpuMicros }) => cpuMicros);
const rate = (row: Row): readonly number[] => row.saturated.map(({ answered, seconds }) => answered / seconds);

const ways = { clear: '', tls: '', connect: ' after CONNECT' } as const;
const label = ({ name, way }: Row): string => (name === 'Outrider' ? `**${name}**${ways[way]}` : `${name}${ways[way]}`);

/** Below this share of its core a product was waiting for the load. */
const saturatedShare = 0.95;

const throughput = (row: Row): string =>
  `${median(row.saturated.map(({ busy }) => busy)) < saturatedShare ? '≥ ' : ''}${spread(rate(row))}`;

/** Late answers of a rate that is not reached say how long the queue was, not how long a request takes. */
const pacedTime = (row: Row, value: (measured: Measured) => number): string =>
  isReached(row) ? spread(row.paced.map(value)) : `not reached: ${short(median(row.paced.map(paceOf)))}/s`;

const paceOf = ({ answered, seconds }: Measured): number => answered / seconds;
const isReached = ({ paced }: Row): boolean => median(paced.map(paceOf)) >= pacedRate * 0.98;

const failures = (row: Row): number =>
  [...row.saturated, ...row.paced, ...(row.crowded ? [row.crowded] : [])].reduce((sum, { failed }) => sum + failed, 0);

const ratioTo = (rows: readonly Row[], name: string, row: Row): string => {
  const other = rows.find((candidate) => candidate.name === name && candidate.saturated.length > 0);
  return other ? times(median(cpu(row)) / median(cpu(other))) : '–';
};

const comparison = (rows: readonly Row[], reference: string): string => {
  const measured = rows.filter(({ saturated }) => saturated.length > 0).toSorted((a, b) => median(cpu(a)) - median(cpu(b)));
  const direct = rows.filter(({ saturated }) => saturated.length === 0);
  return table(
    [
      '',
      `CPU, ${reference} = 1`,
      'CPU a request, µs',
      'requests/s on one core',
      `p50 at ${pacedRate.toLocaleString('en-US')}/s, ms`,
      'p99, ms',
      `MiB with ${crowdConnections} connections`,
      'wrong answers',
    ],
    [
      ...measured.map((row) => [
        label(row),
        ratioTo(rows, reference, row),
        spread(cpu(row)),
        throughput(row),
        pacedTime(row, ({ p50Ms }) => p50Ms),
        pacedTime(row, ({ p99Ms }) => p99Ms),
        row.crowded ? short(row.crowded.peakMiB) : '–',
        String(failures(row)),
      ]),
      ...direct.map((row) => [
        label(row),
        '–',
        '–',
        '–',
        pacedTime(row, ({ p50Ms }) => p50Ms),
        pacedTime(row, ({ p99Ms }) => p99Ms),
        '–',
        String(failures(row)),
      ]),
    ],
  );
};

const startUp = (running: readonly Running[]): string =>
  table(
    ['', 'listening after, ms', 'first right answer after, ms', 'resident when idle, MiB', 'version'],
    running
      .toSorted((a, b) => median(a.listening) - median(b.listening))
      .map(({ product, listening, answering, idleMiB }) => [
        product.name === 'Outrider' ? `**${product.name}**` : product.name,
        spread(listening),
        spread(answering),
        short(idleMiB),
        product.version,
      ]),
  );

/** The budgets of the design, first version and final. */
const budgets = ({ clear, secured, running, growth: parts }: Report): string => {
  const rows: (readonly string[])[] = [];
  for (const [where, list] of [
    ['clear text', clear],
    ['TLS on both sides', secured],
  ] as const) {
    const ours = list.find(({ name }) => name === 'Outrider');
    const direct = list.find(({ saturated }) => saturated.length === 0);
    if (!ours || !direct) continue;
    const added = (value: (measured: Measured) => number): string =>
      isReached(ours) ? short(median(ours.paced.map(value)) - median(direct.paced.map(value))) : `rate not reached`;
    const p50 = added(({ p50Ms }) => p50Ms);
    const p99 = added(({ p99Ms }) => p99Ms);
    rows.push(
      [`CPU a request next to nginx, ${where}`, ratioTo(list, 'nginx', ours), '≤ 4.5×', '≤ 1.5×'],
      [`added at ${pacedRate.toLocaleString('en-US')}/s, p50 / p99, ms, ${where}`, `${p50} / ${p99}`, '≤ 1 / ≤ 5', '≤ 0.2 / ≤ 1'],
    );
  }
  const ours = running.find(({ product }) => product.name === 'Outrider');
  const crowded = [...clear, ...secured].filter(({ name }) => name === 'Outrider').flatMap((row) => row.crowded?.peakMiB ?? []);
  if (ours)
    rows.push(
      [
        `resident memory, idle / ${crowdConnections} connections, MiB`,
        `${short(ours.idleMiB)} / ${short(Math.max(...crowded))}`,
        '≤ 90 / ≤ 160',
        '≤ 64 / ≤ 128',
      ],
      ['listening after start, ms', short(median(ours.listening)), '≤ 500', '≤ 300'],
    );
  for (const { budget } of parts) if (budget) rows.push([...budget, budget[2]]);
  return `### Budgets\n\n${table(['', 'measured', 'first version', 'final'], rows)}`;
};

const growth = ({ title, intro, titles, rows }: Growth): string => `### ${title}\n\n${intro}\n\n${table(titles, rows)}`;

export const comparisonText = (report: Report): string =>
  [
    report.machine.join('. '),
    ...report.absent,
    ...(report.running.length > 0 ? [budgets(report)] : []),
    ...(report.clear.length > 0 ? [`### Clear text on both sides\n\n${comparison(report.clear, 'nginx')}`] : []),
    ...(report.secured.length > 0
      ? [
          `### TLS on both sides\n\n${comparison(report.secured, 'nginx')}`,
          `### Interception after CONNECT\n\n${comparison(
            report.secured.filter(({ way, name }) => way === 'connect' && name !== 'the origin itself'),
            'Squid',
          )}`,
        ]
      : []),
    ...(report.running.length > 0 ? [`### Starting, and idle\n\n${startUp(report.running)}`] : []),
    ...report.growth.map(growth),
    ...(report.running.length > 0 ? [rounds(report)] : []),
  ].join('\n\n');

/** What each median was made of, in the order it was measured. */
const rounds = ({ clear, secured }: Report): string => {
  const line = (row: Row): string =>
    `| ${label(row)}, ${row.way} | ${cpu(row).map(short).join(' ')} | ${rate(row).map(short).join(' ')} | ${row.paced
      .map(({ p50Ms, p99Ms, lateMs }) => `${short(p50Ms)}/${short(p99Ms)}/${short(lateMs)}`)
      .join(' ')} |`;
  return [
    '<details><summary>Every round</summary>',
    '',
    '| | CPU a request, µs | requests/s | p50/p99/schedule late by (p99), ms |',
    '| --- | --- | --- | --- |',
    ...[...clear, ...secured].map(line),
    '',
    '</details>',
  ].join('\n');
};

/** The figures that are looked at first, for the end of a run. */
export const ratioLines = ({ clear, secured }: Report): string[] =>
  [clear, secured].flatMap((rows) => {
    const ours = rows.find(({ name }) => name === 'Outrider');
    const nginx = rows.find(({ name }) => name === 'nginx');
    if (!ours || !nginx) return [];
    const where = ours.way === 'clear' ? 'clear text' : 'TLS';
    return [
      `${where}: nginx ${short(median(cpu(nginx)))} µs CPU a request, outrider ${short(median(cpu(ours)))} µs, ratio ${(median(cpu(ours)) / median(cpu(nginx))).toFixed(2)}`,
    ];
  });

const marks = ['<!-- run -->', '<!-- /run -->'] as const;

/** The page with this run in the place of the last. */
export const rewritten = (page: string, report: Report): string => {
  const [begin, end] = marks.map((mark) => page.indexOf(mark)) as [number, number];
  if (begin < 0 || end < begin) throw new Error('BENCHMARKS.md has lost its marks');
  return `${page.slice(0, begin + marks[0].length)}\n\n${new Date().toISOString().slice(0, 10)}. ${comparisonText(report)}\n\n${page.slice(end)}`;
};
