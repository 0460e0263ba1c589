import t, { type Test } from 'tap';
import { directoryOf } from '../support/directory.ts';
import { answersWanted, type Cell, type Input, startCell } from './cell.ts';
import { keep, keptInputs, minimise } from './corpus.ts';
import { answer, requests, twoRequests, ways } from './grammar.ts';
import { cutsOf, mutate } from './mutations.ts';
import { judge, type Late } from './oracle.ts';
import { type Random, randomFrom } from './random.ts';

/**
 * Whole exchanges from generated and damaged bytes, against the oracle of oracle.ts. FUZZ_SEED repeats a run (and its inputs one by one, as
 * far as it comes), FUZZ_SECONDS says how long each of the two goes on. An input that fails is made small and is written to corpus/.
 */
const seconds = Number(process.env['FUZZ_SECONDS'] ?? 25);
const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);
t.setTimeout((2 * seconds + 180) * 1_000);
t.comment(`FUZZ_SEED=${seed} FUZZ_SECONDS=${seconds}`);

interface Tally {
  inputs: number;
  damaged: number;
  admitted: number;
  refused: number;
  intended: number;
  seen: number;
}

const run = async (cell: Cell, input: Input, late: Late, tally?: Tally): Promise<string[]> => {
  const observed = await cell.run(input);
  if (tally) {
    const admitted = observed.turns.filter((turn) => 'accepted' in turn).length;
    tally.inputs += 1;
    tally.admitted += admitted;
    tally.refused += observed.turns.length - admitted;
    tally.intended += observed.events.filter(({ kind }) => kind === 'intent').length;
    tally.seen += observed.seen.length;
  }
  return judge(input, observed, late);
};

/** A problem without what differs from input to input. */
const kindOf = (problem: string): string => problem.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/g, '').split(/[:"]/, 1)[0] as string;

/** In a cell of its own, so that nothing of what was before counts. */
const report = async (t: Test, dir: string, input: Input, problems: readonly string[], by: string): Promise<void> => {
  const cell = await startCell(dir);
  const kinds = new Set(problems.map(kindOf));
  // In the same way: what is found while it is made smaller is another finding.
  const fails = async (one: Input): Promise<boolean> => (await run(cell, one, [])).some((problem) => kinds.has(kindOf(problem)));
  const isRepeated = await fails(input);
  const small = isRepeated ? await minimise(input, fails) : input;
  await cell.close();
  t.fail(
    `${problems.join('; ')} (${isRepeated ? 'repeated' : 'not when run alone'}; ${by}; seed ${seed}; kept as corpus/${keep(small, problems)})`,
  );
};

/** Inputs under way at a time: most of an input's life is waiting. */
const width = 8;

/** `next` gives an input and says what was done to it. Each has a seed of its own, so that a run is repeated whatever overtakes what. */
const fuzz = async (t: Test, next: (random: Random) => { input: Input; by: readonly string[] }): Promise<Tally> => {
  const dir = directoryOf(t);
  const tally: Tally = { inputs: 0, damaged: 0, admitted: 0, refused: 0, intended: 0, seen: 0 };
  const until = performance.now() + seconds * 1_000;
  const failed: { input: Input; problems: readonly string[]; by: string }[] = [];
  let count = 0;
  const work = async (): Promise<void> => {
    const cell = await startCell(dir);
    const late: Late = [];
    while (performance.now() < until && failed.length < 3) {
      const { input, by } = next(randomFrom(seed + 7_919 * count++));
      if (by.length > 0) tally.damaged += 1;
      const problems = await run(cell, input, late, tally);
      if (problems.length > 0) failed.push({ input, problems, by: by.join(', ') });
    }
    await cell.close();
  };
  await Promise.all(Array.from({ length: width }, work));
  for (const { input, problems, by } of failed) await report(t, dir, input, problems, by);
  const { inputs, damaged, admitted, refused, intended, seen } = tally;
  t.comment(
    `${inputs} inputs (${damaged} damaged): ${admitted} requests admitted, ${refused} refused at the door, ${intended} intended, ${seen} seen by targets`,
  );
  return tally;
};

t.test('what has failed before does not fail again', async (t) => {
  const cell = await startCell(directoryOf(t));
  t.teardown(() => cell.close());
  const late: Late = [];
  for (const { name, input } of keptInputs()) t.same(await run(cell, input, late), [], name);
  t.pass(`${keptInputs().length} inputs`);
});

t.test('of sound requests each is seen once, as it was sent, and answered', async (t) => {
  const random = randomFrom(seed);
  const cell = await startCell(directoryOf(t));
  t.teardown(() => cell.close());
  const late: Late = [];
  let strict = 0;
  for (const way of ['absolute', 'plain', 'tls', 'reverse'] as const) {
    for (let i = 0; i < 25; i += 1) {
      const bytes = requests(way, random);
      const input: Input = { way, bytes, cuts: cutsOf(bytes.length, random) };
      // Chunk extensions are sound, too, but no target may see one, so that the strict parser has none.
      if (answersWanted(input) !== undefined) strict += 1;
      const problems = await run(cell, input, late);
      if (problems.length > 0) t.fail(`${problems.join('; ')} for ${JSON.stringify(input)}`);
    }
  }
  t.ok(strict > 50, `${strict} of 100 were waited for to the last answer`);
});

t.test('damaged requests: the target sees what was judged and intended, and nothing else', async (t) => {
  const { inputs, refused, seen } = await fuzz(t, (random) => {
    const way = random.oneIn(4) ? random.pick(['tls', 'h2tls'] as const) : random.pick(ways);
    const sound = requests(way, random);
    const { text, by } = random.oneIn(4) ? { text: sound, by: [] } : mutate(sound, random, requests(way, random));
    return { input: { way, bytes: text, cuts: cutsOf(text.length, random) }, by };
  });
  t.ok(seen > inputs / 10 && refused > inputs / 20, 'some got through and some did not');
});

t.test('damaged answers: the program sees one sound answer for each request, or a broken connection', async (t) => {
  const { inputs, seen } = await fuzz(t, (random) => {
    const way = random.pick(['absolute', 'plain', 'tls', 'reverse'] as const);
    const sound = answer(random);
    const { text, by } = random.oneIn(4) ? { text: sound, by: [] } : mutate(sound, random, answer(random));
    // Under TLS Node does not tell an orderly end from a connection that was cut, so that there is no `rst` to judge.
    const after = random.pick(way === 'tls' ? (['keep', 'fin'] as const) : (['keep', 'fin', 'fin', 'rst'] as const));
    const input: Input = {
      way,
      bytes: twoRequests(way, random),
      cuts: [],
      answer: { bytes: text, cuts: cutsOf(text.length, random), after },
    };
    return { input, by };
  });
  t.ok(seen > 0.6 * inputs, 'requests reach the target');
});
