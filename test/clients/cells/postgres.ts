/** psql: a destination that no target names. What it exchanges with a real server is untouched, TLS to the server's own certificate included. */
import { createHash } from 'node:crypto';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Test } from 'tap';
import type { Cell } from '../cells.ts';
import { hosts, type Place, runIn } from '../place.ts';
import { programs } from '../prepare.ts';
import { postgresPort, user } from '../postgres.ts';

/** libpq can be told of no proxy: a port of this machine whose connections become CONNECT. */
const bridge = async (t: Test, place: Place): Promise<number> => {
  const [program, ...args] = place.within([process.execPath, `${programs}/connect-bridge.mjs`, `${hosts.db}:${postgresPort}`]) as [string];
  const child: ChildProcess = spawn(program, args, { env: place.environment([]), stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => void child.kill());
  const [port] = (await once(child.stdout as NonNullable<ChildProcess['stdout']>, 'data')) as [Buffer];
  return Number(port.toString());
};

export const postgresCell: Cell = async (t, place, client, protocol) => {
  const isSecure = protocol === 'postgres-tls';
  const way = place.mode === 'explicit' ? `hostaddr=127.0.0.1 port=${await bridge(t, place)}` : `port=${postgresPort}`;
  const trust = isSecure ? `sslmode=verify-full sslrootcert=${place.originCaFile}` : 'sslmode=disable';
  const query = async (sql: string): Promise<string> => {
    const connection = `host=${hosts.db} ${way} user=${user} dbname=postgres ${trust} connect_timeout=20 gssencmode=disable`;
    const command = [
      'psql',
      '--no-psqlrc',
      '--no-password',
      '--tuples-only',
      '--no-align',
      '--set=ON_ERROR_STOP=1',
      '--command',
      sql,
      connection,
    ];
    return (await runIn(place, client.variables, command)).stdout;
  };
  const secure = await query('select ssl::text from pg_stat_ssl where pid = pg_backend_pid()');
  t.equal(secure.trim(), String(isSecure), 'as the server sees it');
  const rows = await query("select n || ':' || repeat(md5(n::text), 100) from generate_series(1, 2000) n");
  const own = Array.from(
    { length: 2000 },
    (_, i) =>
      `${i + 1}:${createHash('md5')
        .update(`${i + 1}`)
        .digest('hex')
        .repeat(100)}\n`,
  ).join('');
  t.equal(createHash('sha256').update(rows).digest('hex'), createHash('sha256').update(own).digest('hex'), 'six megabytes, unharmed');
  t.same(place.origin.taken(), [], 'nothing else was called');
};
