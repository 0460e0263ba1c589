/** `outrider events`: what it prints, what it says, and how it ends. */
import { spawn } from 'node:child_process';
import { appendFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { events } from '../../src/cli/events.ts';
import { matcherOf, parseDuration } from '../../src/cli/events/filter.ts';
import { tail } from '../../src/cli/events/tail.ts';
import { eventLine } from '../../src/collector/event-json.ts';
import { limits } from '../../src/core/limits.ts';
import { event, workload } from '../collector/events.ts';

const line = (sequence: number, fields: Parameters<typeof event>[1] = {}): string =>
  eventLine(event(sequence, fields), { reporter: workload, bootId: 'boot-1', receivedAtMs: 0 });
const fileOf = (...lines: string[]): string => lines.map((l) => `${l}\n`).join('');

const collect = () => {
  let text = '';
  let grown = Promise.withResolvers<void>();
  return {
    write: (piece: string): void => {
      text += piece;
      grown.resolve();
      grown = Promise.withResolvers();
    },
    text: () => text,
    sequences: () =>
      text
        .split('\n')
        .filter((l) => l !== '')
        .map((l) => (JSON.parse(l) as { sequence: number }).sequence),
    /** Waits until `is` holds of what was written. */
    until: async (is: () => boolean): Promise<void> => {
      while (!is()) await grown.promise;
    },
  };
};

const run = async (...argv: string[]) => {
  const out = collect();
  const err = collect();
  const code = await events(argv, out, undefined, err);
  return { code, out: out.text(), err: err.text(), sequences: () => out.sequences() };
};

t.test('it prints the store line for line', async (t) => {
  const content = fileOf(line(1), line(2, { path: '/\u202e' }), line(3));
  const file = join(t.testdir({ 'events.jsonl': content }), 'events.jsonl');
  const { code, out, err } = await run('--file', file);
  t.equal(code, 0);
  t.equal(out, content);
  t.equal(err, '');
});

t.test('filters choose by field, exactly or with a trailing *, and together', async (t) => {
  const file = join(
    t.testdir({
      'events.jsonl': fileOf(
        line(1),
        line(2, { kind: 'refusal', target: 'other' }),
        line(3, { kind: 'outcome', requestId: 'request-1' }),
        line(4, { kind: 'pass', workload: '', target: '' }),
      ),
    }),
    'events.jsonl',
  );
  t.same((await run('--file', file, '--kind', 'refusal')).sequences(), [2]);
  t.same((await run('--file', file, '--target', 'echo')).sequences(), [1, 3]);
  t.same((await run('--file', file, '--request', 'request-1')).sequences(), [1, 3]);
  t.same((await run('--file', file, '--workload', 'spiffe://outrider.test/ns/demo/*')).sequences(), [1, 2, 3]);
  t.same((await run('--file', file, '--workload', 'spiffe://outrider.test/ns/demo/sa/demo')).sequences(), []);
  t.same((await run('--file', file, '--request', 'request-1', '--kind=outcome')).sequences(), [3]);
  t.same((await run('--file', file, '--limit', '2')).sequences(), [3, 4], 'the last two');
  t.same((await run('--file', file, '--limit', '1', '--kind', 'intent')).sequences(), [1]);
});

t.test('--since looks at when it happened', async (t) => {
  const now = Date.now();
  const file = join(
    t.testdir({
      'events.jsonl': fileOf(line(1, { timeMs: now - 7_300_000 }), line(2, { timeMs: now - 60_000 }), line(3, { timeMs: now })),
    }),
    'events.jsonl',
  );
  t.same((await run('--file', file, '--since', '2h')).sequences(), [2, 3]);
  t.same((await run('--file', file, '--since', '30s')).sequences(), [3]);
  t.same((await run('--file', file, '--since', '1d')).sequences(), [1, 2, 3]);
});

t.test('durations are a number and a unit', async (t) => {
  t.same(['90s', '15m', '2h', '7d'].map(parseDuration), [90_000, 900_000, 7_200_000, 604_800_000]);
  for (const wrong of ['', '15', 'm', '1.5h', '-1h', '1h30m', '1 h', '1w', '99999999999s'])
    t.equal(parseDuration(wrong), undefined, JSON.stringify(wrong));
});

t.test('a line that is no event is skipped and reported; an over-long one too; one still being written is not', async (t) => {
  const matches = matcherOf({ notBeforeMs: undefined, workload: undefined, target: undefined, kind: undefined, requestId: undefined });
  t.same(['{"a":1}', '', '  ', 'x', '[]', 'null', '"a"'].map(matches), [
    'matches',
    'differs',
    'differs',
    'unreadable',
    'unreadable',
    'unreadable',
    'unreadable',
  ]);
  const long = JSON.stringify({ pad: 'x'.repeat(limits.eventLineBytesMax) });
  const file = join(t.testdir({ 'events.jsonl': `${fileOf(line(1), 'garbage', long, line(2))}${line(3).slice(0, 50)}` }), 'events.jsonl');
  const { code, sequences, err } = await run('--file', file);
  t.same(sequences(), [1, 2]);
  t.match(err, /^outrider events: 2 lines of .* are not events and were skipped\.\n$/);
  t.equal(code, 0);
});

t.test('a foreign file cannot act on the terminal', async (t) => {
  const file = join(t.testdir({ 'events.jsonl': '{"path":"\u009b31m\u202e\u007f"}\n' }), 'events.jsonl');
  t.equal((await run('--file', file)).out, '{"path":"\\u009b31m\\u202e\\u007f"}\n');
});

t.test('a missing file gets a sentence that says what to start', async (t) => {
  const { code, out, err } = await run('--file', join(t.testdir(), 'none.jsonl'));
  t.equal(code, 1);
  t.equal(out, '');
  t.match(err, /there is no .*none\.jsonl yet\. Start the demo with "npm start"/);
});

t.test('a command line that is not understood gets a sentence and exit code 2', async (t) => {
  for (const [argv, says] of [
    [['--folow'], /Unknown option '--folow'; did you mean --follow\.\n/],
    [['--nonsense'], /Unknown option '--nonsense'/],
    [['extra'], /extra/],
    [['--file'], /--file/],
    [['--limit', 'many'], /--limit "many" is not a number from 1 to 10000/],
    [['--limit', '0'], /--limit "0"/],
    [['--limit', '10001'], /--limit "10001"/],
    [['--since', 'yesterday'], /--since "yesterday" is not a duration: write a number and s, m, h or d/],
    [['--kind', 'intents'], /--kind "intents" is none: write one of intent, outcome, refusal, pass, loss/],
  ] as const) {
    const { code, out, err } = await run(...argv);
    t.equal(code, 2, argv.join(' '));
    t.equal(out, '');
    t.match(err, says);
    t.match(err, /See "outrider events --help"/);
  }
});

t.test('--help names every option', async (t) => {
  const { code, out, err } = await run('--help');
  t.equal(code, 0);
  t.equal(err, '');
  for (const option of ['file', 'follow', 'limit', 'since', 'workload', 'target', 'kind', 'request']) t.match(out, `--${option}`);
  t.equal((await run('-h')).out, out);
});

t.test(
  '--follow goes on: through creation, growth in pieces, rotation, truncation, a cut tail and removal; and ends when told',
  async (t) => {
    const file = join(t.testdir(), 'events.jsonl');
    const stop = new AbortController();
    const seen: number[] = [];
    let look = Promise.withResolvers<void>();
    /** Until the file has been looked at twice: once may have begun before the last change. */
    const looked = async (): Promise<void> => {
      await look.promise;
      await look.promise;
    };
    const listener = {
      line: async (text: string | undefined) => void seen.push((JSON.parse(text as string) as { sequence: number }).sequence),
      caughtUp: async () => {
        look.resolve();
        look = Promise.withResolvers();
      },
    };
    const done = tail(file, true, stop.signal, listener, 20);
    writeFileSync(file, fileOf(line(1)));
    await looked();
    appendFileSync(file, fileOf(line(2)) + line(3).slice(0, 100));
    await looked();
    t.same(seen, [1, 2]);
    appendFileSync(file, `${line(3).slice(100)}\n`);
    await looked();
    t.same(seen, [1, 2, 3]);

    appendFileSync(file, fileOf(line(4)));
    renameSync(file, `${file}.1`);
    appendFileSync(`${file}.1`, fileOf(line(5)));
    writeFileSync(file, fileOf(line(6)));
    await looked();
    t.same(seen, [1, 2, 3, 4, 5, 6], 'the end of the old file, then the new one');

    appendFileSync(file, line(7).slice(0, 80));
    await looked();
    truncateSync(file, Buffer.byteLength(fileOf(line(6))));
    await looked();
    appendFileSync(file, fileOf(line(8)));
    await looked();
    t.same(seen.slice(6), [8], 'a cut tail brings nothing again');

    truncateSync(file, 0);
    appendFileSync(file, fileOf(line(9)));
    await looked();
    t.same(seen.slice(7), [9]);
    rmSync(file);
    writeFileSync(file, fileOf(line(10), line(11), line(12), line(13)));
    await looked();
    t.same(seen.slice(8), [10, 11, 12, 13]);
    stop.abort();
    await done;
  },
);

t.test('--follow waits for a file that is not there yet', async (t) => {
  const file = join(t.testdir(), 'events.jsonl');
  const out = collect();
  const stop = new AbortController();
  const done = events(['--file', file, '--follow'], out, stop.signal, collect());
  writeFileSync(file, fileOf(line(1)));
  await out.until(() => out.sequences().includes(1));
  stop.abort();
  t.equal(await done, 0);
});

t.test('--follow --limit begins with the last ones and then shows all', async (t) => {
  const file = join(t.testdir({ 'events.jsonl': fileOf(line(1), line(2), line(3)) }), 'events.jsonl');
  const out = collect();
  const stop = new AbortController();
  const done = events(['--file', file, '--follow', '--limit', '1'], out, stop.signal);
  await out.until(() => out.sequences().includes(3));
  appendFileSync(file, fileOf(line(4), line(5)));
  await out.until(() => out.sequences().includes(5));
  stop.abort();
  await done;
  t.same(out.sequences(), [3, 4, 5]);
});

/** The command in a process of its own, as a shell runs it. */
const command = (file: string, ...argv: string[]) => {
  const source = `import { events } from ${JSON.stringify(new URL('../../src/cli/events.ts', import.meta.url).href)};
    process.exitCode = await events(${JSON.stringify(['--file', file, ...argv])}, process.stdout);`;
  return spawn(process.execPath, ['--input-type=module', '--eval', source], { stdio: ['ignore', 'pipe', 'pipe'] });
};

t.test('a reader that goes away (| head) ends it quietly, following or not', async (t) => {
  const file = join(t.testdir({ 'events.jsonl': fileOf(...Array.from({ length: 20_000 }, (_, i) => line(i + 1))) }), 'events.jsonl');
  for (const argv of [[], ['--follow']]) {
    const child = command(file, ...argv);
    let complaints = '';
    child.stderr.on('data', (piece: Buffer) => {
      complaints += piece.toString();
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    child.stdout.destroy();
    const code = await new Promise((resolve) => child.once('close', resolve));
    t.equal(code, 0, argv.join(' '));
    t.equal(complaints, '');
  }
});

t.test('a slow reader does not make it take memory, and loses nothing', async (t) => {
  const count = 60_000;
  const file = join(t.testdir(), 'events.jsonl');
  for (let i = 0; i < count; i += 10_000) appendFileSync(file, fileOf(...Array.from({ length: 10_000 }, (_, j) => line(i + j + 1))));
  const waits = { drains: 0 };
  let seen = 0;
  const slow = {
    write: (text: string): boolean => {
      seen += text.length > 0 ? 1 : 0;
      return seen % 100 !== 0;
    },
    once: (_: 'drain', go: () => void): void => {
      waits.drains += 1;
      setImmediate(go);
    },
  };
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  t.equal(await events(['--file', file], slow, undefined, collect()), 0);
  t.equal(seen, count);
  t.equal(waits.drains, count / 100);
  t.ok(process.memoryUsage().heapUsed - before < 64 * 1024 * 1024, 'of a file of 40 MB');
});
