/**
 * `outrider run --config FILE -- COMMAND…`: a proxy for the life of one command. settings → proxy → ready → command → flushed.
 * Prints nothing on standard output, which is the command's; says on standard error what the user should know.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { limits } from '../core/limits.ts';
import { createLog } from '../ops/log.ts';
import type { RunningProxy } from '../proxy/run.ts';
import type { ProxySettings } from '../settings/proxy.ts';
import { notRunStatus, splitAtCommand } from './command-line.ts';
import { processFacts } from './hardening.ts';
import { closedInTime, isSealed, operatorSentence, settingsFor } from './role.ts';
import { bundleName, programEnvironment, runDirectoryVariable, trustStoreName } from '../core/program-environment.ts';
import { type Program, startProgram, statusOfSignal } from './run/program.ts';
import { mergeTrustFiles } from './run/trust-files.ts';
import { type Command, readOptions, UsageError } from './terminal.ts';

interface Request {
  readonly config: string;
  readonly readyTimeoutMs: number;
  readonly command: readonly string[];
}

const requestIn = (args: readonly string[]): Request => {
  const { own, command } = splitAtCommand(args);
  const { config, 'ready-timeout': seconds } = readOptions(own, {
    config: { type: 'string' },
    'ready-timeout': { type: 'string' },
  }).values;
  if (config === undefined) throw new UsageError('run needs --config FILE, for example config/examples/proxy.yaml');
  if (command.length === 0)
    throw new UsageError('run needs a command, for example: outrider run --config FILE -- curl https://api.example.com/');
  if (seconds !== undefined && !/^[1-9][0-9]{0,3}$/.test(seconds))
    throw new UsageError('--ready-timeout takes a whole number of seconds, such as 30');
  return { config, readyTimeoutMs: seconds === undefined ? limits.runReadyTimeoutMs : Number(seconds) * 1_000, command };
};

/**
 * The same proxy, beside whatever else runs on this machine. Its authority lives as long as the command: nothing is kept for a restart.
 * Steering rules lead to a fixed port, and are no part of a command's life.
 */
const settingsIn = (settings: ProxySettings, directory: string): ProxySettings => ({
  ...settings,
  listen: { host: '127.0.0.1', port: 0 },
  admin: { host: '127.0.0.1', port: 0 },
  transparent: undefined,
  interception: {
    ...settings.interception,
    bundleFile: join(directory, bundleName),
    trustStoreFile: join(directory, trustStoreName),
    stateFile: undefined,
  },
});

/** Standard error is the command's too: what a role tells an operator is left out, unless asked for by "debug". */
const quieter = (level: ProxySettings['log']['level']): ProxySettings['log']['level'] => (level === 'info' ? 'warn' : level);

/** The proxy's log. While the command waits its lines are held: a broker that is late is no news once it is there. */
const createHeldLog = (level: ProxySettings['log']['level'], complain: (line: string) => void) => {
  let held: string[] | undefined = [];
  const write = (line: string): void => {
    if (held === undefined) return complain(line.trimEnd());
    held = [...held, line].slice(-limits.runHeldLogLinesMax);
  };
  return {
    log: createLog({ role: 'proxy', level: quieter(level), write }),
    drop: (): void => {
      held = undefined;
    },
    show: (): void => {
      for (const line of held ?? []) complain(line.trimEnd());
      held = undefined;
    },
  };
};

type Say = (sentence: string) => void;

