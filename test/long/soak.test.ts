import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { RequestListener } from 'node:http';
import { connect as connectH2, type ClientHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import { dial, exchange, secure, tunnelTo, wholeResponse } from '../support/path.ts';
import { residentMiB } from '../support/processes.ts';
import { eventually, host, metric } from '../support/stack.ts';
import { startPlace } from './crowd/place.ts';

/**
 * Ten minutes of everything that programs do, at about half of what the machine can: memory and descriptors are flat once it is warm, no
 * request fails, and each has its event (THREATS I9, 15). SOAK_SECONDS and SOAK_SEED change length and order.
 */
const seconds = Number(process.env['SOAK_SECONDS'] ?? 600);
const seed = Number(process.env['SOAK_SEED'] ?? Date.now() % 1_000_000);
/** Of the medians of the second and the last fifth. */
const growthMiBMax = 16;
const descriptorsMax = 24;
t.setTimeout(seconds * 1_000 + 240_000);

/** mulberry32: small, and the same everywhere. */
const randomOf = (from: number): (() => number) => {
  let state = from;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
};

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number;

/** Downloads of a size, uploads that are counted, 401s, an echo of upgrades. */
const answer: RequestListener = (request, response) => {
  request.on('error', () => undefined);
  const size = Number(/^\/down\/(\d+)/.exec(request.url as string)?.[1] ?? 2);
  if (request.url === '/401') return void response.writeHead(401, { 'content-length': 0 }).end();
  let received = 0;
  request.on('data', (chunk: Buffer) => (received += chunk.length));
  request.once('end', () => {
    const body = request.method === 'POST' ? Buffer.from(String(received)) : Buffer.alloc(size, 'x');
    response.writeHead(200, { 'content-length': body.length }).end(body);
  });
};

t.test(`${seconds} s of mixed load: flat, and nothing lost (seed ${seed})`, async (t) => {
  if (seconds === 0) return t.comment('left out, as asked');
  t.comment(`seed ${seed}`);
  const place = await startPlace(t, { good: answer });
  const { proxy, broker, stack, port, admin } = place;
  const pid = proxy.child.pid as number;
  const trust = readFileSync(stack.files.bundle, 'utf8');
  const random = randomOf(seed);
  const failures: string[] = [];
  const done: Record<string, number> = {};
  let isOver = false;
  let outcomes = 0;
  let refusals = 0;
  const note = (kind: string, text: string, wanted: RegExp): void => {
    done[kind] = (done[kind] ?? 0) + 1;
    if (!wanted.test(text)) failures.push(`${kind}: ${JSON.stringify(text.slice(0, 200))}`);
  };

  /** One request of HTTP/1.1 of some kind. `base` is the absolute form's, or nothing inside of TLS. */
  const one = async (socket: Duplex, base: string): Promise<void> => {
    const say = async (kind: string, head: string, body: string, wanted: RegExp): Promise<void> => {
      const text = await exchange(
        socket as Socket,
        `${head}\r\nHost: ${host}\r\n${body === '' ? '' : `Content-Length: ${body.length}\r\n`}\r\n${body}`,
        wholeResponse,
      );
      note(kind, text, wanted);
    };
    const dice = random();
    if (dice < 0.5) {
      outcomes += 1;
      return say('get', `GET ${base}/ HTTP/1.1`, '', /^HTTP\/1\.1 200 [^]*xx$/);
    }
    if (dice < 0.7) {
      const size = Math.floor(random() ** 3 * 512 * 1024);
      outcomes += 1;
      return say('download', `GET ${base}/down/${size} HTTP/1.1`, '', /^HTTP\/1\.1 200 /);
    }
    if (dice < 0.85) {
      const body = 'y'.repeat(Math.floor(random() ** 3 * 256 * 1024) + 1);
      outcomes += 1;
      return say('upload', `POST ${base}/up HTTP/1.1`, body, new RegExp(`^HTTP/1\\.1 200 [^]*\\r\\n\\r\\n${body.length}$`));
    }
    if (dice < 0.93) {
      refusals += 1;
      return say('refused', `GET ${base}/admin/x HTTP/1.1`, '', /^HTTP\/1\.1 403 /);
    }
    outcomes += 1;
    return say('401', `GET ${base}/401 HTTP/1.1`, '', /^HTTP\/1\.1 401 /);
  };
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5 + random() * 20));
  const intercepted = async (): Promise<Duplex> => {
    const { socket, refusal } = await tunnelTo(port, `${host}:443`);
    if (refusal !== undefined) throw new Error(refusal);
    return secure(socket, trust, host);
  };
  const worker = async (isIntercepted: boolean): Promise<void> => {
    while (!isOver) {
      try {
        const socket = isIntercepted ? await intercepted() : await dial(port);
        // Some connections are used once, some for long.
        const uses = 1 + Math.floor(random() ** 2 * 200);
        for (let i = 0; i < uses && !isOver; i += 1) {
          await one(socket, isIntercepted ? '' : `http://${host}`);
          await pause();
        }
        socket.destroy();
      } catch (error) {
        failures.push((error as Error).message);
      }
    }
  };
  const h2Worker = async (): Promise<void> => {
    while (!isOver) {
      let session: ClientHttp2Session | undefined;
      try {
        const { socket } = await tunnelTo(port, `${host}:443`);
        const secured = connectTls({ socket, ca: trust, servername: host, ALPNProtocols: ['h2'] });
        session = connectH2(`https://${host}`, { createConnection: () => secured });
        for (let i = 0; i < 100 && !isOver; i += 1) {
          const streams = Array.from({ length: 1 + Math.floor(random() * 4) }, async () => {
            const stream = (session as ClientHttp2Session).request({ ':path': `/down/${Math.floor(random() * 4_096)}` });
            outcomes += 1;
            const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
            stream.resume();
            await once(stream, 'close');
            note('h2', String(headers[':status']), /^200$/);
          });
          await Promise.all(streams);
          await pause();
        }
      } catch (error) {
        failures.push(`h2: ${(error as Error).message}`);
      } finally {
        session?.destroy();
      }
    }
  };
  const reloading = async (): Promise<void> => {
    const file = join(stack.files.dir, 'broker.yaml');
    const yaml = readFileSync(file, 'utf8');
    for (let i = 0; !isOver; i += 1) {
      for (let waited = 0; waited < 50 && !isOver; waited += 1) await new Promise((resolve) => setTimeout(resolve, 100));
      writeFileSync(file, `${yaml}# ${i}\n`.replace('name: no-admin', `name: no-admin-${i % 2}`));
    }
  };

  const samples: { readonly resident: number; readonly descriptors: number }[] = [];
  const startedAt = performance.now();
  const workers = [...[false, false, false, true, true].map(worker), h2Worker(), reloading()];
  await eventually(async () => {
    samples.push({ resident: residentMiB(pid).now, descriptors: readdirSync(`/proc/${pid}/fd`).length });
    await new Promise((resolve) => setTimeout(resolve, 500));
    return performance.now() - startedAt >= seconds * 1_000 || failures.length > 100;
  });
  isOver = true;
  await Promise.all(workers);
  const reloads = await metric({ port: broker.ports['admin'] as number }, 'outrider_broker_configuration_reloads_total', 'result="ok"');
  const fifth = Math.floor(samples.length / 5);
  const of = (from: number, what: keyof (typeof samples)[number]): number =>
    median(samples.slice(from, from + fifth).map((sample) => sample[what]));
  const [early, late] = [of(fifth, 'resident'), of(samples.length - fifth, 'resident')];
  const [earlyOpen, lateOpen] = [of(fifth, 'descriptors'), of(samples.length - fifth, 'descriptors')];
  const requests = Object.values(done).reduce((sum, count) => sum + count, 0);
  t.comment(
    `${requests} requests (${JSON.stringify(done)}), ${reloads} reloads; memory ${early.toFixed(1)} → ${late.toFixed(1)} MiB, descriptors ${earlyOpen} → ${lateOpen}`,
  );
  t.same(failures.slice(0, 10), [], `${failures.length} failures`);
  t.ok(late - early <= growthMiBMax, `memory grew by ${(late - early).toFixed(1)} MiB ≤ ${growthMiBMax}`);
  t.ok(lateOpen - earlyOpen <= descriptorsMax, `descriptors ${earlyOpen} → ${lateOpen}`);
  t.ok(reloads > 0);
  await eventually(async () => (await metric(admin, 'outrider_proxy_connections', 'client')) === 0);
  t.equal(await proxy.stop(), 0);
  const ids: Record<string, Set<string>> = { intent: new Set(), outcome: new Set(), refusal: new Set() };
  for (const line of readFileSync(stack.files.events, 'utf8').split('\n')) {
    if (line === '') continue;
    const { kind, requestId } = JSON.parse(line) as { kind: string; requestId: string };
    ids[kind]?.add(requestId);
  }
  // By request: one that is tried again with a fresh credential has an intent and an outcome for each try.
  t.equal(ids['outcome']?.size, outcomes, 'each request that was sent on has its outcome');
  t.same(
    [...(ids['outcome'] ?? [])].filter((id) => !ids['intent']?.has(id)),
    [],
    'and each its intent',
  );
  t.equal(ids['refusal']?.size, refusals, 'each refusal is on record');
});
