/** The event store on a real disk, and on one that fails as the test says. */
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { openStore } from '../../src/collector/store.ts';
import { openStoreFile, type StoreFile } from '../../src/collector/store/file.ts';
import type { Recorded } from '../../src/collector/store/recover.ts';
import { limits } from '../../src/core/limits.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { logLines } from './log-lines.ts';

const line = (sequence: number, bootId = 'boot-1'): string => JSON.stringify({ kind: 'intent', reporter: 'r', bootId, sequence });
const lines = (text: string): string[] => text.split('\n').filter((l) => l !== '');

/** A real file that can be told to fail, and counts what is asked of it. */
const failingFiles = () => {
  const state = { appends: 0, syncs: 0, appendError: '', partialBytes: 0, syncError: '', truncateError: '', probeError: '' };
  const fail = (code: string): never => {
    throw Object.assign(new Error(`${code}: as the test says`), { code });
  };
  const open = async (path: string): Promise<StoreFile> => {
    const file = await openStoreFile(path);
    return {
      ...file,
      append: async (bytes) => {
        state.appends += 1;
        if (state.appendError !== '') {
          await file.append(bytes.subarray(0, state.partialBytes));
          fail(state.appendError);
        }
        await file.append(bytes);
      },
      sync: async () => {
        state.syncs += 1;
        if (state.syncError !== '') fail(state.syncError);
        await file.sync();
      },
      truncate: async (length) => {
        if (state.truncateError !== '') fail(state.truncateError);
        await file.truncate(length);
      },
      probe: async () => {
        if (state.probeError !== '') fail(state.probeError);
        await file.probe();
      },
    };
  };
  return { state, open };
};

const setUp = async (path: string, { state, open } = failingFiles()) => {
  const clock = createFakeClock();
  const { lines: logged, log } = logLines();
  const recorded: Recorded[] = [];
  const store = await openStore({ file: path, clock, log, open, onRecorded: (r) => void recorded.push(r) });
  const read = (): string => readFileSync(path, 'utf8');
  const waitFor = async (is: () => boolean): Promise<void> => {
    while (!is()) await turn();
  };
  return { store, state, clock, logged, recorded, read, waitFor };
};

t.test('lines are in the file when append resolves; the file is for its owner alone', async (t) => {
  const path = join(t.testdir(), 'deep', 'er', 'events.jsonl');
  const { store, read } = await setUp(path);
  await store.append([line(1), line(2)]);
  t.equal(read(), `${line(1)}\n${line(2)}\n`);
  t.equal(statSync(path).mode & 0o777, 0o600);
  t.equal(statSync(join(path, '..')).mode & 0o777, 0o700);
  t.equal(statSync(join(path, '..', '..')).mode & 0o777, 0o700);
  await store.close();
});

t.test('a file that others could read is closed to them', async (t) => {
  const path = join(t.testdir({ 'events.jsonl': '' }), 'events.jsonl');
  chmodSync(path, 0o644);
  const { store } = await setUp(path);
  t.equal(statSync(path).mode & 0o777, 0o600);
  await store.close();
});

t.test('what waits while one batch is synced shares the next sync', async (t) => {
  const { store, state, read } = await setUp(join(t.testdir(), 'events.jsonl'));
  const before = state.syncs;
  await Promise.all(Array.from({ length: 50 }, (_, i) => store.append([line(i + 1)])));
  t.ok(state.syncs - before <= 2, `${state.syncs - before} syncs for 50 batches`);
  t.equal(lines(read()).length, 50);
  await store.close();
});

t.test('a following append made as soon as one resolves is never left waiting', async (t) => {
  const { store, read } = await setUp(join(t.testdir(), 'events.jsonl'));
  const chain = async (bootId: string): Promise<void> => {
    for (let i = 1; i <= 50; i += 1) await store.append([line(i, bootId)]);
  };
  await Promise.all([chain('a'), chain('b'), chain('c')]);
  t.equal(lines(read()).length, 150);
  await store.close();
});

t.test('at start the file is read; a line that was being written is cut off and reported', async (t) => {
  const path = join(t.testdir(), 'events.jsonl');
  const whole = `${line(1)}\n${line(2)}\n`;
  for (const rest of [line(3), line(3).slice(0, 20), '{', '\0'.repeat(4096)]) {
    writeFileSync(path, whole + rest);
    const { store, recorded, read, logged } = await setUp(path);
    t.same(
      recorded.map((r) => r.sequence),
      [1, 2],
    );
    t.equal(read(), whole);
    t.match(
      logged.find((l) => String(l['message']).includes('middle of a line')),
      { bytes: rest.length, level: 'warn' },
    );
    await store.append([line(3)]);
    t.equal(read(), `${whole}${line(3)}\n`);
    await store.close();
  }
});

t.test('lines that are no events stay, are skipped and reported', async (t) => {
  const path = join(t.testdir(), 'events.jsonl');
  writeFileSync(path, `${line(1)}\nnot json\n\n[1]\n{"reporter":"r","bootId":"b","sequence":"1"}\nnull\n${line(2)}\n`);
  const { store, recorded, logged } = await setUp(path);
  t.same(
    recorded.map((r) => r.sequence),
    [1, 2],
  );
  t.match(
    logged.find((l) => String(l['message']).includes('not events')),
    { lines: 4 },
  );
  await store.close();
});

