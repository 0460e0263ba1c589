import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t, { type Test } from 'tap';
import { directoryOf } from '../support/directory.ts';
import { programsFor, type Trust, trustIn } from './interception/programs.ts';

// A first Go build compiles the standard library.
t.setTimeout(300_000);

const known = ['echo.outrider.test', 'localhost', '127.0.0.1', '::1'] as const;
const later = 'later.outrider.test';

interface Served {
  /** Host → port. */
  readonly ports: Readonly<Record<string, number>>;
  /** As a crash ends it: nothing is tidied up. */
  readonly kill: () => Promise<void>;
}

const startServing = async (t: Test, directory: string, hosts: readonly string[]): Promise<Served> => {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'interception/serve.ts'), directory, ...hosts], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exited;
  };
  t.teardown(kill);
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return { ports: JSON.parse(line) as Record<string, number>, kill };
};

const copyOf = (directory: string, name: string): Trust => {
  cpSync(join(directory, 'public'), join(directory, name), { recursive: true });
  return trustIn(join(directory, name));
};

t.test('programs trust what they are told to trust by their own variable or flag, before and after the proxy is killed', async (t) => {
  const directory = directoryOf(t);
  const programs = programsFor(t, directory);
  const site = ({ ports }: Served, host: string): { host: string; port: number } => ({ host, port: ports[host] as number });

  const strangers = await startServing(t, join(directory, 'stranger'), known);
  const before = await startServing(t, directory, known);
  const read = copyOf(directory, 'read-before');

  for (const { name, isServed } of programs) {
    for (const host of known) {
      const { ok, output } = await isServed(read, site(before, host));
      t.ok(ok, `${name}: ${host}`, { output });
    }
    const { ok, output } = await isServed(read, site(strangers, 'echo.outrider.test'));
    t.notOk(ok, `${name} refuses another authority for the same host`);
    t.match(output, /certif/i, 'for its certificate');
  }

  await before.kill();
  const after = await startServing(t, directory, [...known, later]);
  const readAgain = copyOf(directory, 'read-after');
  for (const { name, isServed, heedsConstraints } of programs) {
    for (const host of ['echo.outrider.test', '::1']) {
      const { ok, output } = await isServed(read, site(after, host));
      t.ok(ok, `${name} goes on with what it read before the restart: ${host}`, { output });
    }
    const tooEarly = await isServed(read, site(after, later));
    t.equal(tooEarly.ok, !heedsConstraints, `${name}: a host that came later needs the bundle of then`, { output: tooEarly.output });
    if (heedsConstraints) t.match(tooEarly.output, /permitted|certificate verification failed/, 'for its constraints');
    const { ok, output } = await isServed(readAgain, site(after, later));
    t.ok(ok, `${name} reaches it with what it reads now`, { output });
  }
});
