/**
 * `outrider steer install|remove|show`: the rules that bring every TCP connection of this network namespace to the proxy's transparent
 * port, for both IP versions or for none. Knows iptables' rules; the proxy needs no right for what it does with what comes.
 */
import { readSteering, type SteerFlags } from './steer/options.ts';
import {
  chain,
  families,
  type Family,
  incompleteness,
  type Installed,
  installing,
  isNothing,
  readInstalled,
  redirectPort,
  removing,
  restoring,
  rulesOf,
} from './steer/rules.ts';
import { applyNat, listNat, type Run, runProgram, TableError, usesIPv6 } from './steer/tables.ts';
import { type Command, readOptions, type Terminal, UsageError } from './terminal.ts';

export interface SteerParts {
  readonly run: Run;
  readonly hasIPv6: () => boolean;
}

interface Table {
  readonly family: Family;
  readonly before: Installed;
}

/** One table to change, and how. */
interface Change extends Table {
  readonly transaction: string;
}

const flags = {
  to: { type: 'string' },
  'except-uid': { type: 'string' },
  'except-port': { type: 'string' },
  'except-range': { type: 'string' },
  'only-port': { type: 'string' },
  'dry-run': { type: 'boolean' },
} as const;

/** 0: done, or (show) complete. 1: not. Throws UsageError. */
export const createSteer =
  ({ run, hasIPv6 }: SteerParts): Command =>
  async (args, terminal) => {
    const { values, positionals } = readOptions(args, flags, { positionals: true });
    const [action, ...more] = positionals;
    if (more.length > 0 || (action !== 'install' && action !== 'remove' && action !== 'show'))
      throw new UsageError('write steer install, steer remove or steer show');
    const { 'dry-run': dryRun, ...described } = values;
    if (action !== 'install' && Object.keys(described).length > 0)
      throw new UsageError(`steer ${action} takes no --${Object.keys(described)[0]}`);
    if (action === 'show' && dryRun === true) throw new UsageError('steer show changes nothing anyway, leave --dry-run out');
    const steering = action === 'install' ? readSteering(described satisfies SteerFlags) : undefined;
    try {
      const tables = await readTables(run, hasIPv6, terminal);
      if (action === 'show') return show(tables, terminal);
      const changes = tables
        .filter(({ before }) => steering !== undefined || !isNothing(before))
        .map(
          (table): Change => ({
            ...table,
            transaction: steering ? installing(table.before, rulesOf(steering, table.family)) : removing(table.before),
          }),
        );
      if (dryRun === true) {
        for (const { family, transaction } of changes) terminal.print(`# ${family.program}-restore --noflush\n${transaction.trimEnd()}`);
        return 0;
      }
      await applyAll(run, changes);
      terminal.print(steering ? `TCP connections are steered to port ${steering.to} (${names(tables)})` : 'no steering rules are left');
      return 0;
    } catch (error) {
      if (!(error instanceof TableError)) throw error;
      terminal.complain(error.message);
      return 1;
    }
  };

const names = (tables: readonly Table[]): string => tables.map(({ family }) => family.name).join(' and ');

/** Both tables, before anything is changed. IPv6 may be missing only where nothing could go by it. */
const readTables = async (run: Run, hasIPv6: () => boolean, terminal: Terminal): Promise<Table[]> => {
  const tables: Table[] = [];
  for (const family of families) {
    try {
      tables.push({ family, before: readInstalled(await listNat(run, family)) });
    } catch (error) {
      if (!(error instanceof TableError) || family.name === 'IPv4' || hasIPv6()) throw error;
      terminal.complain(`notice: IPv6 is left alone, as there is no address of it here (${error.message})`);
    }
  }
  return tables;
};

/** All of the changes, or none: what was changed before one that fails is put back. */
const applyAll = async (run: Run, changes: readonly Change[]): Promise<void> => {
  const done: Table[] = [];
  for (const { family, before, transaction } of changes) {
    try {
      await applyNat(run, family, transaction);
      done.push({ family, before });
    } catch (failure) {
      for (const table of done) await putBack(run, table);
      throw failure;
    }
  }
};

const putBack = async (run: Run, { family, before }: Table): Promise<void> => {
  const now = readInstalled(await listNat(run, family));
  if (!isNothing(now) || !isNothing(before)) await applyNat(run, family, restoring(now, before));
};

const show = (tables: readonly Table[], terminal: Terminal): number => {
  let isComplete = true;
  for (const { family, before } of tables) {
    const problem = incompleteness(before);
    isComplete &&= problem === undefined;
    terminal.print(`${family.name}: ${problem ?? `complete, to port ${redirectPort(before)}`}`);
    for (const rule of [...before.hooks, ...(before.rules ?? [])]) terminal.print(`  ${rule}`);
  }
  const ports = new Set(tables.map(({ before }) => redirectPort(before)));
  if (isComplete && ports.size > 1) terminal.print(`incomplete: the chains ${chain} lead to different ports`);
  return isComplete && ports.size === 1 ? 0 : 1;
};

export const runSteer: Command = createSteer({ run: runProgram, hasIPv6: usesIPv6 });
