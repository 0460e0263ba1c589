/** What a command may do with the terminal: two streams and the request to stop. Commands never touch `process` themselves. */
import { parseArgs } from 'node:util';

export interface Terminal {
  /** A line for the person or program that reads the output. */
  readonly print: (line: string) => void;
  /** A line on standard error. */
  readonly complain: (line: string) => void;
  /** Settles at the first SIGINT or SIGTERM. */
  readonly stopRequested: Promise<void>;
  /** For a command that stands in for another program: from now on it is told of every signal, and nothing else is done with them. */
  readonly standIn?: (listeners: StandIn) => Readonly<NodeJS.ProcessEnv>;
}

export interface StandIn {
  readonly signal: (signal: NodeJS.Signals) => void;
  /** The process ends now, be it by a bug; only what is done at once is done. */
  readonly exit: () => void;
}

/** Runs until done or asked to stop; yields the exit status. Throws UsageError for arguments that make no sense. */
export type Command = (args: readonly string[], terminal: Terminal) => Promise<number>;

/** Wrong arguments: a sentence that says what to write, and exit status 2. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'UsageError';
  }
}

type OptionShapes = Readonly<Record<string, { readonly type: 'string' | 'boolean'; readonly multiple?: boolean }>>;

/** `--name value` options and no positional arguments, unless `positionals` says that there may be some. */
export const readOptions = <const O extends OptionShapes>(args: readonly string[], options: O, { positionals = false } = {}) => {
  try {
    return parseArgs({ args: [...args], options, strict: true, allowPositionals: positionals });
  } catch (error) {
    // parseArgs' own messages explain "--" and "-" at length; the first sentence is what is wrong.
    throw new UsageError((error as Error).message.split('. ', 1)[0] as string);
  }
};
