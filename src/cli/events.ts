/**
 * `outrider events`: prints recorded access events from the collector's store, one JSON object a line, as they stand there.
 * Reads the file as a stream in constant memory; holds no secret because the store holds none. Not a query engine: filters look
 * at one event at a time.
 */
import { escapeUnprintable } from '../collector/event-json.ts';
import { nearest } from '../settings/nearest.ts';
import { type EventFilter, matcherOf, parseDuration } from './events/filter.ts';
import { type Output, printer } from './events/print.ts';
import { MissingFile, tail } from './events/tail.ts';
import { commandHelp } from './help.ts';
import { type Command, readOptions, UsageError } from './terminal.ts';

const options = {
  file: { type: 'string' },
  follow: { type: 'boolean' },
  limit: { type: 'string' },
  since: { type: 'string' },
  workload: { type: 'string' },
  target: { type: 'string' },
  kind: { type: 'string' },
  request: { type: 'string' },
} as const;

const defaultFile = '.outrider/demo/events.jsonl';
const kinds = ['intent', 'outcome', 'refusal', 'pass', 'loss'];
const limitMax = 10_000;

type Complaints = { write(text: string): unknown };

/** Events go to standard output itself, which says when it is full or gone. */
export const runEvents: Command = (args, terminal) => {
  const stop = new AbortController();
  void terminal.stopRequested.then(() => stop.abort());
  return events(args, process.stdout, stop.signal, { write: (text) => terminal.complain(text.trimEnd()) });
};

/**
 * Exit code: 0 when done, 1 when there is nothing to read, 2 for a command line that is not understood. Events go to `out`, all
 * other words to `err`. Ends early when `signal` aborts or when nobody reads `out` any more.
 */
export const events = async (
  argv: readonly string[],
  out: Output,
  signal?: AbortSignal,
  err: Complaints = process.stderr,
): Promise<number> => {
  try {
    if (argv.includes('--help') || argv.includes('-h')) {
      await printer(out).print(`${commandHelp('events')}\n`);
      return 0;
    }
    return await show(read(argv), out, err, signal);
  } catch (error) {
    if (error instanceof UsageError) {
      err.write(`outrider events: ${error.message}.\nSee "outrider events --help".\n`);
      return 2;
    }
    if (error instanceof MissingFile) {
      err.write(`outrider events: ${error.message}\n`);
      return 1;
    }
    throw error;
  }
};

interface Request {
  readonly file: string;
  readonly follow: boolean;
  readonly limit: number | undefined;
  readonly filter: EventFilter;
}

const show = async (request: Request, out: Output, err: Complaints, signal?: AbortSignal): Promise<number> => {
  const { print, closed, release } = printer(out);
  const ended = AbortSignal.any([closed, ...(signal ? [signal] : [])]);
  const matches = matcherOf(request.filter);
  /** The last matching lines, until the end of what is there now; undefined once they are printed. */
  let held: string[] | undefined = request.limit === undefined ? undefined : [];
  let unreadable = 0;
  try {
    await tail(request.file, request.follow, ended, {
      line: async (line) => {
        const verdict = line === undefined ? 'unreadable' : matches(line);
        if (verdict === 'unreadable') unreadable += 1;
        if (verdict !== 'matches') return;
        const text = `${escapeUnprintable(line as string)}\n`;
        if (held === undefined) await print(text);
        else if (held.push(text) > (request.limit as number)) held.shift();
      },
      caughtUp: async () => {
        for (const text of held ?? []) await print(text);
        held = undefined;
        if (unreadable > 0) err.write(`outrider events: ${unreadable} lines of ${request.file} are not events and were skipped.\n`);
        unreadable = 0;
      },
    });
    return 0;
  } finally {
    release();
  }
};

const read = (argv: readonly string[]): Request => {
  const { file = defaultFile, follow = false, limit, since, workload, target, kind, request } = parsed(argv);
  const count = limit === undefined ? undefined : Number(limit);
  if (count !== undefined && !(Number.isInteger(count) && count >= 1 && count <= limitMax)) {
    throw new UsageError(`--limit ${JSON.stringify(limit)} is not a number from 1 to ${limitMax}`);
  }
  const sinceMs = since === undefined ? undefined : parseDuration(since);
  if (since !== undefined && sinceMs === undefined) {
    throw new UsageError(`--since ${JSON.stringify(since)} is not a duration: write a number and s, m, h or d, for example 15m`);
  }
  if (kind !== undefined && !kinds.includes(kind)) {
    throw new UsageError(`--kind ${JSON.stringify(kind)} is none: write one of ${kinds.join(', ')}`);
  }
  const notBeforeMs = sinceMs === undefined ? undefined : Date.now() - sinceMs;
  return { file, follow, limit: count, filter: { notBeforeMs, workload, target, kind, requestId: request } };
};

const parsed = (argv: readonly string[]) => {
  try {
    return readOptions(argv, options).values;
  } catch (error) {
    const unknown = /^Unknown option '(--?[^']*)'/.exec((error as Error).message)?.[1];
    const meant = unknown === undefined ? undefined : nearest(unknown, Object.keys(options));
    throw meant === undefined ? error : new UsageError(`${(error as Error).message}; did you mean --${meant}`);
  }
};
