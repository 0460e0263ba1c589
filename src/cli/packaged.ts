/** Files that come with the program, from the source tree and from the bundle alike: dist/ has copies of them beside its chunks. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The absolute path of `name` (such as `config/demo/proxy.yaml`) in the nearest directory above this file that has it. */
export const packagedFile = (name: string): string => {
  let directory = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(directory, name))) {
    const above = dirname(directory);
    if (above === directory) throw new Error(`${name} is missing from this installation of Outrider`);
    directory = above;
  }
  return join(directory, name);
};
