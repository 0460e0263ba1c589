/**
 * What a pod may choose of its sidecar, by annotations: validated, all problems at once, and never a weakening. Leaving ports and ranges out
 * means going there without a credential, which anybody may unless the operator refuses what is no target; audit, unmatched traffic, broker,
 * image, user and token are the operator's.
 */
import { isIPv4, isIPv6 } from 'node:net';
import { amountOf, type Resource, resources } from '../core/quantity.ts';
import { type InjectionMode, injectionModes, memoryLimitMin, type SidecarLogLevel, sidecarLogLevels } from '../settings/injector.ts';
import type { SidecarResources, SidecarSettings } from '../settings/injector.ts';
import { either, nearest } from '../settings/nearest.ts';
import { areAllAddresses, areAllPorts } from './exclusions.ts';
import { annotationPrefix, isTaken, notesAnnotation } from './names.ts';

export interface AnnotationRow {
  /** Without the prefix. */
  readonly name: string;
  readonly values: string;
  readonly default: string;
  readonly meaning: string;
}

/** README.md shows this table. */
export const annotationTable = [
  {
    name: 'mode',
    values: injectionModes.join(', '),
    default: 'explicit',
    meaning:
      'How connections come to the proxy: programs are told of it (HTTPS_PROXY and its like); steering rules bring every TCP connection; or local ports stand for targets. The operator allows which.',
  },
  {
    name: 'routes',
    values: 'PORT=URL, …',
    default: '',
    meaning: 'Mode routes, which needs it: what 127.0.0.1:PORT stands for, such as 8081=https://api.example.com.',
  },
  {
    name: 'exclude-outbound-ports',
    values: '25, 3000-3010, …',
    default: '',
    meaning: 'Mode transparent: destination ports that are not steered, and so get no credential. Where the operator allows it.',
  },
  {
    name: 'exclude-outbound-ranges',
    values: '10.0.0.0/8, fd00::/8, …',
    default: '',
    meaning:
      'Modes transparent and explicit: destinations that are not steered, where the operator allows it, or are in NO_PROXY, and so get no credential.',
  },
  {
    name: 'no-proxy',
    values: '.svc, db.internal, …, or nothing',
    default: "the operator's",
    meaning:
      "Mode explicit: the names, addresses and ranges in NO_PROXY, in place of the operator's (cluster names, mostly). Needed where a target is in the cluster.",
  },
  { name: 'cpu-request', values: '50m, 0.5, …', default: "the operator's", meaning: 'CPU that the proxy is sure of.' },
  { name: 'cpu-limit', values: '500m, 2, …', default: "the operator's", meaning: 'CPU that the proxy gets at most.' },
  { name: 'memory-request', values: '112Mi, …', default: "the operator's", meaning: 'Memory that the proxy is sure of.' },
  {
    name: 'memory-limit',
    values: '384Mi, 1Gi, …',
    default: "the operator's",
    meaning: `Memory that the proxy gets at most: ${memoryLimitMin} or more, and no more than the operator allows.`,
  },
  { name: 'log-level', values: sidecarLogLevels.join(', '), default: "the operator's", meaning: 'What the proxy says.' },
] as const satisfies readonly AnnotationRow[];

type Name = (typeof annotationTable)[number]['name'];
const names: readonly Name[] = annotationTable.map(({ name }) => name);

export interface Choices {
  readonly mode: InjectionMode;
  readonly routes: readonly { readonly port: number; readonly to: string }[];
  /** As `outrider steer install` takes them. */
  readonly excludePorts: readonly string[];
  readonly excludeRanges: readonly string[];
  /** In NO_PROXY instead of what the operator says; undefined: that. */
  readonly noProxy: readonly string[] | undefined;
  readonly resources: SidecarResources;
  readonly logLevel: SidecarLogLevel;
}

export interface ReadAnnotations {
  readonly choices: Choices;
  /** A sentence each; when there are any, `choices` means nothing. */
  readonly problems: readonly string[];
}

/** More items than this are a sign of the wrong means. As in `outrider steer`. */
const itemsMax = 256;

