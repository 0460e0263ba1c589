/** git over smart HTTP: a clone, a push of more than git buffers (so that it is sent chunked), and a fetch that finds it. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Cell } from '../cells.ts';
import { hosts, runIn } from '../place.ts';
import { credentialsOf } from './credential.ts';

export const gitCell: Cell = async (t, place, client, protocol) => {
  const directory = mkdtempSync(join(place.directory, 'git-'));
  const git = async (cwd: string, ...args: string[]): Promise<string> =>
    (await runIn(place, client.variables, ['git', ...args], cwd)).stdout.trim();
  const url = `${protocol}://${hosts.api}/git/demo.git`;
  const [first, second] = [join(directory, 'first'), join(directory, 'second')];
  const branch = `${place.mode}-${protocol}`;

  await git(directory, 'clone', '--quiet', url, first);
  await git(directory, 'clone', '--quiet', url, second);
  const seed = await git(first, 'rev-parse', 'HEAD');
  writeFileSync(join(first, 'large'), randomBytes(3 * 1_048_576));
  await git(first, 'checkout', '--quiet', '-b', branch);
  await git(first, 'add', 'large');
  await git(first, 'commit', '--quiet', '--message=Large');
  await git(first, 'push', '--quiet', 'origin', branch);
  await git(second, 'fetch', '--quiet', 'origin', branch);

  const pushed = await git(first, 'rev-parse', 'HEAD');
  t.not(pushed, seed);
  t.equal(await git(second, 'rev-parse', 'FETCH_HEAD'), pushed, 'what was pushed came back');
  await git(second, 'fsck', '--full');
  const methods = new Set(credentialsOf(t, place.origin).map(({ method, path }) => `${method} ${path.replace(/\?.*/, '')}`));
  t.ok(methods.has('POST /git/demo.git/git-upload-pack') && methods.has('POST /git/demo.git/git-receive-pack'));
};
