/**
 * Bytes an operator wrote → frozen, typed settings, or every problem at once, each with its place. The face of settings/ for
 * roles and commands. Nothing here shows what was written: see grammar.ts and document/syntax.ts.
 */
import * as z from 'zod';
import { limits } from '../core/limits.ts';
import { type BrokerSettings, brokerSchema } from './broker.ts';
import { brokerReferences } from './broker/references.ts';
import { brokerWarnings } from './broker/warnings.ts';
import { type CollectorSettings, collectorReferences, collectorSchema, collectorWarnings } from './collector.ts';
import { readConfigurationFile } from './document/file.ts';
import { problemsOf } from './document/issues.ts';
import { type Finding, readSource, type Source } from './document/source.ts';
import { oneOf } from './grammar.ts';
import { type InjectorSettings, injectorSchema, injectorWarnings } from './injector.ts';
import { injectorReferences } from './injector/references.ts';
import { pathText } from './path.ts';
import { type ProxySettings, proxyReferences, proxySchema, proxyWarnings } from './proxy.ts';
import { type Problem, valueAt } from './reference.ts';

export interface SettingsProblem {
  /** From 1. */
  readonly line: number;
  readonly column: number;
  /** `providers[0].lifetime`; '' for the file itself. */
  readonly path: string;
  /** What is wrong, and what to write. */
  readonly message: string;
}

/** A configuration that cannot be used. The message has one line a problem: `file:line:column path: what is wrong, what to write`. */
export class SettingsError extends Error {
  readonly problems: readonly SettingsProblem[];
  readonly file: string;

  constructor(file: string, problems: readonly SettingsProblem[]) {
    super(linesOf(file, problems).join('\n'));
    this.name = 'SettingsError';
    this.file = file;
    this.problems = problems;
  }
}

const linesOf = (file: string, problems: readonly SettingsProblem[]): string[] => {
  const shown = problems.slice(0, limits.configurationProblemsShownMax);
  const more = problems.length - shown.length;
  return [
    ...shown.map(({ line, column, path, message }) => `${file}:${line}:${column} ${path === '' ? '' : `${path}: `}${message}`),
    ...(more > 0 ? [`${file}: and ${more} more ${more === 1 ? 'problem' : 'problems'}`] : []),
  ];
};

export type Settings = ProxySettings | BrokerSettings | CollectorSettings | InjectorSettings;
export type SettingsKind = Settings['kind'];
export const settingsKinds = ['broker', 'proxy', 'collector', 'injector'] as const satisfies readonly SettingsKind[];

const kindSchema = oneOf(settingsKinds);
const schemas = { broker: brokerSchema, proxy: proxySchema, collector: collectorSchema, injector: injectorSchema } as const;
const references: Readonly<Record<SettingsKind, (document: unknown) => Problem[]>> = {
  broker: brokerReferences,
  proxy: proxyReferences,
  collector: collectorReferences,
  injector: injectorReferences,
};

/** From an environment variable, which it no longer is when this returns. Throws SettingsError, whose problems are in `env NAME`. */
export const takeSettings = (environment: NodeJS.ProcessEnv, name: string): Settings => {
  const text = environment[name];
  delete environment[name];
  const place = `env ${name}`;
  const problem = text === undefined ? 'is not set' : text.length > limits.configurationBytesMax ? 'is too long' : undefined;
  if (text === undefined || problem !== undefined)
    throw new SettingsError(place, [{ line: 1, column: 1, path: '', message: `${problem}, write the configuration into it` }]);
  return parseSettings(text, place);
};

/** Relative paths, `file` and those in it, are relative to the working directory. Throws SettingsError. */
export const readSettings = (file: string): Settings => {
  const read = readConfigurationFile(file);
  if ('problem' in read) throw new SettingsError(file, [{ line: 1, column: 1, path: '', message: read.problem }]);
  return parseSettings(read.text, file);
};

/** `file` is only what problems are called by. Throws SettingsError. */
export const parseSettings = (text: string, file: string): Settings => {
  const source = readSource(text);
  if (source.isBroken) throw new SettingsError(file, placed(source, source.findings));
  const kind = kindSchema.safeParse(valueAt(source.value, 'kind'));
  if (!kind.success) {
    const message = kind.error.issues[0]?.message ?? '';
    const problem: Problem = isMapping(source.value)
      ? { path: ['kind'], at: 'value', message }
      : { path: [], at: 'value', message: noMapping };
    throw new SettingsError(file, placed(source, [...source.findings, ...locate(source, [problem])]));
  }
  const result = schemas[kind.data].safeParse(source.value);
  const issues = result.success ? [] : problemsOf(result.error.issues);
  const findings = [...source.findings, ...locate(source, [...issues, ...references[kind.data](source.value)])];
  if (findings.length > 0) throw new SettingsError(file, placed(source, findings));
  return deepFreeze(result.data as Settings);
};

const noMapping = 'has no configuration in it, write kind: broker, proxy, collector or injector, and below it what belongs to that';
const isMapping = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);

const locate = (source: Source, problems: readonly Problem[]): Finding[] =>
  problems.map(({ path, at, message }) => ({ offset: source.offsetOf(path, at), path: pathText(path), message }));

/** In the order of the text; where several say something of one place, the first, which knew most. */
const placed = (source: Source, findings: readonly Finding[]): SettingsProblem[] => {
  const first = new Map<string, Finding>();
  for (const finding of findings) {
    const key = `${finding.offset} ${finding.path}`;
    if (!first.has(key)) first.set(key, finding);
  }
  return [...first.values()]
    .toSorted((a, b) => a.offset - b.offset)
    .map(({ offset, path, message }) => ({ ...source.position(offset), path, message }));
};

const deepFreeze = <T>(value: T): T => {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const member of Object.values(value)) deepFreeze(member);
  return Object.freeze(value);
};

/** Migration debt and parts that do nothing: the configuration is used all the same. Looks whether files are there. */
export const warningsOf = (settings: Settings, nowMs: number = Date.now()): readonly string[] => {
  if (settings.kind === 'broker') return brokerWarnings(settings, nowMs);
  if (settings.kind === 'injector') return injectorWarnings(settings);
  return settings.kind === 'proxy' ? proxyWarnings(settings) : collectorWarnings(settings);
};

/** JSON Schema (draft 2020-12) of what an operator writes, for editors. It knows keys and shapes; `check` knows the rest. */
export const jsonSchemaOf = (kind: SettingsKind): Readonly<Record<string, unknown>> => z.toJSONSchema(schemas[kind], { io: 'input' });
