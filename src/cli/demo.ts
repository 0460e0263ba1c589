/**
 * `outrider demo`: every role in one process, wired from outside over real sockets, with a stand-in cluster and target. It tells
 * what it starts, ends its list with a line that begins with `ready`, and then what to try.
 */
import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { ListenError } from '../ops/admin.ts';
import { systemClock } from '../ops/clock.ts';
import { type Closer, closeAll } from '../ops/drain.ts';
import { createLog, type Log } from '../ops/log.ts';
import { type Backend, pagePolicy, readinessOf, statusPage } from './demo/page.ts';
import { at, startDemoBroker, startDemoCollector, startDemoProxy } from './demo/roles.ts';
import { attestingBy, type DemoSettings, defaultDirectory, inDirectory, onAnyPort, readDemoSettings } from './demo/settings.ts';
import { startIssuer, startTarget } from './demo/stand-ins.ts';
import { tour } from './demo/tour.ts';
import { startFrontDoor } from './front-door.ts';
import { closeTimeoutMs, operatorSentence } from './role.ts';
import { type Command, readOptions, type Terminal, UsageError } from './terminal.ts';

const frontDoorListen = { host: '127.0.0.1', port: 15_000 };
/** How long a start may take before the demo says what it waits for, and before it gives up. */
const patienceMs = 5_000;
const startTimeoutMs = 60_000;

interface DemoOptions {
  readonly anyPort: boolean;
  readonly directory: string;
  readonly standInsOnly: boolean;
  readonly tokenLifetimeMs: number;
}

const readDemoOptions = (args: readonly string[]): DemoOptions => {
  const { values } = readOptions(args, {
    'any-port': { type: 'boolean' },
    dir: { type: 'string' },
    only: { type: 'string' },
    'token-lifetime': { type: 'string' },
  });
  const { dir = defaultDirectory, only, 'token-lifetime': lifetime = '600' } = values;
  if (only !== undefined && only.split(',').toSorted().join() !== 'issuer,target') {
    throw new UsageError('--only takes "issuer,target": the stand-ins without the roles');
  }
  if (!/^[1-9][0-9]{0,4}$/.test(lifetime)) throw new UsageError('--token-lifetime takes a whole number of seconds, such as 600');
  if (dir === '') throw new UsageError('--dir takes a directory, such as /tmp/outrider');
  return {
    anyPort: values['any-port'] === true,
    directory: dir,
    standInsOnly: only !== undefined,
    tokenLifetimeMs: Number(lifetime) * 1000,
  };
};

/** What one run has open, and how it tells of its steps. */
interface Stage {
  readonly settings: DemoSettings;
  readonly options: DemoOptions;
  readonly closers: Closer[];
  readonly logFor: (role: string, level: DemoSettings['proxy']['log']['level']) => Log;
  readonly say: (what: string, where: string) => void;
}

const startStandIns = async ({ settings, options, closers, say }: Stage) => {
  const standInOptions = { ...options, clock: systemClock };
  const issuer = await startIssuer(settings, standInOptions);
  closers.push({ name: 'cluster issuer', close: issuer.close });
  say('cluster issuer', `${issuer.url}, projects ${settings.proxy.identity.tokenFile}`);
  const echo = await startTarget(settings, standInOptions);
  closers.push({ name: 'echo target', close: echo.close });
  say('echo target', `http://${at(echo.http)} and https://${at(echo.https)}`);
  return { issuer, echo };
};

const startRoles = async (stage: Stage) => {
  const { settings, options, closers, logFor, say } = stage;
  const { issuer, echo } = await startStandIns(stage);
  const broker = await startDemoBroker(
    attestingBy(settings.broker, issuer.url),
    logFor('broker', settings.broker.log.level),
    options.anyPort,
  );
  closers.push({ name: 'broker', close: broker.close });
  say('broker', `gRPC ${at(broker.grpc)}, issuer ${at(broker.issuer)}`);
  const collector = await startDemoCollector(settings.collector, logFor('collector', settings.collector.log.level), broker.grpc);
  closers.push({ name: 'collector', close: collector.close });
  say('collector', `gRPC ${at(collector.grpc)}, stores ${settings.collector.store.file}`);
  const peers = { broker: broker.grpc, collector: collector.grpc, echo };
  const proxy = await startDemoProxy(settings.proxy, logFor('proxy', settings.proxy.log.level), peers);
  closers.push({ name: 'proxy', close: proxy.close });
  say('proxy', `http://${at(proxy.listen)}, trust bundle ${settings.proxy.interception.bundleFile}`);
  const backend = ({ address, port }: { address: string; port: number }): Backend => ({ host: address, port });
  const backends = { proxy: backend(proxy.admin), broker: backend(broker.admin), collector: backend(collector.admin) };
  return { proxy, collector, backends };
};

