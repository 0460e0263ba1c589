/** Products side by side: rounds go from one to the next, so that what the machine does meanwhile happens to all of them. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Ask, Measured } from './load.ts';
import { accepting, familyOf, residentMiB, type Started } from './machine.ts';
import type { Product, Terms, Way } from './products.ts';

export interface Effort {
  readonly rounds: number;
  readonly seconds: number;
  readonly pacedRounds: number;
  readonly starts: number;
}

/** Connections at saturation: what a pod's program opens to a busy service. */
const saturating = 64;
export const crowdConnections = 256;
export const pacedRate = 1_000;
/** The fixed rate goes over fewer, as a pool would hold for it. */
const pacedConnections = 32;

export interface Running {
  readonly product: Product;
  readonly process: Started;
  /** ms from exec to the first accepted connection, and to the first right answer. */
  readonly listening: readonly number[];
  readonly answering: readonly number[];
  readonly idleMiB: number;
}

/** A client that is there before the product: what start-up ends with is an answer that came from the origin. */
const firstWay = ({ ways }: Product): Terms => ways.clear as Terms;

/** How long after its first answer a product is called idle. */
const settleMs = 2_000;

/** Starts each product several times, in turn; the last of each stays. */
export const startAll = async (products: readonly Product[], ask: Ask, starts: number): Promise<Running[]> => {
  const figures = products.map(() => ({ listening: [] as number[], answering: [] as number[] }));
  const processes: Started[] = [];
  for (let turn = 1; turn <= starts; turn += 1) {
    for (const [i, product] of products.entries()) {
      const begun = performance.now();
      const process = product.start();
      await accepting(firstWay(product).port, process.child);
      figures[i]?.listening.push(performance.now() - begun);
      await answering(ask, firstWay(product));
      figures[i]?.answering.push(performance.now() - begun);
      if (turn < starts) await process.stop();
      else processes[i] = process;
    }
  }
  await pause(settleMs);
  return products.map((product, i) => {
    const process = processes[i] as Started;
    const { listening = [], answering = [] } = figures[i] ?? {};
    return { product, process, listening, answering, idleMiB: residentMiB(familyOf(process.pid)) };
  });
};

const answering = async (ask: Ask, terms: Terms): Promise<void> => {
  let last: unknown;
  for (const end = performance.now() + 30_000; performance.now() < end; ) {
    try {
      await ask({ ...terms, connections: 1, seconds: 0.001 });
      return;
    } catch (error) {
      last = error;
      await pause(5);
    }
  }
  throw last;
};

export interface Row {
  readonly name: string;
  readonly way: Way;
  readonly saturated: readonly Measured[];
  readonly paced: readonly Measured[];
  readonly crowded: Measured | undefined;
}

export interface Contestant {
  readonly name: string;
  readonly way: Way;
  readonly terms: Terms;
  /** Undefined: the origin asked directly, for what of the times is not a proxy's. */
  readonly pid: number | undefined;
}

export const contestantsFor = (running: readonly Running[], ways: readonly Way[]): Contestant[] =>
  running.flatMap(({ product, process }) =>
    ways.flatMap((way) => {
      const terms = product.ways[way];
      return terms ? [{ name: product.name, way, terms, pid: process.pid }] : [];
    }),
  );

export const compare = async (
  contestants: readonly Contestant[],
  ask: Ask,
  { rounds, seconds, pacedRounds }: Effort,
  say: (text: string) => void,
): Promise<Row[]> => {
  const rows = contestants.map(({ name, way }) => ({ name, way, saturated: [] as Measured[], paced: [] as Measured[] }));
  for (const { terms, pid } of contestants) await ask({ ...terms, connections: saturating, seconds: 1 }, pid);
  for (let round = 1; round <= rounds; round += 1) {
    for (const [i, { name, way, terms, pid }] of contestants.entries()) {
      if (pid === undefined) continue;
      const measured = await ask({ ...terms, connections: saturating, seconds }, pid);
      rows[i]?.saturated.push(measured);
      say(`round ${round} ${way} ${name}: ${measured.cpuMicros.toFixed(1)} µs, ${(measured.answered / measured.seconds).toFixed(0)}/s`);
    }
  }
  for (let round = 1; round <= pacedRounds; round += 1) {
    for (const [i, { name, way, terms, pid }] of contestants.entries()) {
      const measured = await ask({ ...terms, connections: pacedConnections, seconds, rate: pacedRate }, pid);
      rows[i]?.paced.push(measured);
      say(`round ${round} ${way} ${name}: p50 ${measured.p50Ms.toFixed(2)} ms, p99 ${measured.p99Ms.toFixed(2)} ms`);
    }
  }
  const crowded: (Measured | undefined)[] = [];
  for (const [i, { terms, pid }] of contestants.entries()) {
    if (pid !== undefined) crowded[i] = await ask({ ...terms, connections: crowdConnections, seconds }, pid);
  }
  return rows.map((row, i) => ({ ...row, crowded: crowded[i] }));
};
