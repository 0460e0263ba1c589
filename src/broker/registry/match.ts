/**
 * Which configured workloads an attested identity is. Exact values and trailing `*`, all of a workload's must match; several
 * workloads may match one identity. Pure.
 */
import type { Attested, Attributes } from '../../core/evidence.ts';
import type { WorkloadSettings } from '../../settings/broker.ts';

export type Identity = Pick<Attested, 'attestor' | 'attributes'>;

export interface Match {
  /** In the order of the configuration. */
  readonly workloads: readonly string[];
  /** Until when this answer holds: the first of them to expire (wall clock), Infinity when none does. */
  readonly untilMs: number;
}

export type Matcher = (identity: Identity, nowMs: number) => Match;

const isPattern = (wanted: string): boolean => wanted.endsWith('*');

const valueMatches = (wanted: string, actual: string): boolean =>
  isPattern(wanted) ? actual.startsWith(wanted.slice(0, -1)) : actual === wanted;

/** A workload that asks for nothing would be everyone: it matches no one. Settings refuse it too. */
const attributesMatch = (workload: WorkloadSettings, attributes: Attributes): boolean => {
  const wanted = Object.entries(workload.match);
  return (
    wanted.length > 0 && wanted.every(([name, value]) => Object.hasOwn(attributes, name) && valueMatches(value, attributes[name] as string))
  );
};

const pairOf = (name: string, value: string): string => `${name}\n${value}`;

/**
 * Each workload is filed under its rarest exact pair of name and value, so that an identity is compared with the few
 * workloads that share a pair with it and not with all of them.
 */
export const compileMatching = (workloads: readonly WorkloadSettings[]): Matcher => {
  const exactPairs = workloads.map((workload) =>
    Object.entries(workload.match)
      .filter(([, value]) => !isPattern(value))
      .map(([name, value]) => pairOf(name, value)),
  );
  const uses = new Map<string, number>();
  for (const pair of exactPairs.flat()) uses.set(pair, (uses.get(pair) ?? 0) + 1);
  const filed = new Map<string, number[]>();
  const unfiled: number[] = [];
  for (const [index, pairs] of exactPairs.entries()) {
    const [rarest] = pairs.toSorted((a, b) => (uses.get(a) as number) - (uses.get(b) as number));
    if (rarest === undefined) unfiled.push(index);
    else filed.set(rarest, [...(filed.get(rarest) ?? []), index]);
  }

  return ({ attestor, attributes }, nowMs) => {
    const candidates = [...unfiled, ...Object.entries(attributes).flatMap(([name, value]) => filed.get(pairOf(name, value)) ?? [])];
    const matching = candidates
      .toSorted((a, b) => a - b)
      .map((index) => workloads[index] as WorkloadSettings)
      .filter(
        (workload) =>
          (workload.attestor === undefined || workload.attestor === attestor) &&
          (workload.expiresAtMs === undefined || nowMs < workload.expiresAtMs) &&
          attributesMatch(workload, attributes),
      );
    return {
      workloads: matching.map(({ name }) => name),
      untilMs: Math.min(...matching.map(({ expiresAtMs }) => expiresAtMs ?? Number.POSITIVE_INFINITY)),
    };
  };
};
