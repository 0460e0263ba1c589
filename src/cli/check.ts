/** `outrider check`: every problem and warning of configuration files, or the JSON Schema of one kind. Changes nothing. */
import {
  readSettings,
  type Settings,
  SettingsError,
  type SettingsProblem,
  jsonSchemaOf,
  settingsKinds,
  warningsOf,
} from '../settings/document.ts';
import { configurationVersionOf, policyVersionOf } from '../settings/version.ts';
import { versionOf } from '../core/version.ts';
import { type Command, readOptions, type Terminal, UsageError } from './terminal.ts';

interface Checked {
  readonly file: string;
  readonly settings: Settings | undefined;
  readonly problems: readonly SettingsProblem[];
  /** The problems as text. */
  readonly message: string;
  readonly warnings: readonly string[];
}

const checkFile = (file: string): Checked => {
  try {
    const settings = readSettings(file);
    return { file, settings, problems: [], message: '', warnings: warningsOf(settings) };
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    return { file, settings: undefined, problems: error.problems, message: error.message, warnings: [] };
  }
};

const counted = (count: number, one: string, many = `${one}s`): string => `${count} ${count === 1 ? one : many}`;

const summaryOf = (settings: Settings): string => {
  if (settings.kind !== 'broker') return `${settings.kind} configuration is valid, version ${versionOf(settings)}`;
  const { workloads, targets, providers, policies } = settings;
  const parts = [
    counted(workloads.length, 'workload'),
    counted(targets.length, 'target'),
    counted(providers.length, 'provider'),
    counted(policies.length, 'policy', 'policies'),
  ];
  return `broker configuration is valid (${parts.join(', ')}), version ${configurationVersionOf(settings)}`;
};

const jsonOf = ({ file, settings, problems, warnings }: Checked): string => {
  const policies =
    settings?.kind === 'broker' ? settings.policies.map((policy) => ({ name: policy.name, version: policyVersionOf(policy) })) : undefined;
  const version = settings === undefined ? undefined : versionOf(settings);
  return JSON.stringify({ file, valid: settings !== undefined, kind: settings?.kind, version, policies, problems, warnings });
};

const print = (checked: Checked, terminal: Terminal): void => {
  for (const warning of checked.warnings) terminal.print(`warning: ${checked.file}: ${warning}`);
  terminal.print(checked.settings === undefined ? checked.message : `${checked.file}: ${summaryOf(checked.settings)}`);
};

const printSchema = (kind: string, terminal: Terminal): number => {
  const known = settingsKinds.find((name) => name === kind);
  if (known === undefined) throw new UsageError(`there is no such kind of configuration: write --schema ${settingsKinds.join(', ')}`);
  terminal.print(JSON.stringify(jsonSchemaOf(known), null, 2));
  return 0;
};

export const runCheck: Command = (args, terminal) => Promise.resolve(check(args, terminal));

/** 0: all are valid. 1: one is not. Throws UsageError. */
export const check = (args: readonly string[], terminal: Terminal): number => {
  const { values } = readOptions(args, {
    config: { type: 'string', multiple: true },
    json: { type: 'boolean' },
    schema: { type: 'string' },
  });
  if (values.schema !== undefined) return printSchema(values.schema, terminal);
  const files = values.config ?? [];
  if (files.length === 0) throw new UsageError('check needs --config FILE, for example config/examples/broker.yaml');
  const checked = files.map(checkFile);
  for (const one of checked) {
    if (values.json === true) terminal.print(jsonOf(one));
    else print(one, terminal);
  }
  return checked.every(({ settings }) => settings !== undefined) ? 0 : 1;
};
