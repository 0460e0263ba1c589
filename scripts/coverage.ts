/**
 * `npm run coverage`: runs the tests as `npm test` does and reads which lines of src/ were executed, in the test processes and in every
 * program that they started (NODE_V8_COVERAGE reaches them all). `--from DIR` only reads what a run of `NODE_V8_COVERAGE=DIR npm test` left.
 * Prints a table, names the lines that nothing executes where a floor is missed, and then exits 1. `--lines PREFIX` names them for any path.
 * Generated code is left out. A line is covered when some process executed some of it; comments, types and lone brackets are no lines.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { stripTypeScriptTypes } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const sourceUrl = pathToFileURL(join(root, 'src/')).href;

/** Per cent of lines: of every directory, and of what decides where a credential goes. */
const floors = { directory: 95, group: 98 } as const;

const groups: Readonly<Record<string, RegExp>> = {
  authority: /^src\/core\/destination\.ts$/,
  path: /^src\/core\/request-target\.ts$/,
  framing: /^src\/(?:proxy\/listener\/admit|net\/outbound\/(?:request-body|dedicated|reception))\.ts$/,
  inject: /^src\/proxy\/inject(?:\.ts|\/)/,
  grant: /^src\/(?:core\/grant\.ts$|proxy\/grant(?:\.ts$|\/))/,
  pki: /^src\/pki\//,
};

interface ScriptCoverage {
  readonly url: string;
  readonly functions: readonly { readonly ranges: readonly { startOffset: number; endOffset: number; count: number }[] }[];
}

/** The lines of one file that hold code, and those that were executed. */
class Source {
  readonly path: string;
  readonly #length: number;
  /** Line number → where its code begins and ends. */
  readonly #code = new Map<number, readonly [start: number, end: number]>();
  readonly #missed: Set<number>;

