/** Which lines of the event store `outrider events` shows: value in, verdict out. */

export interface EventFilter {
  readonly notBeforeMs: number | undefined;
  /** These four exact, or with a trailing `*`. */
  readonly workload: string | undefined;
  readonly target: string | undefined;
  readonly kind: string | undefined;
  readonly requestId: string | undefined;
}

export type Verdict = 'matches' | 'differs' | 'unreadable';

/** Judges one line; an empty line differs. */
export const matcherOf = ({ notBeforeMs, ...texts }: EventFilter): ((line: string) => Verdict) => {
  const wanted = Object.entries(texts).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return (line) => {
    if (line.trim() === '') return 'differs';
    const event = objectIn(line);
    if (event === undefined) return 'unreadable';
    if (notBeforeMs !== undefined && !(Date.parse(String(event['time'])) >= notBeforeMs)) return 'differs';
    return wanted.every(([name, pattern]) => fits(event[name], pattern)) ? 'matches' : 'differs';
  };
};

const objectIn = (line: string): Record<string, unknown> | undefined => {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
};

/** An absent field is the empty text. */
const fits = (value: unknown, pattern: string): boolean => {
  const text = typeof value === 'string' ? value : '';
  return pattern.endsWith('*') ? text.startsWith(pattern.slice(0, -1)) : text === pattern;
};

const unitMs = new Map([
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
  ['d', 86_400_000],
]);

/** `90s`, `15m`, `2h` or `7d` in milliseconds; undefined for anything else. */
export const parseDuration = (text: string): number | undefined => {
  const match = /^([0-9]{1,9})([smhd])$/.exec(text);
  const unit = unitMs.get(match?.[2] ?? '');
  return match && unit !== undefined ? Number(match[1]) * unit : undefined;
};
