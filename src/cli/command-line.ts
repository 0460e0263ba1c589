/** `outrider run … COMMAND …`: where our own words end and those of another program begin. Loaded with every command: keep it small. */

/** Options of `run` that take the next word. */
const valued: readonly string[] = ['--config', '--ready-timeout'];

/** As env, timeout and container runtimes say that they failed before the command was started. */
export const notRunStatus = 125;

export interface RunWords {
  readonly own: readonly string[];
  /** The program and its arguments, untouched; empty when there is none. */
  readonly command: readonly string[];
}

/** Options end at `--`, which is dropped, or at the first word that is none. */
export const splitAtCommand = (args: readonly string[]): RunWords => {
  let end = 0;
  while (end < args.length && args[end] !== '--' && args[end]?.startsWith('-')) end += valued.includes(args[end] as string) ? 2 : 1;
  return { own: args.slice(0, end), command: args.slice(args[end] === '--' ? end + 1 : end) };
};