  constructor(path: string) {
    this.path = path;
    // What Node runs: types are blanks, everything else stands where it stood.
    const text = stripTypeScriptTypes(readFileSync(join(root, path), 'utf8'));
    this.#length = text.length;
    let offset = 0;
    let isComment = false;
    for (const [i, line] of text.split('\n').entries()) {
      const code = line.trim();
      if (code.startsWith('/*')) isComment = true;
      const start = offset + line.length - line.trimStart().length;
      if (!isComment && !code.startsWith('//') && /[A-Za-z0-9_$'"`]/.test(code)) this.#code.set(i + 1, [start, start + code.length]);
      if (code.endsWith('*/')) isComment = false;
      offset += line.length + 1;
    }
    this.#missed = new Set(this.#code.keys());
  }

  get lines(): number {
    return this.#code.size;
  }

  get missed(): readonly number[] {
    return [...this.#missed];
  }

  /** Adds what one process executed. */
  add({ functions }: ScriptCoverage): void {
    if (this.#missed.size === 0) return;
    const isRun = new Uint8Array(this.#length);
    // Outer functions and blocks come before those in them.
    for (const { ranges } of functions) {
      for (const { startOffset, endOffset, count } of ranges) isRun.fill(count > 0 ? 1 : 0, startOffset, endOffset);
    }
    for (const line of this.#missed) {
      const [start, end] = this.#code.get(line) as readonly [number, number];
      if (isRun.subarray(start, end).includes(1)) this.#missed.delete(line);
    }
  }
}

const sourcesUnder = (directory: string): Source[] =>
  readdirSync(join(root, directory), { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => path.endsWith('.ts') && !path.endsWith('.d.ts') && !path.startsWith('src/proto/'))
    .toSorted()
    .map((path) => new Source(path))
    .filter(({ lines }) => lines > 0);

const read = (directory: string, sources: readonly Source[]): number => {
  const byUrl = new Map(sources.map((source) => [pathToFileURL(join(root, source.path)).href, source]));
  const files = readdirSync(directory).filter((name) => name.endsWith('.json'));
  let processes = 0;
  for (const name of files) {
    let scripts: readonly ScriptCoverage[];
    try {
      ({ result: scripts } = JSON.parse(readFileSync(join(directory, name), 'utf8')) as { result: readonly ScriptCoverage[] });
    } catch {
      // A process that was killed while it wrote.
      continue;
    }
    processes += 1;
    for (const script of scripts) if (script.url.startsWith(sourceUrl)) byUrl.get(script.url.replace(/\?.*$/, ''))?.add(script);
  }
  return processes;
};

interface Row {
  readonly name: string;
  readonly floor: number;
  readonly sources: readonly Source[];
}

const percent = ({ sources }: Row): number => {
  const lines = sources.reduce((sum, one) => sum + one.lines, 0);
  return lines === 0 ? 100 : (100 * (lines - sources.reduce((sum, one) => sum + one.missed.length, 0))) / lines;
};

/** `3-5, 9`. */
const spans = (lines: readonly number[]): string => {
  const parts: [number, number][] = [];
  for (const line of lines) {
    const last = parts.at(-1);
    if (last && line <= last[1] + 1) last[1] = line;
    else parts.push([line, line]);
  }
  return parts.map(([from, to]) => (from === to ? String(from) : `${from}-${to}`)).join(', ');
};

const uncovered = (sources: readonly Source[]): string[] =>
  sources.filter(({ missed }) => missed.length > 0).map(({ path, missed }) => `  ${path}: ${spans(missed)}`);

const rowsOf = (sources: readonly Source[]): Row[] => [
  ...[...Map.groupBy(sources, ({ path }) => dirname(path))].map(([name, of]) => ({
    name: `${name}/`,
    floor: floors.directory,
    sources: of,
  })),
  ...Object.entries(groups).map(([name, pattern]) => ({
    name,
    floor: floors.group,
    sources: sources.filter(({ path }) => pattern.test(path)),
  })),
];

const report = (rows: readonly Row[]): readonly Row[] => {
  const below = rows.filter((row) => percent(row) < row.floor);
  const width = Math.max(...rows.map(({ name }) => name.length));
  for (const row of rows) {
    const lines = row.sources.reduce((sum, one) => sum + one.lines, 0);
    const mark = below.includes(row) ? `  below ${row.floor} %` : '';
    console.log(`${row.name.padEnd(width)}  ${percent(row).toFixed(1).padStart(5)} % of ${String(lines).padStart(5)} lines${mark}`);
  }
  return below;
};

/** Runs the tests with coverage collected in `directory`; their output goes to ours. */
const runTests = (directory: string, more: readonly string[]): number => {
  const { status } = spawnSync('npm', ['test', '--', ...more], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, NODE_V8_COVERAGE: directory },
  });
  return status ?? 1;
};

const main = (): number => {
  const { values, positionals } = parseArgs({
    options: { from: { type: 'string' }, lines: { type: 'string', multiple: true } },
    allowPositionals: true,
  });
  const directory = values.from ?? mkdtempSync(join(tmpdir(), 'outrider-coverage-'));
  const status = values.from === undefined ? runTests(directory, positionals) : 0;
  const sources = sourcesUnder('src');
  const processes = read(directory, sources);
  if (values.from === undefined) rmSync(directory, { recursive: true, force: true });
  const below = report(rowsOf(sources));
  const named = new Set([
    ...below.flatMap((row) => row.sources),
    ...sources.filter(({ path }) => values.lines?.some((at) => path.startsWith(at))),
  ]);
  if (named.size > 0) console.log(['never executed:', ...uncovered([...named])].join('\n'));
  console.log(`${processes} processes; ${below.length === 0 ? 'every floor is held' : `${below.length} below their floor`}`);
  if (processes === 0) console.error(`nothing was collected in ${relative(process.cwd(), directory) || directory}`);
  return status !== 0 ? status : below.length === 0 && processes > 0 ? 0 : 1;
};

process.exitCode = main();
