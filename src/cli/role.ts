/**
 * `outrider broker|collector|proxy|injector --config FILE|--config-env NAME`: settings → run → until stopped. A role's code is imported when it is the one
 * asked for. What cannot start says so in one sentence; only a bug is thrown on to main.ts.
 */
import type { AddressInfo } from 'node:net';
import { hostPort } from '../core/destination.ts';
import { limits } from '../core/limits.ts';
import { type Running, StartStopped } from '../ops/drain.ts';
import type { BrokerSettings } from '../settings/broker.ts';
import type { CollectorSettings } from '../settings/collector.ts';
import { readSettings, SettingsError, takeSettings } from '../settings/document.ts';
import type { InjectorSettings } from '../settings/injector.ts';
import type { ProxySettings } from '../settings/proxy.ts';
import { coreWarning, exposures, ignoreDebuggerSignal, processFacts } from './hardening.ts';
import { type Command, readOptions, type Terminal, UsageError } from './terminal.ts';

type AnySettings = BrokerSettings | CollectorSettings | InjectorSettings | ProxySettings;
type Role = AnySettings['kind'];

interface Started {
  readonly running: Running;
  /** What it listens for, in words, and where. */
  readonly listening: Readonly<Record<string, AddressInfo>>;
  readonly ready: Promise<unknown>;
}

/** The listening line of a role: `broker listens: gRPC 127.0.0.1:8443, admin 127.0.0.1:9091`. */
const listeningLine = (role: string, listening: Readonly<Record<string, AddressInfo>>): string => {
  const where = Object.entries(listening).map(([what, { address, port }]) => `${what} ${hostPort({ host: address, port })}`);
  return `${role} listens: ${where.join(', ')}`;
};

/** Where a role's configuration is: `file`, or `variable` of the environment. */
type ConfigurationPlace = { readonly file: string } | { readonly variable: string };

const configurationOf = (args: readonly string[], role: Role): ConfigurationPlace => {
  const { config, 'config-env': variable } = readOptions(args, { config: { type: 'string' }, 'config-env': { type: 'string' } }).values;
  if (config !== undefined && variable !== undefined) throw new UsageError('write --config or --config-env, not both');
  if (config !== undefined) return { file: config };
  if (variable !== undefined) return { variable };
  const example = role === 'injector' ? 'injector-kubernetes' : role;
  throw new UsageError(`${role} needs --config FILE, for example config/examples/${example}.yaml, or --config-env NAME`);
};

