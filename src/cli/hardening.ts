/**
 * What would let others read the memory of a role, or what it says over TLS: looked for at the start, before there is a credential, and
 * refused in one sentence each. Whoever sets the environment of a production role could do worse; this is against leftovers of a
 * debugging session, and against defaults. The demo holds nothing of worth, and is where to debug.
 */
import { url as inspectorUrl } from 'node:inspector';
import { processLimits } from '../ops/process-limits.ts';

export interface ProcessFacts {
  /** Node's own options, from the command line and from NODE_OPTIONS. */
  readonly options: readonly string[];
  readonly environment: Readonly<NodeJS.ProcessEnv>;
  readonly isInspected: boolean;
  readonly report: Pick<NodeJS.ProcessReport, 'reportOnSignal' | 'reportOnFatalError' | 'reportOnUncaughtException'>;
  /** Bytes of a core file; undefined where that is not known. */
  readonly coreBytes: number | undefined;
}

/** Option → what it would do. */
const dangerous: Readonly<Record<string, string>> = {
  '--inspect': 'opens a debugger to every program of the pod',
  '--inspect-brk': 'opens a debugger to every program of the pod',
  '--inspect-wait': 'opens a debugger to every program of the pod',
  '--heapsnapshot-signal': 'writes the memory to a file',
  '--heapsnapshot-near-heap-limit': 'writes the memory to a file',
  '--heap-prof': 'writes samples of the memory to a file',
  '--report-on-signal': 'writes the environment to a file',
  '--report-on-fatalerror': 'writes the environment to a file',
  '--report-uncaught-exception': 'writes the environment to a file',
  '--abort-on-uncaught-exception': 'writes a core file',
  '--tls-keylog': 'writes the keys of every TLS connection to a file',
  '--trace-tls': 'writes what is said over TLS to standard error',
  // In two parts: no file of ours is to name options of this kind but here.
  [['--insec', 'ure-http-parser'].join('')]: 'accepts requests that can be read in two ways',
};

const unverified = ['NODE_TLS_REJECT', 'UNAUTHORIZED'].join('_');

/** Parts of Node that print what passes through them. */
const talkative = /(?:^|[\s,])(?:https?|http2|net|tls|stream|undici|fetch|[^\s,]*\*)(?:$|[\s,])/i;

/** A sentence for each reason not to start. */
export const exposures = ({ options, environment, isInspected, report }: ProcessFacts): readonly string[] => {
  const named = options.map((option) => (option.split('=', 1)[0] as string).replaceAll('_', '-'));
  const found = Object.entries(dangerous).filter(([option]) => named.includes(option));
  const isOpen = isInspected && !found.some(([option]) => option.startsWith('--inspect'));
  const reports = [report.reportOnSignal, report.reportOnFatalError, report.reportOnUncaughtException].includes(true);
  const debug = environment['NODE_DEBUG'] ?? '';
  return [
    ...found.map(([option, does]) => `Node's option ${option} ${does}: take it off the command line or out of NODE_OPTIONS.`),
    ...(isOpen ? ['A debugger is open: start without one.'] : []),
    ...(reports && !found.some(([option]) => option.startsWith('--report')) ? ['Diagnostic reports are on: start without them.'] : []),
    ...(environment[unverified] === '0' ? [`${unverified}=0 turns the verification of certificates off: unset it.`] : []),
    ...(debug !== '' && talkative.test(debug) ? ['NODE_DEBUG prints what is sent and received: unset it.'] : []),
  ];
};

/** A sentence where the system may write a core file; undefined where it will not, or where that is not known. */
export const coreWarning = ({ coreBytes }: Pick<ProcessFacts, 'coreBytes'>): string | undefined =>
  coreBytes === undefined || coreBytes === 0
    ? undefined
    : 'if this process crashed, the system could write its memory, and so its credentials, to a core file: start it with a core limit of 0 (ulimit -c 0, LimitCORE=0, docker run --ulimit core=0).';

/** NODE_OPTIONS as Node reads it: parted at spaces, where double quotes hold words together and a backslash in them takes the next as it is. */
export const wordsOf = (nodeOptions: string): readonly string[] =>
  [...nodeOptions.matchAll(/(?:"(?:\\[^]|[^"\\])*"?|[^ "])+/g)].map(([word]) =>
    word.replaceAll(/"((?:\\[^]|[^"\\])*)"?/g, (_whole, quoted: string) => quoted.replaceAll(/\\([^])/g, '$1')),
  );

export const processFacts = (): ProcessFacts => ({
  options: [...process.execArgv, ...wordsOf(process.env['NODE_OPTIONS'] ?? '')],
  environment: process.env,
  isInspected: inspectorUrl() !== undefined,
  report: process.report,
  coreBytes: processLimits()?.coreBytes,
});

/** SIGUSR1 opens Node's debugger, unless the image's option says that it does not, or somebody listens. */
export const ignoreDebuggerSignal = ({ options }: Pick<ProcessFacts, 'options'>): void => {
  if (!options.includes('--disable-sigusr1')) process.on('SIGUSR1', () => undefined);
};