export const readAnnotations = (annotations: Readonly<Record<string, string>>, settings: SidecarSettings): ReadAnnotations => {
  const problems: string[] = unknownOnes(annotations);
  const written = (name: Name): string | undefined => annotations[annotationPrefix + name];
  const problem = (name: Name, what: string): void => void problems.push(`${annotationPrefix}${name} ${what}`);
  const oneOf = <const V extends string>(name: Name, values: readonly V[], otherwise: V): V => {
    const text = written(name);
    const found = values.find((value) => value === text);
    if (text !== undefined && found === undefined) problem(name, `is not one of those allowed here: write ${either(values)}`);
    return found ?? otherwise;
  };
  const items = <T>(name: Name, read: (item: string) => T | undefined, write: string): readonly T[] => {
    const texts = itemsOf(written(name));
    const values = texts.slice(0, itemsMax).flatMap((item) => read(item) ?? []);
    if (texts.length > itemsMax) problem(name, `has more than ${itemsMax} items`);
    else if (values.length < texts.length || (texts.length === 0 && written(name) !== undefined))
      problem(name, `has an item that it cannot have: write for example ${write}`);
    return values;
  };

  const allowed = injectionModes.filter((mode) => settings.modes.includes(mode));
  const mode = oneOf('mode', allowed, allowed[0] ?? 'explicit');
  const routes = items('routes', readRoute, '8081=https://api.example.com');
  const excludePorts = items('exclude-outbound-ports', readPortRange, '25, 3000-3010');
  const excludeRanges = items('exclude-outbound-ranges', readRange, '10.0.0.0/8, fd00::/8');
  const direct = itemsOf(written('no-proxy'));
  if (direct.length > itemsMax || !direct.every(isException))
    problem('no-proxy', 'has an item that it cannot have: write for example .svc, 10.0.0.0/8');
  if (areAllPorts(excludePorts)) problem('exclude-outbound-ports', leavesNothing);
  if (areAllAddresses(excludeRanges)) problem('exclude-outbound-ranges', leavesNothing);
  if (mode === 'transparent' && settings.exclusions === 'refused') {
    for (const name of exclusions) if (written(name) !== undefined) problem(name, everythingIsSteered);
  }
  for (const { name, modes } of onlyIn) {
    if (written(name) !== undefined && !modes.includes(mode)) problem(name, `means nothing in mode ${mode}: it is for ${either(modes)}`);
  }
  if (mode === 'routes' && written('routes') === undefined) problem('routes', 'is missing: mode routes needs it');
  const listened = routes.map(({ port }) => port);
  if (new Set(listened).size < listened.length) problem('routes', 'has a port twice');
  const chosen = readResources(written, settings, problem);
  const logLevel = oneOf('log-level', sidecarLogLevels, settings.logLevel);
  const noProxy = written('no-proxy') === undefined ? undefined : direct;
  return { choices: { mode, routes, excludePorts, excludeRanges, noProxy, resources: chosen, logLevel }, problems };
};

const exclusions = ['exclude-outbound-ports', 'exclude-outbound-ranges'] as const satisfies readonly Name[];
const leavesNothing = 'leaves nothing to the proxy: write only what must go around it';
const everythingIsSteered =
  'is not for pods to write here: the operator has every connection steered (sidecar.exclusions: refused), remove it';

const onlyIn: readonly { readonly name: Name; readonly modes: readonly InjectionMode[] }[] = [
  { name: 'routes', modes: ['routes'] },
  { name: 'exclude-outbound-ports', modes: ['transparent'] },
  { name: 'exclude-outbound-ranges', modes: ['transparent', 'explicit'] },
  { name: 'no-proxy', modes: ['explicit'] },
];

