/** Figures as a reader sees them: medians with what they lie between, ratios of medians, markdown tables. */

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
};

/** Three digits say all that such measurements know. */
export const short = (value: number): string => {
  if (!Number.isFinite(value)) return '–';
  if (Math.abs(value) >= 1_000) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
};

/** `18.2 (17.9–19.0)` */
export const spread = (values: readonly number[]): string =>
  !values.some(Number.isFinite) ? '–' : `${short(median(values))} (${short(Math.min(...values))}–${short(Math.max(...values))})`;

export const times = (ratio: number): string => (Number.isFinite(ratio) ? `${ratio.toFixed(2)}×` : '–');

export const table = (titles: readonly string[], rows: readonly (readonly string[])[]): string =>
  [titles, titles.map((_, i) => (i === 0 ? '---' : '---:')), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
