/** Rules that no request can reach. Pure. */
import type { BrokerSettings, RuleSettings } from '../broker.ts';

/** Methods that the proxy refuses before any policy. */
const neverForwarded = new Set(['TRACE', 'CONNECT']);

export const deadRules = ({ policies, workloads }: BrokerSettings, nowMs: number): string[] => {
  const expired = new Set(workloads.filter(({ expiresAtMs }) => expiresAtMs !== undefined && expiresAtMs <= nowMs).map(({ name }) => name));
  const named = policies.flatMap(({ name, rules }) => rules.map((rule) => ({ policy: name, rule })));
  const denials = named.filter(({ rule }) => rule.effect === 'deny');
  return named.flatMap(({ policy, rule }) => {
    const where = `policy ${policy}, rule ${rule.name}: can never match`;
    if (rule.methods.length > 0 && rule.methods.every((method) => neverForwarded.has(method)))
      return [`${where}: its methods are never forwarded`];
    if (rule.workloads.length > 0 && rule.workloads.every((name) => expired.has(name))) return [`${where}: all its workloads have expired`];
    const denial = rule.effect === 'allow' ? denials.find((other) => includes(other.rule, rule)) : undefined;
    return denial ? [`${where}: policy ${denial.policy}, rule ${denial.rule.name} denies all of it`] : [];
  });
};

/** Whether every request that `narrow` covers is covered by `wide`. */
const includes = (wide: RuleSettings, narrow: RuleSettings): boolean => {
  const within = (key: 'workloads' | 'targets' | 'methods'): boolean =>
    wide[key].length === 0 || (narrow[key].length > 0 && narrow[key].every((name) => wide[key].includes(name)));
  const paths =
    wide.paths.length === 0 ||
    (narrow.paths.length > 0 && narrow.paths.every((path) => wide.paths.some((other) => templateIncludes(other, path))));
  return within('workloads') && within('targets') && within('methods') && paths;
};

const isOneSegment = (segment: string): boolean => segment === '*' || segment.startsWith('{');

/** Whether every path that template `narrow` matches is matched by `wide`; see pathMatches. */
const templateIncludes = (wide: string, narrow: string): boolean => {
  const wanted = wide.slice(1).split('/');
  const given = narrow.slice(1).split('/');
  for (const [index, segment] of wanted.entries()) {
    if (segment === '**') return true;
    const there = given[index];
    if (there === undefined) return false;
    if (isOneSegment(segment)) {
      if (there === '' || there === '**') return false;
    } else if (there !== segment) return false;
    if (index === given.length - 1 && wanted[index + 1] === '**') return true;
  }
  return wanted.length === given.length;
};
