/** A test for every cell of one way in. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { underTest } from './cells.ts';
import { gitEnvironment } from './origin/git.ts';
import type { Place } from './place.ts';
import { clients, protocols } from './table.ts';

const isInstalled = async ([program, ...args]: readonly string[]): Promise<boolean> => {
  try {
    await promisify(execFile)(program as string, args);
    return true;
  } catch {
    return false;
  }
};

/**
 * `also`: what a client needs beside itself, and whether it is there. OUTRIDER_REQUIRE_CLIENTS makes a client that is not installed a
 * failure; without it (a newcomer's machine) it is left out with a word.
 */
export const matrix = (t: Test, place: Place, also: Readonly<Record<string, boolean>>): void => {
  const asGit: Place = { ...place, environment: (variables) => ({ ...gitEnvironment(place.directory), ...place.environment(variables) }) };
  for (const client of clients) {
    const { name } = client;
    for (const protocol of client[place.mode]) {
      t.test(`${name}, ${place.mode}, ${protocols[protocol]}: works unmodified`, { timeout: 120_000 }, async (t) => {
        const tested = underTest[name];
        if (!tested) throw new Error(`no test knows ${name}`);
        if (!(await isInstalled(tested.probe)) || also[name] === false) {
          t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], `${name} is installed where clients are required`);
          return t.comment(`${name} is not installed here: left out`);
        }
        place.origin.taken();
        await tested.cell(t, name === 'git' ? asGit : place, client, protocol);
      });
    }
  }
};