/** Settings of the role, or undefined after the reasons have been printed. A variable is gone from the environment afterwards. */
export const settingsFor = <R extends Role>(
  role: R,
  place: ConfigurationPlace,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Extract<AnySettings, { kind: R }> | undefined => {
  try {
    const isFile = 'file' in place;
    const settings = isFile ? readSettings(place.file) : takeSettings(environment, place.variable);
    if (settings.kind === role) return settings as Extract<AnySettings, { kind: R }>;
    const [what, flag] = isFile ? [place.file, `--config ${place.file}`] : [`env ${place.variable}`, `--config-env ${place.variable}`];
    terminal.complain(`${what} is a ${settings.kind} configuration: start it with "outrider ${settings.kind} ${flag}".`);
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    terminal.complain(error.message);
  }
  return undefined;
};

/** Errors whose message was written for an operator; roles name them, and are not loaded just to be compared with. */
const operatorErrors = new Set(['ListenError', 'SettingsError', 'ConfigurationError', 'StoreError']);

/** The sentence for an operator, or undefined when the error is a bug. Failed system calls (a directory, a file) are not bugs. */
export const operatorSentence = (error: unknown): string | undefined => {
  if (!(error instanceof Error)) return undefined;
  const { code, syscall } = error as NodeJS.ErrnoException;
  return operatorErrors.has(error.name) || (code !== undefined && syscall !== undefined) ? error.message : undefined;
};

/** Whether nobody else can read this process; says what stands in the way. */
export const isSealed = (role: string, terminal: Terminal, facts = processFacts()): boolean => {
  const found = exposures(facts);
  for (const sentence of found) terminal.complain(`${role}: ${sentence}`);
  const warning = coreWarning(facts);
  if (warning !== undefined) terminal.complain(`${role}: ${warning}`);
  ignoreDebuggerSignal(facts);
  return found.length === 0;
};

/** Starts, says where it listens and when it is ready, and stops when asked to. */
const run = async (role: Role, terminal: Terminal, start: () => Promise<Started>): Promise<number> => {
  if (!isSealed(role, terminal)) return 1;
  let started: Started;
  try {
    started = await start();
  } catch (error) {
    if (error instanceof StartStopped) {
      terminal.print(`${role} stopped: it was waiting for ${error.waitingFor}`);
      return 0;
    }
    const sentence = operatorSentence(error);
    if (sentence === undefined) throw error;
    terminal.complain(`${role}: ${sentence}`);
    return 1;
  }
  terminal.print(listeningLine(role, started.listening));
  let stopping = false;
  const announced = started.ready.then(() => void (stopping || terminal.print(`${role} is ready`)));
  // Being asked to stop ends the wait for readiness too, and what that then says is of no interest.
  announced.catch(() => {});
  await Promise.race([terminal.stopRequested, announced.then(() => terminal.stopRequested)]);
  stopping = true;
  await closedInTime(started.running);
  terminal.print(`${role} stopped`);
  return 0;
};

/** Requests in flight have their time, and after them the events that tell of them; what is still open then ends with the process. */
export const closeTimeoutMs = limits.drainTimeoutMs + limits.eventFlushTimeoutMs;

export const closedInTime = async (running: Running): Promise<void> => {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, closeTimeoutMs);
  });
  await Promise.race([running.close(), deadline]);
  clearTimeout(timer);
};

export const runBroker: Command = async (args, terminal) => {
  const place = configurationOf(args, 'broker');
  const settings = settingsFor('broker', place, terminal);
  if (!settings) return 1;
  const { startBroker } = await import('../broker/run.ts');
  return run('broker', terminal, async () => {
    const running = await startBroker(settings, {
      stopRequested: terminal.stopRequested,
      ...('file' in place && { reloadFrom: place.file }),
    });
    return { running, listening: { gRPC: running.grpc, issuer: running.issuer, admin: running.admin }, ready: Promise.resolve() };
  });
};

export const runCollector: Command = async (args, terminal) => {
  const settings = settingsFor('collector', configurationOf(args, 'collector'), terminal);
  if (!settings) return 1;
  const { startCollector } = await import('../collector/run.ts');
  return run('collector', terminal, async () => {
    const running = await startCollector(settings);
    return { running, listening: { gRPC: running.grpc, admin: running.admin }, ready: running.ready() };
  });
};

export const runProxy: Command = async (args, terminal) => {
  const settings = settingsFor('proxy', configurationOf(args, 'proxy'), terminal);
  if (!settings) return 1;
  const { startProxy } = await import('../proxy/run.ts');
  return run('proxy', terminal, async () => {
    const running = await startProxy(settings);
    const { listen, transparent, routes, admin } = running;
    const listening = {
      proxy: listen,
      ...(transparent ? { transparent } : {}),
      ...Object.fromEntries(routes.map((address, i) => [`route${i + 1}`, address])),
      admin,
    };
    return { running, listening, ready: running.ready() };
  });
};

export const runInjector: Command = async (args, terminal) => {
  const settings = settingsFor('injector', configurationOf(args, 'injector'), terminal);
  if (!settings) return 1;
  const { startInjector } = await import('../injector/run.ts');
  return run('injector', terminal, async () => {
    const running = await startInjector(settings);
    return { running, listening: { webhook: running.webhook, admin: running.admin }, ready: running.ready() };
  });
};