t.test('a file larger than any buffer is read as a stream, lines across chunks included', async (t) => {
  const path = join(t.testdir(), 'events.jsonl');
  const padded = (i: number): string => JSON.stringify({ pad: 'x'.repeat(i % 3000), reporter: 'r', bootId: 'b', sequence: i });
  writeFileSync(path, Array.from({ length: 2000 }, (_, i) => `${padded(i + 1)}\n`).join(''));
  const { store, recorded } = await setUp(path);
  t.same(
    recorded.map((r) => r.sequence),
    Array.from({ length: 2000 }, (_, i) => i + 1),
  );
  await store.close();
});

for (const [name, partialBytes] of [
  ['nothing', 0],
  ['half a line', 25],
  ['a whole line and a half', 90],
] as const) {
  t.test(
    `a disk that is full after ${name} was written: the batch is not stored, readiness says so, and it recovers without traffic`,
    async (t) => {
      const path = join(t.testdir(), 'events.jsonl');
      const { store, state, clock, read, waitFor, logged } = await setUp(path);
      await store.append([line(1)]);
      state.appendError = state.probeError = 'ENOSPC';
      state.partialBytes = partialBytes;
      await t.rejects(store.append([line(2), line(3), line(4)]), { name: 'Fault', code: 'event_store_failed', cause: { code: 'ENOSPC' } });
      await t.rejects(store.append([line(2)]), { code: 'event_store_failed' });
      t.equal(store.problem(), 'ENOSPC');
      clock.advance(limits.eventStoreRetryMs);
      await waitFor(() => clock.waiting() > 0);
      t.equal(store.problem(), 'ENOSPC', 'still full');
      t.equal(logged.filter((l) => l['level'] === 'error').length, 1, 'said once');
      state.appendError = state.probeError = '';
      clock.advance(limits.eventStoreRetryMs);
      await waitFor(() => store.problem() === undefined);
      await store.append([line(2), line(3)]);
      t.equal(read(), `${line(1)}\n${line(2)}\n${line(3)}\n`, 'nothing of what failed is left');
      await store.close();
    },
  );
}

t.test('a sync that fails stores nothing: what was written is cut off before the next line', async (t) => {
  const path = join(t.testdir(), 'events.jsonl');
  const { store, state, read } = await setUp(path);
  await store.append([line(1)]);
  state.syncError = 'EIO';
  await t.rejects(Promise.all([store.append([line(2)]), store.append([line(3)])]), { code: 'event_store_failed' });
  state.syncError = '';
  state.truncateError = 'EIO';
  await t.rejects(store.append([line(2)]), { code: 'event_store_failed' }, 'nor is anything written behind what could not be cut');
  state.truncateError = '';
  await store.append([line(2)]);
  t.equal(read(), `${line(1)}\n${line(2)}\n`);
  await store.close();
});

t.test('a file that was renamed or removed is followed by a new one', async (t) => {
  const dir = t.testdir();
  const path = join(dir, 'events.jsonl');
  const { store, read } = await setUp(path);
  await store.append([line(1)]);
  renameSync(path, `${path}.1`);
  await store.append([line(2)]);
  t.equal(readFileSync(`${path}.1`, 'utf8'), `${line(1)}\n`);
  t.equal(read(), `${line(2)}\n`);
  rmSync(path);
  await store.append([line(3)]);
  t.equal(read(), `${line(3)}\n`);
  t.equal(statSync(path).mode & 0o777, 0o600);
  rmSync(dir, { recursive: true });
  await store.append([line(4)]);
  t.equal(read(), `${line(4)}\n`, 'its directory too');
  await store.close();
});

t.test('a file that another program changed: its content stays, ours begins on a line of its own', async (t) => {
  const path = join(t.testdir(), 'events.jsonl');
  const { store, read, logged } = await setUp(path);
  await store.append([line(1)]);
  appendFileSync(path, 'half a li');
  await store.append([line(2)]);
  t.equal(read(), `${line(1)}\nhalf a li\n${line(2)}\n`);
  t.match(
    logged.find((l) => String(l['message']).includes('another program')),
    { level: 'warn' },
  );
  truncateSync(path, 0);
  await store.append([line(3)]);
  t.equal(read(), `${line(3)}\n`);
  await store.close();
});

t.test('a store that cannot be opened says so in one sentence', async (t) => {
  const dir = t.testdir({ 'a-file': '' });
  mkdirSync(join(dir, 'events.jsonl'));
  await t.rejects(setUp(join(dir, 'events.jsonl')), { name: 'StoreError', message: /cannot be opened: .*; choose a file in a directory/ });
  await t.rejects(setUp(join(dir, 'a-file', 'events.jsonl')), { name: 'StoreError' });
  const full = failingFiles();
  full.state.probeError = 'ENOSPC';
  await t.rejects(setUp(join(dir, 'other.jsonl'), full), { name: 'StoreError', message: /ENOSPC/ }, 'it is tried at start');
});

t.test('close finishes what was appended, and leaves nothing beside the file', async (t) => {
  const dir = t.testdir();
  const path = join(dir, 'events.jsonl');
  const { store, clock } = await setUp(path);
  const appended = store.append([line(1)]);
  await store.close();
  await appended;
  t.equal(readFileSync(path, 'utf8'), `${line(1)}\n`);
  t.equal(existsSync(`${path}.probe`), false);
  t.equal(clock.waiting(), 0);
});
