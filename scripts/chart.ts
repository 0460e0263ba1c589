/**
 * `npm run chart`: writes what the chart has from the code: values.schema.json, RUNBOOK.md and the dashboards. test/chart fails when one of
 * them is out of date.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dashboards } from './chart-dashboards.ts';
import { runbook } from './chart-runbook.ts';
import { chartSchema } from './chart-schema.ts';

const chart = fileURLToPath(new URL('../charts/outrider', import.meta.url));

const json = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;

/** Path in the chart → what stands there. */
export const chartFiles = (): Readonly<Record<string, string>> => ({
  'values.schema.json': json(chartSchema()),
  'RUNBOOK.md': runbook(readFileSync(join(chart, 'files/alerts.yaml'), 'utf8')),
  ...Object.fromEntries(Object.entries(dashboards()).map(([name, dashboard]) => [`files/dashboards/${name}.json`, json(dashboard)])),
});

if (import.meta.main) {
  for (const [name, text] of Object.entries(chartFiles())) {
    const file = join(chart, name);
    const isSame = existsSync(file) && readFileSync(file, 'utf8') === text;
    mkdirSync(dirname(file), { recursive: true });
    if (!isSame) writeFileSync(file, text);
    console.log(`charts/outrider/${name}${isSame ? ' is up to date' : ': written'}`);
  }
}
