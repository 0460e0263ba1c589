/** Durations as operators write them: a whole number and its unit. */
import { Refusal, scalar } from './grammar.ts';

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;
type Unit = keyof typeof unitMs;

/** In the largest unit that divides it. */
export const durationText = (ms: number): string => {
  const unit = (['h', 'm', 's'] as const).find((u) => ms >= unitMs[u] && ms % unitMs[u] === 0) ?? 'ms';
  return `${ms / unitMs[unit]}${unit}`;
};

/** Yields milliseconds. */
export const duration = ({ minMs, maxMs, write }: { minMs: number; maxMs: number; write: string }) => {
  const example = `${write} (a whole number with its unit: ms, s, m or h)`;
  return scalar({ what: 'a duration', write: example, unquoted: `has no unit, write for example ${write} (ms, s, m or h)` }, (text) => {
    const match = /^(0|[1-9][0-9]{0,8})(ms|s|m|h)$/.exec(text);
    if (!match) return undefined;
    const ms = Number(match[1]) * unitMs[match[2] as Unit];
    if (ms > maxMs) return new Refusal(`${text} is more than ${durationText(maxMs)}, write at most ${durationText(maxMs)}`);
    if (ms < minMs) return new Refusal(`${text} is less than ${durationText(minMs)}, write at least ${durationText(minMs)}`);
    return ms;
  });
};
