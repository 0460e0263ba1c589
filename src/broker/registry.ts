/**
 * The configuration as the service asks it: who is this, what may it use, what do its proxies intercept. Compiles
 * BrokerSettings once into maps, so that a lookup costs the same with ten targets as with ten thousand. Pure and immutable: a
 * reload makes a new one.
 */
import assert from 'node:assert/strict';
import { limits } from '../core/limits.ts';
import type { Rule } from '../core/policy.ts';
import type { Target, TargetSnapshot } from '../core/target.ts';
import { versionOf } from '../core/version.ts';
import type { BrokerSettings, TargetSettings } from '../settings/broker.ts';
import { compileMatching, type Identity, type Match } from './registry/match.ts';
import { type CompiledRule, type CompiledTarget, compileRules, compileView, createIndex, type View } from './registry/view.ts';

export type { Identity, Match, View };

export interface Registry {
  /** Which configured workloads this identity is; none when it is unknown or all have expired. */
  readonly match: (identity: Identity, nowMs: number) => Match;
  /** What a set of workloads sees; rules of all of them apply. No workloads see nothing, whatever rules say of "all". */
  readonly viewOf: (workloads: readonly string[]) => View;
  readonly rulesFor: (workloads: readonly string[], target: string) => readonly Rule[];
  readonly snapshotFor: (workloads: readonly string[]) => TargetSnapshot;
  readonly target: (name: string) => TargetSettings | undefined;
  /** When the next workload expires, so that those who watch can be told; undefined when none will. */
  readonly nextExpiryMs: (nowMs: number) => number | undefined;
  /** The workload whose snapshot is longest, its targets measured by `bytesOf`; undefined when there are no workloads. */
  readonly longest: (bytesOf: (target: Target) => number) => { readonly workload: string; readonly bytes: number } | undefined;
  /** How many targets use each provider. */
  readonly targetsPerProvider: ReadonlyMap<string, number>;
}

export type RegistrySettings = Pick<BrokerSettings, 'workloads' | 'targets' | 'providers' | 'policies'>;

/** `trustBundles`: the PEM that stands in each target's caFile. */
export const compileRegistry = (settings: RegistrySettings, trustBundles: ReadonlyMap<string, string>): Registry => {
  const match = compileMatching(settings.workloads);
  const targetSettings = new Map(settings.targets.map((target) => [target.name, target]));
  const targets = compileTargets(settings, trustBundles);
  const rules = createIndex(compileRules(settings.policies), (rule) => rule.workloads);

  const views = new Map<string, View>();
  const viewOf = (workloads: readonly string[]): View => {
    const key = JSON.stringify(workloads.toSorted());
    let view = views.get(key);
    if (view === undefined) {
      const applying = workloads.length === 0 ? [] : [...rules.everywhere, ...workloads.flatMap(rules.under)];
      view = compileView(
        [...new Set(applying)].toSorted((a, b) => a.rank - b.rank),
        targets,
      );
      if (views.size >= limits.workloadViewsMax) views.delete(views.keys().next().value as string);
      views.set(key, view);
    }
    return view;
  };

  return {
    match,
    viewOf,
    rulesFor: (workloads, target) => viewOf(workloads).rulesFor(target),
    snapshotFor: (workloads) => viewOf(workloads).snapshot,
    target: (name) => targetSettings.get(name),
    nextExpiryMs: (nowMs) => {
      const future = settings.workloads.map(({ expiresAtMs }) => expiresAtMs ?? 0).filter((expiry) => expiry > nowMs);
      return future.length === 0 ? undefined : future.reduce((a, b) => Math.min(a, b));
    },
    longest: (bytesOf) => {
      const bytes = new Map([...targets].map(([name, { target }]) => [name, bytesOf(target)]));
      const measured = createMeasure(rules, bytes);
      return settings.workloads
        .map(({ name }) => ({ workload: name, bytes: measured(name) }))
        .reduce<{ workload: string; bytes: number } | undefined>((a, b) => (a === undefined || b.bytes > a.bytes ? b : a), undefined);
    },
    targetsPerProvider: countTargets(settings),
  };
};

/** The sum of `bytes` over the targets that a workload's view covers, without compiling the view. */
const createMeasure = (rules: ReturnType<typeof createIndex<CompiledRule>>, bytes: ReadonlyMap<string, number>) => {
  const coveredBy = (some: readonly CompiledRule[]): ReadonlySet<string> =>
    new Set(some.some(({ targets }) => targets.length === 0) ? bytes.keys() : some.flatMap(({ targets }) => targets));
  const sum = (names: Iterable<string>): number => [...names].reduce((total, name) => total + (bytes.get(name) ?? 0), 0);
  const everywhere = coveredBy(rules.everywhere);
  const everywhereBytes = sum(everywhere);
  return (workload: string): number => everywhereBytes + sum([...coveredBy(rules.under(workload))].filter((name) => !everywhere.has(name)));
};

const compileTargets = (
  { targets, providers }: RegistrySettings,
  trustBundles: ReadonlyMap<string, string>,
): Map<string, CompiledTarget> => {
  const providerVersions = new Map(providers.map((provider) => [provider.name, versionOf(provider)]));
  return new Map(
    targets.map((settings) => {
      const { name, hosts, ports, cleartext, caFile, protocol, tlsVersionMin, echo, paths, placeholder, credentials } = settings;
      const trustBundlePem = caFile === undefined ? '' : trustBundles.get(caFile);
      assert.notEqual(trustBundlePem, undefined, `the trust bundle of target ${name} was not read`);
      const target: Target = {
        name,
        hosts,
        ports,
        cleartextAllowed: cleartext === 'allowed',
        trustBundlePem: trustBundlePem as string,
        protocol,
        tlsVersionMin,
        echo,
        paths,
        placeholder,
      };
      const used = credentials.map(({ provider, placement }) => ({ provider, version: providerVersions.get(provider), placement }));
      return [name, { target, version: versionOf({ target, used }) }];
    }),
  );
};

const countTargets = ({ targets, providers }: RegistrySettings): ReadonlyMap<string, number> => {
  const counts = new Map(providers.map(({ name }) => [name, 0]));
  for (const { credentials } of targets) {
    for (const provider of new Set(credentials.map((credential) => credential.provider)))
      counts.set(provider, (counts.get(provider) ?? 0) + 1);
  }
  return counts;
};
