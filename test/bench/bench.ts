/**
 * `npm run bench`: what Outrider costs, next to others doing the same work, in one run. A run of everything at full length writes
 * BENCHMARKS.md. `--quick`: short rounds. `--only clear,tls,growth`, or parts of growth by name. `--bundle DIR`: another build than this
 * tree's. `--write`: writes whatever was run. No time fails it: a wrong answer does. Loopback only; installs nothing (prepare.sh does).
 */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import t from 'tap';
import { buildBundle } from '../../scripts/build.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { host } from '../support/stack.ts';
import { compare, contestantsFor, type Effort, type Row, startAll } from './compare.ts';
import { growthParts } from './growth.ts';
import { asking, buildLoad } from './load.ts';
import { cores, describeMachine, run } from './machine.ts';
import { body, startOrigin } from './origin.ts';
import { credentialThrough, otherHosts, prepareOutrider } from './outrider.ts';
import { chooseProducts, type Terms } from './products.ts';
import { comparisonText, ratioLines, type Report, rewritten } from './report.ts';

const { values } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, only: { type: 'string' }, bundle: { type: 'string' }, write: { type: 'boolean' } },
});
const wanted = values.only?.split(',');
const isWanted = (part: string): boolean => wanted === undefined || wanted.includes(part);
const root = join(import.meta.dirname, '../..');

const effort: Effort = values.quick
  ? { rounds: 2, seconds: 1, pacedRounds: 1, starts: 2 }
  : { rounds: 4, seconds: 2, pacedRounds: 2, starts: 3 };

/** A run takes some thirteen minutes on a quiet machine; on a busy one it is slow and worth little, but ends. */
const timeoutMs = 40 * 60_000;
t.setTimeout(timeoutMs);

t.test('what it costs, next to others', { timeout: timeoutMs }, async (t) => {
  const machine = describeMachine();
  const dir = mkdtempSync(join(tmpdir(), 'outrider-bench-'));
  chmodSync(dir, 0o777);
  // After everything that writes into it has ended: teardowns run in reverse order of nothing else than this.
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  await run('taskset', ['-a', '-cp', String(cores.others), String(process.pid)]);
  const program = await buildLoad(dir);
  if (program === undefined) throw new Error('the load generator is built with Go, which is not there');
  const ask = asking(program);

  const authority = createTestAuthority('Bench origin authority');
  const originCaFile = join(dir, 'origin-ca.pem');
  writeFileSync(originCaFile, authority.pem);
  const origin = await startOrigin(t, dir, authority, { tls: host, h2: otherHosts.h2 });
  const bundle = values.bundle ?? join(dir, 'dist');
  if (values.bundle === undefined) await buildBundle(bundle);
  const version = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version;
  const ground = { t, dir, bundle, program, ask, origin, authority, effort, say: (text: string) => void process.stderr.write(`${text}\n`) };

  const report: Report = { machine: [], absent: [], running: [], clear: [], secured: [], growth: [] };
  if (isWanted('clear') || isWanted('tls')) {
    const outrider = await prepareOutrider(t, {
      dir,
      bundle,
      originCa: authority.pem,
      pins: [
        { host, port: 80, originPort: origin.clearPort },
        { host, port: 443, originPort: origin.tlsPort },
      ],
    });
    const first = outrider.startProxy();
    const credential = await credentialThrough(outrider, origin);
    await first.stop();
    const { products, absent } = await chooseProducts(t, {
      dir,
      origin,
      originCaFile,
      outrider,
      outriderVersion: version,
      // As long, and as little compressible, and of nobody.
      credential: credential.replace(/[\w-]/g, 'y'),
    });
    report.absent.push(...absent);
    for (const reason of absent) t.comment(reason);
    const running = await startAll(products, ask, effort.starts);
    report.running.push(...running);
    for (const { product, process } of running) t.ok(process.child.exitCode === null, `${product.name} runs`);

    const request = `GET /1k HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${credential}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n`;
    const direct = (terms: Pick<Terms, 'port' | 'tls'>) => ({ ...terms, requests: [request], expect: body });
    const before = await origin.asked();
    const inClear = { name: 'the origin itself', way: 'clear', terms: direct({ port: origin.clearPort }), pid: undefined } as const;
    if (isWanted('clear')) report.clear.push(...(await compare([inClear, ...contestantsFor(running, ['clear'])], ask, effort, ground.say)));
    const overTls = {
      name: 'the origin itself',
      way: 'tls',
      terms: direct({ port: origin.tlsPort, tls: { name: host, caFile: originCaFile } }),
      pid: undefined,
    } as const;
    const secured = contestantsFor(running, ['tls', 'connect']);
    if (isWanted('tls')) report.secured.push(...(await compare([overTls, ...secured], ask, effort, ground.say)));
    checkAnswers([...report.clear, ...report.secured], (await origin.asked()) - before);
    for (const { process } of running) await process.stop();
    await outrider.collector.stop();
    await outrider.broker.stop();
  }

  for (const [name, part] of Object.entries(growthParts)) {
    if (!isWanted('growth') && !isWanted(name)) continue;
    // What was measured before is worth keeping when one part fails.
    await part(ground).then(
      (growth) => report.growth.push(growth),
      (error: unknown) => t.fail(`${name}: ${error instanceof Error ? error.message : String(error)}`),
    );
  }
  report.machine.push(...machine());

  t.comment(`\n${comparisonText(report)}`);
  if (values.write ?? (!values.quick && wanted === undefined && values.bundle === undefined)) {
    const file = join(root, 'BENCHMARKS.md');
    writeFileSync(file, rewritten(readFileSync(file, 'utf8'), report));
    t.comment('BENCHMARKS.md is written');
  }
  for (const line of ratioLines(report)) t.comment(line);

  /** Every answer was looked at by the client; that none of them came from anywhere else is the origin's to say. */
  function checkAnswers(rows: readonly Row[], asked: number): void {
    let answered = 0;
    for (const { name, way, saturated, paced, crowded } of rows) {
      const all = [...saturated, ...paced, ...(crowded ? [crowded] : [])];
      const failed = all.reduce((sum, measured) => sum + measured.failed, 0);
      answered += all.reduce((sum, measured) => sum + measured.answered, 0);
      const why = all.find(({ firstWrong }) => firstWrong !== '')?.firstWrong ?? '';
      t.equal(failed, 0, `${name}, ${way}: every answer is the origin's, to a request with the credential${why && ` (${why})`}`);
    }
    t.ok(asked >= answered, `the origin was asked ${asked} times for ${answered} answers`);
  }
});
