/**
 * The law of access: deny beats allow, and nothing matched means deny. The broker applies it to (workload, target) when it
 * makes a grant; the proxy applies the rules that came with the grant to each request. A decision is a value with a reason.
 */
import { pathMatches } from './request-target.ts';

export type Effect = 'allow' | 'deny';

export interface Rule {
  readonly policy: string;
  /** Hash of the policy's content: the same rules have the same version. */
  readonly policyVersion: string;
  readonly name: string;
  readonly effect: Effect;
  /** Empty: every method. Upper case. */
  readonly methods: readonly string[];
  /** Path templates; empty: every path. */
  readonly paths: readonly string[];
  /** A CEL expression; '' for none. Not evaluated yet: see `decide`. */
  readonly condition: string;
}

export interface Decision {
  readonly verdict: Effect | 'pass';
  /** '' where no policy was involved (default deny, passed traffic). */
  readonly policy: string;
  readonly policyVersion: string;
  readonly rule: string;
  /** A sentence for the log, the event, the client and the test alike. */
  readonly reason: string;
}

export interface Action {
  readonly method: string;
  readonly path: string;
  /** Why the path can be read in more than one way; absent where it cannot (core/request-target.ts). */
  readonly ambiguity?: string | undefined;
}

const decided = (rule: Rule, reason: string): Decision => ({
  verdict: rule.effect,
  policy: rule.policy,
  policyVersion: rule.policyVersion,
  rule: rule.name,
  reason,
});

const denyByDefault = (reason: string): Decision => ({ verdict: 'deny', policy: '', policyVersion: '', rule: '', reason });

/** Whether a rule covers every action, so that it can be decided without seeing the request. */
const coversEverything = (rule: Rule): boolean => rule.methods.length === 0 && rule.paths.length === 0 && rule.condition === '';

const covers = (rule: Rule, action: Action): boolean =>
  (rule.methods.length === 0 || rule.methods.includes(action.method)) && coversPath(rule, action);

/**
 * Nobody knows what an ambiguous path names at its target. Some reading of it might be what a denial means, so every denial covers it; only a
 * rule that means every path allows it.
 */
const coversPath = ({ effect, paths }: Rule, { path, ambiguity }: Action): boolean => {
  if (paths.length === 0) return true;
  if (ambiguity === undefined) return paths.some((template) => pathMatches(template, path));
  return effect === 'deny' || paths.includes('/**');
};

/** The action in words; the sentence is read by whoever wonders why it was refused. */
const wordsFor = ({ method, path, ambiguity }: Action): string =>
  ambiguity === undefined
    ? `${method} ${path}`
    : `${method} ${path} (${ambiguity}: only a rule for every path allows it, and any denial covers it)`;

/**
 * Decides one action by the rules of a grant. A rule with a condition fails closed until conditions can be evaluated: an
 * allow does not match, a deny does.
 */
export const decide = (rules: readonly Rule[], action: Action): Decision => {
  const covering = rules.filter((rule) => covers(rule, action));
  const denying = covering.find((rule) => rule.effect === 'deny');
  if (denying) return decided(denying, `rule ${denying.name} of policy ${denying.policy} denies ${wordsFor(action)}`);
  const allowing = covering.find((rule) => rule.effect === 'allow' && rule.condition === '');
  if (allowing) return decided(allowing, `rule ${allowing.name} of policy ${allowing.policy} allows ${wordsFor(action)}`);
  return denyByDefault(`no rule allows ${wordsFor(action)}`);
};

/**
 * Decides whether a grant is made at all from the rules that match (workload, target): not when one denies everything, and
 * not when none could allow anything.
 */
export const decideGrant = (rules: readonly Rule[], workload: string, target: string): Decision => {
  const denying = rules.find((rule) => rule.effect === 'deny' && coversEverything(rule));
  if (denying) return decided(denying, `rule ${denying.name} of policy ${denying.policy} denies ${workload} every use of ${target}`);
  const allowing = rules.find((rule) => rule.effect === 'allow');
  if (allowing) return decided(allowing, `rule ${allowing.name} of policy ${allowing.policy} allows ${workload} some use of ${target}`);
  return denyByDefault(`no rule allows ${workload} to use ${target}`);
};
