/** What is particular to the embedded store: files, modes, damage, versions, and one broker at a time. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import t, { type Test } from 'tap';
import { openStore, StoreError } from '../../src/broker/store.ts';
import { Secret } from '../../src/core/secret.ts';

const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);
const fileIn = (directory: string): string => join(directory, 'broker.sqlite');
const key = (kid: string) => ({ kid, algorithm: 'ES256', privateKeyPem: new Secret('pem'), publishedFromMs: 1, signsFromMs: 2 }) as const;

const messageOf = async (directory: string): Promise<string> => {
  try {
    await (await openStore(directory)).close();
    return 'opened';
  } catch (error) {
    return error instanceof StoreError ? error.message : `not a StoreError: ${String(error)}`;
  }
};

/** A broker in a process of its own: opens the store, does `body`, and says so on standard output. */
const inAnotherProcess = (directory: string, body: string) => {
  const module = JSON.stringify(new URL('../../src/broker/store.ts', import.meta.url).href);
  const secret = JSON.stringify(new URL('../../src/core/secret.ts', import.meta.url).href);
  const script = `const { openStore } = await import(${module}); const { Secret } = await import(${secret});
    const store = await openStore(${JSON.stringify(directory)}); ${body}`;
  return spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'pipe'] });
};

t.test('directory and files are for the owner alone, whatever the umask and whatever they were before', async (t) => {
  const before = process.umask(0);
  t.teardown(() => process.umask(before));
  const made = join(t.testdir(), 'a', 'state');
  const open = join(t.testdir({ open: {} }), 'open');
  mkdirSync(open, { recursive: true });
  writeFileSync(fileIn(open), '');
  chmodSync(open, 0o777);
  chmodSync(fileIn(open), 0o666);
  for (const directory of [made, open]) {
    const store = await openStore(directory);
    await store.changeSigningKeys(async () => [key('a')]);
    t.equal(mode(directory), '700');
    const files = readdirSync(directory);
    t.same(files.toSorted(), ['broker.sqlite', 'broker.sqlite-wal']);
    for (const file of files) t.equal(mode(join(directory, file)), '600', file);
    await store.close();
  }
});

t.test('a second broker on the same state is refused while the first one runs, and opens after it', async (t) => {
  const directory = t.testdir();
  const first = inAnotherProcess(directory, "process.stdout.write('open'); process.stdin.resume();");
  t.teardown(() => first.kill('SIGKILL'));
  await once(first.stdout, 'data');
  t.match(await messageOf(directory), /is in use: another broker runs on this state directory/);
  first.kill('SIGKILL');
  await once(first, 'close');
  t.equal(await messageOf(directory), 'opened');
});

t.test('what was saved is there after the process was killed', async (t) => {
  const directory = t.testdir();
  const body = `await store.changeSigningKeys(async () => [{ kid: 'kept', algorithm: 'ES256', privateKeyPem: new Secret('pem'), publishedFromMs: 1, signsFromMs: 2 }]);
    await store.saveLease({ grantId: 'g', workload: 'w', target: 't', policy: 'p', policyVersion: 'v', rule: 'r', createdAtMs: 1, expiresAtMs: 9 });
    process.stdout.write('saved'); process.stdin.resume();`;
  const child = inAnotherProcess(directory, body);
  await once(child.stdout, 'data');
  child.kill('SIGKILL');
  await once(child, 'close');
  const store = await openStore(directory);
  t.same(
    (await store.signingKeys()).map(({ kid }) => kid),
    ['kept'],
  );
  t.equal(await store.countLeases(1), 1);
  await store.close();
});

t.test('opening a store prints nothing, no warning of an experiment among it', async (t) => {
  const child = inAnotherProcess(t.testdir(), 'await store.close();');
  let printed = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (printed += text));
  t.same(await once(child, 'close'), [0, null]);
  t.equal(printed, '');
});

t.test('a file that is no database, or is cut or overwritten in the middle, is called damaged and left as it is', async (t) => {
  const saved = async (t: Test): Promise<string> => {
    const directory = t.testdir();
    const store = await openStore(directory);
    await store.changeSigningKeys(async () => Array.from({ length: 200 }, (_, i) => key(`key ${i} ${'x'.repeat(200)}`)));
    await store.close();
    return directory;
  };
  const damages: Record<string, (bytes: Buffer) => Buffer> = {
    text: () => Buffer.from('not a database, but long enough to be read as one '.repeat(100)),
    cut: (bytes) => bytes.subarray(0, Math.floor(bytes.length / 2)),
    'overwritten in its last page': (bytes) => Buffer.concat([bytes.subarray(0, -4_096), Buffer.alloc(4_096, 0xa5)]),
    overwritten: (bytes) => Buffer.concat([bytes.subarray(0, 4_096), Buffer.alloc(bytes.length - 4_096, 0xa5)]),
  };
  for (const [name, damage] of Object.entries(damages)) {
    await t.test(name, async (t) => {
      const directory = await saved(t);
      const damaged = damage(readFileSync(fileIn(directory)));
      writeFileSync(fileIn(directory), damaged);
      t.match(await messageOf(directory), /broker\.sqlite is damaged: restore it from a copy, or move it away and restart/);
      t.ok(readFileSync(fileIn(directory)).equals(damaged));
    });
  }
});

t.test('a store written by a newer version is refused, unchanged, with what to do', async (t) => {
  const directory = t.testdir();
  await (await openStore(directory)).close();
  const database = new DatabaseSync(fileIn(directory));
  database.exec('UPDATE schema_version SET version = 7');
  database.close();
  t.match(await messageOf(directory), /was written by a newer Outrider \(schema 7; this one knows 2\): run that version/);
  const after = new DatabaseSync(fileIn(directory));
  t.equal(after.prepare('SELECT version FROM schema_version').get()?.['version'], 7);
  after.close();
});

t.test('the authority that a store of the first version has is kept, and signs', async (t) => {
  const directory = t.testdir();
  const { migrations } = await import('../../src/broker/store/schema.ts');
  const before = new DatabaseSync(fileIn(directory));
  before.exec('CREATE TABLE schema_version (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL) STRICT');
  before.exec(migrations[0] as string);
  before.exec("INSERT INTO schema_version VALUES (1, 1); INSERT INTO authority VALUES (1, 'certificate', 'key')");
  before.close();
  for (const time of ['first', 'second']) {
    const store = await openStore(directory);
    t.match(await store.authorities(), [{ certificatePem: 'certificate', signsFromMs: 0 }], `opened a ${time} time`);
    t.equal((await store.authorities())[0]?.privateKeyPem.reveal(), 'key');
    await store.close();
  }
});

t.test('a state directory that cannot be one is refused with what to do', async (t) => {
  const directory = t.testdir({ file: 'x', state: {} });
  t.match(await messageOf(join(directory, 'file')), /cannot be used as the broker's state directory \(EEXIST\)/);
  symlinkSync('/nowhere/else', join(directory, 'state', 'broker.sqlite'));
  t.match(await messageOf(join(directory, 'state')), /is not a regular file: move it away/);
  t.notOk(existsSync('/nowhere'));
});
