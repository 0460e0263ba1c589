/** The load programs: load.go, built for this run, and h2load. One measurement is one process on the load's core; says what products used meanwhile. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { cores, cpuSeconds, familyOf, pinned, residentMiB, run } from './machine.ts';

export interface Load {
  /** Port on 127.0.0.1 that is dialled. */
  readonly port: number;
  /** Authority of a CONNECT that is sent first. */
  readonly connect?: string;
  /** TLS with this name, verified against the file. */
  readonly tls?: { readonly name: string; readonly caFile: string };
  /** Heads of requests, asked in turn on every connection. */
  readonly requests: readonly string[];
  readonly uploadBytes?: number;
  /** The body every answer must have, or only its length. */
  readonly expect: string | number;
  readonly connections: number;
  readonly seconds: number;
  /** Requests a second, on a schedule that answers do not move; none: as many as are answered. */
  readonly rate?: number;
}

export interface Measured {
  readonly answered: number;
  /** Wrong answers, and requests without one. */
  readonly failed: number;
  readonly firstWrong: string;
  /** Requests of the schedule that had no answer when the time was over. */
  readonly unserved: number;
  readonly seconds: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** How late the schedule itself was, p99: what of the above is the generator's. */
  readonly lateMs: number;
  /** CPU of the watched process and its descendants for one answered request. */
  readonly cpuMicros: number;
  /** The share of one core they used. */
  readonly busy: number;
  /** The most that was resident at a time, sampled, MiB. */
  readonly peakMiB: number;
}

/** Builds the generator; undefined without Go. */
export const buildLoad = async (directory: string): Promise<string | undefined> => {
  const program = join(directory, 'load');
  const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/local/go/bin`, GO111MODULE: 'off', CGO_ENABLED: '0' };
  try {
    await run('go', ['build', '-o', program, join(import.meta.dirname, 'load.go')], { env });
    return program;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
};

export type Ask = (load: Load, pid?: number) => Promise<Measured>;

interface Answer {
  readonly Answered: number;
  readonly Failed: number;
  readonly Unserved: number;
  readonly Seconds: number;
  readonly P50: number;
  readonly P99: number;
  readonly Late: number;
  readonly FirstWrong: string;
}

const sampleEveryMs = 100;

export const asking =
  (program: string): Ask =>
  async (load, pid) => {
    const options = {
      Address: `127.0.0.1:${load.port}`,
      Connect: load.connect ?? '',
      ServerName: load.tls?.name ?? '',
      CaFile: load.tls?.caFile ?? '',
      Requests: load.requests,
      UploadBytes: load.uploadBytes ?? 0,
      Expect: typeof load.expect === 'string' ? load.expect : '',
      ExpectBytes: typeof load.expect === 'number' ? load.expect : 0,
      Connections: load.connections,
      Seconds: load.seconds,
      Rate: load.rate ?? 0,
    };
    const [command, ...args] = pinned(cores.load, [program, 'client', JSON.stringify(options)]);
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let complaint = '';
    child.stderr.on('data', (chunk: Buffer) => (complaint += chunk));
    const exited = once(child, 'exit');
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const next = async (): Promise<string> => {
      const { value, done } = await lines.next();
      if (!done) return value;
      await exited;
      throw new Error(complaint.trim());
    };
    await next();
    const watched = pid === undefined ? [] : familyOf(pid);
    let peakMiB = 0;
    const sample = (): void => void (peakMiB = Math.max(peakMiB, residentMiB(watched)));
    const sampling = setInterval(sample, sampleEveryMs);
    const before = cpuSeconds(watched);
    child.stdin.write('go\n');
    try {
      const answer = JSON.parse(await next()) as Answer;
      const used = cpuSeconds(watched) - before;
      sample();
      await exited;
      return {
        answered: answer.Answered,
        failed: answer.Failed,
        firstWrong: answer.FirstWrong,
        unserved: answer.Unserved,
        seconds: answer.Seconds,
        p50Ms: answer.P50,
        p99Ms: answer.P99,
        lateMs: answer.Late,
        cpuMicros: (used / answer.Answered) * 1e6,
        busy: used / answer.Seconds,
        peakMiB,
      };
    } finally {
      clearInterval(sampling);
    }
  };

/** An answer as a program would get it, for looking at rather than timing. */
export const askOnce = async (ask: Ask, load: Omit<Load, 'connections' | 'seconds'>): Promise<boolean> => {
  try {
    await ask({ ...load, connections: 1, seconds: 0.001 });
    return true;
  } catch {
    return false;
  }
};

export interface H2Measured {
  readonly requestsPerSecond: number;
  readonly failed: number;
  readonly cpuMicros: number;
}

/** h2load: `streams` at a time on each of `connections`. Clear text with prior knowledge, or TLS, as the URL says. */
export const h2load = async (url: string, connections: number, streams: number, seconds: number, pid?: number): Promise<H2Measured> => {
  const [command, ...args] = pinned(cores.load, ['h2load', `-c${connections}`, `-m${streams}`, `-D${seconds}`, url]);
  const watched = pid === undefined ? [] : familyOf(pid);
  const before = cpuSeconds(watched);
  const { stdout } = await run(command, args);
  const used = cpuSeconds(watched) - before;
  // What is under way when the time is over counts as neither.
  const [, failed = '', errored = '', late = ''] = /succeeded, (\d+) failed, (\d+) errored, (\d+) timeout/.exec(stdout) ?? [];
  const [, good = '', ...others] = /status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx/.exec(stdout) ?? [];
  const requests = Number(good);
  if (!requests || failed === '') throw new Error(stdout);
  return {
    requestsPerSecond: requests / seconds,
    failed: [failed, errored, late, ...others].reduce((sum, text) => sum + Number(text), 0),
    cpuMicros: (used / requests) * 1e6,
  };
};
