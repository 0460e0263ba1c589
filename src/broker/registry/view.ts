/**
 * What one set of workloads may see: the targets its proxies intercept and the rules that apply to each. Compiled once for a
 * configuration and a set of workloads; every lookup after that is a map's. Pure.
 *
 * Which targets are intercepted: every target that some rule, allow or deny, covers for these workloads. A target that is
 * named but denied is intercepted too, and refused, because its grant is: were it left out of the snapshot, its traffic would
 * be unmatched and, under `onUnmatched: tunnel`, go out un-credentialed past the very rule that denies it. For the same reason
 * a denial for all targets (`targets: []`), even of one path, makes every target one that is intercepted: its paths can be
 * judged nowhere else. Only a target that no rule covers is not this workload's business, and is treated as unmatched.
 */
import type { Rule } from '../../core/policy.ts';
import type { Target, TargetSnapshot } from '../../core/target.ts';
import { versionOf } from '../../core/version.ts';
import type { PolicySettings } from '../../settings/broker.ts';
import { policyVersionOf } from '../../settings/version.ts';

export interface CompiledRule {
  /** Denials before allowances, and within each as configured: the order in which rules decide and are shown. */
  readonly rank: number;
  readonly rule: Rule;
  /** Empty for all. */
  readonly workloads: readonly string[];
  readonly targets: readonly string[];
}

export interface CompiledTarget {
  readonly target: Target;
  /** Changes with all that a grant for it depends on, rules excepted. */
  readonly version: string;
}

export interface View {
  /** Changes when anything changes that a decision for these workloads depends on. */
  readonly configurationVersion: string;
  readonly snapshot: TargetSnapshot;
  /** Denials first. Empty for a target that no rule covers. */
  readonly rulesFor: (target: string) => readonly Rule[];
}

export const compileRules = (policies: readonly PolicySettings[]): readonly CompiledRule[] => {
  const rules = policies.flatMap((policy) => {
    const policyVersion = policyVersionOf(policy);
    return policy.rules.map(({ name, effect, workloads, targets, methods, paths }) => ({
      rule: { policy: policy.name, policyVersion, name, effect, methods, paths, condition: '' } satisfies Rule,
      workloads,
      targets,
    }));
  });
  const denials = rules.filter(({ rule }) => rule.effect === 'deny');
  const allowances = rules.filter(({ rule }) => rule.effect === 'allow');
  return [...denials, ...allowances].map((rule, rank) => ({ ...rule, rank }));
};

const byRank = (a: CompiledRule, b: CompiledRule): number => a.rank - b.rank;

/** Lists by key, in which a thing with no keys of its own stands under every key. */
export const createIndex = <T>(items: readonly T[], keysOf: (item: T) => readonly string[]) => {
  const everywhere: T[] = [];
  const byKey = new Map<string, T[]>();
  for (const item of items) {
    const keys = keysOf(item);
    if (keys.length === 0) everywhere.push(item);
    for (const key of new Set(keys)) {
      const list = byKey.get(key);
      if (list) list.push(item);
      else byKey.set(key, [item]);
    }
  }
  return { everywhere, keys: byKey, under: (key: string): readonly T[] => byKey.get(key) ?? [] };
};

/** The view of workloads to which exactly `rules` apply. */
export const compileView = (rules: readonly CompiledRule[], targets: ReadonlyMap<string, CompiledTarget>): View => {
  const index = createIndex(rules, (rule) => rule.targets);
  const covered = index.everywhere.length > 0 ? [...targets.keys()] : [...targets.keys()].filter((name) => index.keys.has(name));
  const known = new Map<string, readonly Rule[]>();
  const rulesFor = (target: string): readonly Rule[] => {
    if (!targets.has(target)) return [];
    let found = known.get(target);
    if (found === undefined) {
      found = [...index.everywhere, ...index.under(target)].toSorted(byRank).map(({ rule }) => rule);
      known.set(target, found);
    }
    return found;
  };
  const compiled = covered.map((name) => targets.get(name) as CompiledTarget);
  const configurationVersion = versionOf({
    targets: compiled.map(({ target, version }) => [target.name, version]),
    rules: rules.map(({ rule, targets: named }) => [rule.policy, rule.policyVersion, rule.name, named]),
  });
  return { configurationVersion, snapshot: { configurationVersion, targets: compiled.map(({ target }) => target) }, rulesFor };
};