/** One that nobody reads would be taken for protection, or for a setting in force. */
const unknownOnes = (annotations: Readonly<Record<string, string>>): string[] =>
  Object.keys(annotations)
    .filter((name) => name.startsWith(annotationPrefix) && name !== notesAnnotation)
    .map((name) => name.slice(annotationPrefix.length))
    .filter((name) => !(names as readonly string[]).includes(name))
    .map((name, i) => {
      if (name === 'inject') return `${annotationPrefix}inject is a label: write it under metadata.labels`;
      const meant = i < itemsMax ? nearest(name, names) : undefined;
      const advice = meant === undefined ? `known are ${names.join(', ')}` : `did you mean ${annotationPrefix}${meant}?`;
      return `${annotationPrefix}${name.slice(0, 63)} is not known: ${advice}`;
    });

const itemsOf = (text: string | undefined): readonly string[] => (text ?? '').split(/[\s,]+/).filter((item) => item !== '');

/** What the URL may be is the proxy's to say: its own settings judge it (decide.ts). Ports below 1024 may need a right that nobody has. */
const readRoute = (item: string): { readonly port: number; readonly to: string } | undefined => {
  const match = /^([1-9][0-9]{3,4})=(https?:\/\/[A-Za-z0-9.\-_:[\]]{1,300})$/.exec(item);
  const port = Number(match?.[1]);
  return match && port >= 1_024 && port <= 65_535 && !isTaken(port) ? { port, to: match[2] as string } : undefined;
};

/** As the operator's own setting takes them. */
const isException = (item: string): boolean => item.length <= 253 && /^[a-zA-Z0-9.:_\-/[\]]+$/.test(item);

const isPort = (text: string): boolean => /^[1-9][0-9]{0,4}$/.test(text) && Number(text) <= 65_535;

const readPortRange = (item: string): string | undefined => {
  const [first = '', last = first, ...more] = item.split('-');
  return isPort(first) && isPort(last) && Number(first) <= Number(last) && more.length === 0 ? item : undefined;
};

const readRange = (item: string): string | undefined => {
  const [address = '', prefix, ...more] = item.split('/');
  const bits = isIPv4(address) ? 32 : isIPv6(address) && !address.includes('%') ? 128 : 0;
  const isPrefix = prefix === undefined || (/^(?:0|[1-9][0-9]{0,2})$/.test(prefix) && Number(prefix) <= bits);
  return bits > 0 && isPrefix && more.length === 0 ? item : undefined;
};

/** Less CPU than this, and the proxy hardly starts. */
const cpuMin = '10m';
const floors: Readonly<Record<'request' | 'limit', Readonly<Record<Resource, string>>>> = {
  request: { cpu: cpuMin, memory: '64Mi' },
  limit: { cpu: cpuMin, memory: memoryLimitMin },
};

const readResources = (
  written: (name: Name) => string | undefined,
  { resources: unasked, resourcesMax }: SidecarSettings,
  problem: (name: Name, what: string) => void,
): SidecarResources => {
  const amount = (resource: Resource, text: string): number => amountOf(resource, text) as number;
  const read = (resource: Resource, part: 'request' | 'limit'): string | undefined => {
    const name = `${resource}-${part}` as const;
    const text = written(name);
    if (text === undefined) return undefined;
    const asked = amountOf(resource, text);
    const [least, most] = [floors[part][resource], resourcesMax[resource]];
    if (asked !== undefined && asked >= amount(resource, least) && asked <= amount(resource, most)) return text;
    problem(name, `is not an amount from ${least} to ${most}`);
    return undefined;
  };
  const chosen = (resource: Resource): { readonly request: string; readonly limit: string | undefined } => {
    const limit = read(resource, 'limit') ?? unasked.limits[resource];
    const asked = read(resource, 'request');
    const request = asked ?? unasked.requests[resource];
    if (limit === undefined || amount(resource, request) <= amount(resource, limit)) return { request, limit };
    if (asked !== undefined)
      problem(`${resource}-request`, `is more than the limit, ${limit}: write ${annotationPrefix}${resource}-limit too`);
    return { request: limit, limit };
  };
  const [cpu, memory] = [chosen(resources[0]), chosen(resources[1])];
  return { requests: { cpu: cpu.request, memory: memory.request }, limits: { cpu: cpu.limit, memory: memory.limit as string } };
};
