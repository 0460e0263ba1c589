/** A real PostgreSQL server for one test file: its own cluster, its own certificate, run by a user that is not root. */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { eventually } from '../support/stack.ts';
import type { TestAuthority } from '../support/certificates.ts';
import { hosts } from './place.ts';

/** What clients ask for. */
export const postgresPort = 5432;
export const user = 'tester';

/** Debian keeps the server's programs off the path. */
const binaries = (): string | undefined => {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).toSorted((a, b) => Number(b) - Number(a)) : [];
  return versions.map((version) => join(root, version, 'bin')).find((directory) => existsSync(join(directory, 'initdb')));
};

/** `nobody`, where this runs as root, which PostgreSQL refuses. */
const owner = (): { readonly uid: number; readonly gid: number } | undefined => {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string): number => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
};

/** Listens on `host`; undefined where no server is installed. */
export const startPostgres = async (t: Test, o: { host: string; port: number; authority: TestAuthority }): Promise<boolean> => {
  const bin = binaries();
  if (bin === undefined) return false;
  const as = owner();
  const directory = mkdtempSync(join(tmpdir(), 'outrider-postgres-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const own = (path: string): void => (as ? chownSync(path, as.uid, as.gid) : undefined);
  own(directory);
  const data = join(directory, 'data');
  const options = { ...as, cwd: directory, env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' } };
  const settings = ['--auth=trust', `--username=${user}`, '--no-sync', '--no-instructions', '--encoding=UTF8'];
  await promisify(execFile)(join(bin, 'initdb'), [`--pgdata=${data}`, ...settings], options);
  writeFileSync(join(data, 'pg_hba.conf'), `host all ${user} all trust\n`);
  const { cert, key } = o.authority.serverFor(hosts.db);
  for (const [name, text] of Object.entries({ 'server.crt': cert, 'server.key': key })) {
    writeFileSync(join(data, name), text, { mode: 0o600 });
    own(join(data, name));
  }
  const flags = [`listen_addresses=${o.host}`, `port=${o.port}`, 'unix_socket_directories=', 'ssl=on', 'fsync=off'];
  const server = spawn(join(bin, 'postgres'), ['-D', data, ...flags.flatMap((flag) => ['-c', flag])], {
    ...options,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  server.stderr.on('data', (chunk: Buffer) => (said += chunk));
  const ended = once(server, 'exit');
  // Where the tests break off, their teardown is not reached.
  const kill = (): void => void server.kill('SIGQUIT');
  process.once('exit', kill);
  t.teardown(async () => {
    // Fast shutdown: connections are ended.
    server.kill('SIGINT');
    await ended;
    process.off('exit', kill);
  });
  await eventually(() => {
    if (server.exitCode !== null) throw new Error(said);
    return said.includes('ready to accept connections');
  });
  return true;
};