/** Says every few seconds what is missing; throws when it never comes. */
const allReady = async (ready: Promise<unknown>, backends: Readonly<Record<string, Backend>>, stage: Stage): Promise<void> => {
  const deadline = performance.now() + startTimeoutMs;
  const isReady = ready.then(() => true);
  for (;;) {
    let timer: NodeJS.Timeout | undefined;
    const pause = new Promise<false>((resolvePause) => {
      timer = setTimeout(() => resolvePause(false), patienceMs);
    });
    const done = await Promise.race([isReady, pause]);
    clearTimeout(timer);
    if (done) return;
    for (const [role, backend] of Object.entries(backends)) {
      const missing = await readinessOf(backend);
      if (missing !== '') stage.say(role, missing.replaceAll('\n', '; '));
    }
    if (performance.now() > deadline) throw new DemoError(`not ready after ${startTimeoutMs / 1000} s: see the log`);
  }
};

/** The demo cannot go on; its message says why. */
class DemoError extends Error {}

const startAll = async (stage: Stage, terminal: Terminal): Promise<void> => {
  const begun = performance.now();
  const { settings, options, closers, say } = stage;
  const { proxy, collector, backends } = await startRoles(stage);
  await allReady(Promise.all([proxy.ready(), collector.ready()]), backends, stage);

  const { bundleFile } = settings.proxy.interception;
  const eventsFile = settings.collector.store.file;
  const target = settings.proxy.upstream.resolve[0]?.host ?? '';
  const eventsFileIsDefault = options.directory === defaultDirectory;
  const stepsFor = (frontDoor: string) => tour({ proxy: at(proxy.listen), frontDoor, bundleFile, eventsFile, eventsFileIsDefault, target });
  const places = { 'Forward proxy': `http://${at(proxy.listen)}`, 'Trust bundle': bundleFile, Events: eventsFile, Log: logFile(options) };
  const frontDoor = await startFrontDoor({
    ...frontDoorListen,
    ...(options.anyPort ? { port: 0 } : {}),
    backends,
    page: async () => ({ html: await statusPage({ backends, places, steps: stepsFor(at(frontDoor.address)) }), policy: pagePolicy }),
  });
  closers.push({ name: 'front door', close: frontDoor.close });
  say('front door', `http://${at(frontDoor.address)}`);

  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  terminal.print(`ready after ${seconds} s: forward proxy http://${at(proxy.listen)}, status page http://${at(frontDoor.address)}\n`);
  for (const { what, command } of stepsFor(at(frontDoor.address))) terminal.print(`${what}\n  ${command}\n`);
  terminal.print('Ctrl-C stops.');
};

const logFile = ({ directory }: DemoOptions): string => join(directory, 'demo.log');

/** The sentence for whoever started the demo, or undefined when the error is a bug. */
const startSentence = (error: unknown): string | undefined => {
  if (error instanceof ListenError) return `${error.message}\nOr run the demo on free ports: npm start -- --any-port`;
  return error instanceof DemoError ? error.message : operatorSentence(error);
};

/** Where the roles' logs go, so that the terminal keeps what the newcomer is to read. Anew at every start. */
const openLog = (options: DemoOptions): { logFor: Stage['logFor']; close: () => void } => {
  mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  const file = openSync(logFile(options), 'w', 0o600);
  const write = (line: string): void => void writeSync(file, line);
  return { logFor: (role, level) => createLog({ role, level, write }), close: () => closeSync(file) };
};

export const runDemo: Command = async (args, terminal) => {
  const options = readDemoOptions(args);
  const moved = inDirectory(readDemoSettings(), options.directory);
  const settings = options.anyPort ? onAnyPort(moved) : moved;
  const closers: Closer[] = [];
  try {
    const log = openLog(options);
    closers.push({ name: 'log', close: log.close });
    const say = (what: string, where: string): void => terminal.print(`  ${what.padEnd(15)} ${where}`);
    const stage: Stage = { settings, options, closers, logFor: log.logFor, say };
    terminal.print(`Outrider demo. Files are in ${options.directory}, the roles' logs in ${logFile(options)}.`);
    const started = options.standInsOnly
      ? startStandIns(stage).then(() => terminal.print('ready: the stand-ins; Ctrl-C stops.'))
      : startAll(stage, terminal);
    // Being asked to stop ends the start too, and how that then ends is of no interest.
    started.catch(() => {});
    await Promise.race([started.then(() => terminal.stopRequested), terminal.stopRequested]);
    terminal.print('stopping');
    return 0;
  } catch (error) {
    const sentence = startSentence(error);
    if (sentence === undefined) throw error;
    terminal.complain(sentence);
    return 1;
  } finally {
    await closeAll(closers, closeTimeoutMs, createLog({ role: 'demo', level: 'warn' }));
  }
};