/** Yields why the command cannot be run; undefined when the proxy is ready. */
const unready = async (proxy: RunningProxy, timeoutMs: number, say: Say): Promise<string | undefined> => {
  const missing = (): string => `waiting for ${proxy.missing().join(' and ')}`;
  const { promise: late, resolve } = Promise.withResolvers<string>();
  const timers = [
    setTimeout(() => say(missing()), limits.runProgressAfterMs),
    setTimeout(() => resolve(`the proxy was not ready after ${timeoutMs / 1_000} s: ${missing()}`), timeoutMs),
  ];
  try {
    return await Promise.race([proxy.ready().then(() => undefined), late]);
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
};

interface Run {
  readonly directory: string;
  /** The environment that the command would have had. */
  readonly user: Readonly<NodeJS.ProcessEnv>;
  readonly say: Say;
  readonly log: ReturnType<typeof createHeldLog>;
  /** A signal that came when there was no command to take it. */
  readonly interrupted: Promise<NodeJS.Signals>;
  program: Program | undefined;
}

/** The command's environment, after a word on what of the user's it changes. */
const tellOf = (proxy: RunningProxy, { directory, user, say }: Run): { environment: NodeJS.ProcessEnv; close: () => void } => {
  const bundleFile = join(directory, bundleName);
  const { address: host, port } = proxy.listen;
  const told = programEnvironment({ host, port, bundleFile, trustStoreFile: join(directory, trustStoreName) }, user);
  const { files, close } = mergeTrustFiles(bundleFile, told.toMerge);
  const unmerged = told.toMerge.filter(({ name }) => files[name] === undefined).map(({ name }) => name);
  for (const note of told.notes) say(note);
  if (unmerged.length > 0) say(`${unmerged.join(', ')} is kept, as its file cannot be read: programs that use it may not trust this proxy`);
  return { environment: { ...user, ...told.variables, ...files, [runDirectoryVariable]: directory }, close };
};

/** Waits, runs, yields the exit status. The proxy is the caller's to close. */
const runBeside = async (proxy: RunningProxy, { command, readyTimeoutMs }: Request, run: Run): Promise<number> => {
  const { say, log, interrupted } = run;
  const wait = await Promise.race([
    unready(proxy, readyTimeoutMs, say).then((reason) => ({ reason, signal: undefined })),
    interrupted.then((signal) => ({ reason: undefined, signal })),
  ]);
  if (wait.signal !== undefined) return statusOfSignal(wait.signal);
  if (wait.reason !== undefined) {
    log.show();
    say(wait.reason);
    return notRunStatus;
  }
  log.drop();
  const trust = tellOf(proxy, run);
  run.program = startProgram(command, trust.environment);
  const { status, complaint } = await run.program.ended;
  trust.close();
  if (complaint !== undefined) say(complaint);
  return status;
};

export const runRun: Command = async (args, terminal) => {
  const request = requestIn(args);
  const settings = settingsFor('proxy', { file: request.config }, terminal);
  // Of core files nothing is said: the machine is its user's own.
  if (!settings || !isSealed('run', terminal, { ...processFacts(), coreBytes: 0 })) return notRunStatus;
  const say: Say = (sentence) => terminal.complain(`outrider run: ${sentence}`);
  const directory = mkdtempSync(join(tmpdir(), 'outrider-run-'));
  const remove = (): void => rmSync(directory, { recursive: true, force: true });
  const { promise: interrupted, resolve: interrupt } = Promise.withResolvers<NodeJS.Signals>();
  const user = terminal.standIn?.({
    signal: (signal) => (run.program?.isRunning() ? run.program.signal(signal) : interrupt(signal)),
    exit: () => {
      run.program?.signal('SIGTERM');
      remove();
    },
  });
  const log = createHeldLog(settings.log.level, terminal.complain);
  const run: Run = { directory, user: user ?? {}, say, log, interrupted, program: undefined };
  try {
    const { startProxy } = await import('../proxy/run.ts');
    const proxy = await startProxy(settingsIn(settings, directory), { log: log.log });
    try {
      return await runBeside(proxy, request, run);
    } finally {
      // A signal now is the wish not to wait for the last events.
      await Promise.race([closedInTime(proxy), interrupted]);
    }
  } catch (error) {
    const sentence = operatorSentence(error);
    if (sentence === undefined) throw error;
    say(sentence);
    return notRunStatus;
  } finally {
    remove();
  }
};
