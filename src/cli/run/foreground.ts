/**
 * Whether this process belongs to the foreground of a terminal. A terminal sends SIGINT and SIGQUIT to every process there, so the
 * command that we started has had the signal too; sent by a program, it came to us alone.
 */
import { readFileSync } from 'node:fs';
import { isatty } from 'node:tty';

export const isInForeground = (): boolean => {
  try {
    // proc(5): after the name in brackets come state, parent, process group, session, terminal and the terminal's foreground group.
    const fields = readFileSync('/proc/self/stat', 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    const [, , group, , terminal, foreground] = fields.map(Number);
    return terminal !== 0 && group === foreground;
  } catch {
    // No such file system: a terminal at one of the streams is a good guess.
    return [0, 1, 2].some((fd) => isatty(fd));
  }
};
