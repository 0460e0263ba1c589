/** argv → one command, loaded only when it is asked for. */
import { readFileSync } from 'node:fs';
import { nearest } from '../settings/nearest.ts';
import { notRunStatus, splitAtCommand } from './command-line.ts';
import { commandHelp, type CommandName, commandNames, overview } from './help.ts';
import { packagedFile } from './packaged.ts';
import { type Command, type Terminal, UsageError } from './terminal.ts';

const commands: Readonly<Record<CommandName, () => Promise<Command>>> = {
  broker: async () => (await import('./role.ts')).runBroker,
  collector: async () => (await import('./role.ts')).runCollector,
  proxy: async () => (await import('./role.ts')).runProxy,
  injector: async () => (await import('./role.ts')).runInjector,
  run: async () => (await import('./run.ts')).runRun,
  steer: async () => (await import('./steer.ts')).runSteer,
  demo: async () => (await import('./demo.ts')).runDemo,
  echo: async () => (await import('./echo.ts')).runEcho,
  check: async () => (await import('./check.ts')).runCheck,
  events: async () => (await import('./events.ts')).runEvents,
  'self-test': async () => (await import('./self-test.ts')).runSelfTest,
};

const isCommand = (name: string): name is CommandName => (commandNames as readonly string[]).includes(name);

const version = (): string => (JSON.parse(readFileSync(packagedFile('package.json'), 'utf8')) as { version: string }).version;

const unknown = (name: string): string => {
  const meant = nearest(name, commandNames);
  return `There is no command ${JSON.stringify(name.slice(0, 64))}${meant === undefined ? '' : `; did you mean ${meant}`}?`;
};

const usage = (terminal: Terminal, sentence: string, help: string, status = 2): number => {
  terminal.complain(`${sentence}\nSee "${help}".`);
  return status;
};

/** Yields the exit status: 0 well, 1 failed, 2 wrong arguments; of `run`, what its help says. */
export const runCommand = async (argv: readonly string[], terminal: Terminal): Promise<number> => {
  const [name = '--help', ...args] = argv;
  if (name === '--help' || name === '-h' || name === 'help') {
    terminal.print(args[0] !== undefined && isCommand(args[0]) ? commandHelp(args[0]) : overview());
    return argv.length === 0 ? 2 : 0;
  }
  if (name === '--version') {
    terminal.print(`outrider ${version()} (Node ${process.versions.node})`);
    return 0;
  }
  if (!isCommand(name)) return usage(terminal, unknown(name), 'outrider --help');
  const own = name === 'run' ? splitAtCommand(args).own : args;
  if (own.includes('--help') || own.includes('-h')) {
    terminal.print(commandHelp(name));
    return 0;
  }
  try {
    const command = await commands[name]();
    return await command(args, terminal);
  } catch (error) {
    if (error instanceof UsageError)
      return usage(terminal, `${error.message}.`, `outrider ${name} --help`, name === 'run' ? notRunStatus : 2);
    throw error;
  }
};
