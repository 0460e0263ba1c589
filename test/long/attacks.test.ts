import { once } from 'node:events';
import { connect as connectH2, type ClientHttp2Session } from 'node:http2';
import { readFileSync } from 'node:fs';
import { connect as connectTls } from 'node:tls';
import t, { type Test } from 'tap';
import { tunnelTo } from '../support/path.ts';
import { residentMiB } from '../support/processes.ts';
import { eventually, host, metric } from '../support/stack.ts';
import { startGood } from './crowd/good.ts';
import { type Crowded, slowHost, startPlace } from './crowd/place.ts';

/**
 * One attack after another on a proxy of the bundle, each in a process of its own, beside good requests: memory stays below the ceiling that
 * core/limits.ts names, and afterwards the proxy serves as before (THREATS I9, S-1, S-2, S-3, S-6, 19).
 */
const seconds = Number(process.env['ATTACK_SECONDS'] ?? 20);
const memoryMiBMax = 320;
t.setTimeout(1_200_000);

interface Attack {
  readonly name: string;
  /** Resolves once it is under way; stopped by what it resolves with. */
  readonly begin: (t: Test, place: Crowded) => Promise<() => void>;
  readonly slowPlacement?: string;
}

const crowdOf =
  (count: number, ...kinds: string[]) =>
  async (_t: Test, place: Crowded): Promise<() => void> => {
    const { counts, stop } = place.crowd(count, kinds, 2_000);
    await eventually(() => counts().opened >= count);
    return stop;
  };

const h2Sessions = async (place: Crowded, count: number, use: (session: ClientHttp2Session) => void): Promise<() => void> => {
  const sessions: ClientHttp2Session[] = [];
  const ca = readFileSync(place.stack.files.bundle, 'utf8');
  let isOver = false;
  const open = async (): Promise<void> => {
    while (!isOver) {
      const { socket, refusal } = await tunnelTo(place.port, `${slowHost}:443`).catch(() => ({ socket: undefined, refusal: '' }));
      if (socket === undefined || refusal !== undefined) {
        await new Promise((resolve) => setTimeout(resolve, 200));
        continue;
      }
      const secured = connectTls({ socket, ca, servername: slowHost, ALPNProtocols: ['h2'] });
      secured.on('error', () => undefined);
      const session = connectH2(`https://${slowHost}`, { createConnection: () => secured });
      session.on('error', () => undefined);
      const closed = once(session, 'close').catch(() => undefined);
      sessions.push(session);
      // It may have ended while this one was being opened.
      if (isOver) session.destroy();
      session.once('connect', () => use(session));
      await closed;
    }
  };
  for (let i = 0; i < count; i += 1) void open();
  await eventually(() => sessions.length >= count);
  return () => {
    isOver = true;
    for (const session of sessions) session.destroy();
  };
};

const streams = (count: number, method: string, path: string) => (session: ClientHttp2Session) => {
  for (let i = 0; i < count && !session.destroyed && !session.closed; i += 1) {
    const stream = session.request({ ':method': method, ':path': path }, { endStream: method === 'GET' });
    stream.on('error', () => undefined);
    if (method === 'POST') stream.write(Buffer.alloc(256 * 1024));
  }
};

const attacks: readonly Attack[] = [
  { name: '4,096 connections that say nothing', begin: crowdOf(4_096, 'silent') },
  { name: '2,000 heads by the byte', begin: crowdOf(2_000, 'head') },
  { name: '2,000 heads of 30 KiB that do not end', begin: crowdOf(2_000, 'head-bomb') },
  { name: '2,000 TLS handshakes that stop', begin: crowdOf(2_000, 'handshake') },
  { name: '2,000 bodies by the byte', begin: crowdOf(2_000, 'body') },
  { name: '2,000 large answers that nobody reads', begin: crowdOf(2_000, 'reader') },
  { name: '1,000 uploads to a target that does not read', begin: crowdOf(1_000, 'upload') },
  {
    name: '1,000 bodies that a placement needs whole',
    begin: crowdOf(1_000, 'held'),
    slowPlacement: '{ kind: body_field, format: json, field: /token }',
  },
  {
    name: '100 HTTP/2 connections with 256 unread answers each',
    begin: (_t, place) => h2Sessions(place, 100, streams(256, 'GET', '/big')),
  },
  {
    name: '100 HTTP/2 connections with 100 uploads each that wait',
    begin: (_t, place) => h2Sessions(place, 100, streams(100, 'POST', '/stall')),
  },
  {
    name: 'HTTP/2 streams that are opened and reset, and settings, as fast as they go',
    begin: (_t, place) =>
      h2Sessions(place, 4, (session) => {
        const flood = (): void => {
          if (session.destroyed || session.closed) return;
          for (let i = 0; i < 50 && !session.destroyed && !session.closed; i += 1) {
            const stream = session.request({ ':path': '/' });
            stream.on('error', () => undefined);
            stream.close(8);
            if (!session.destroyed) session.settings({ initialWindowSize: 65_535 + i }, () => undefined);
          }
          setImmediate(flood);
        };
        flood();
      }),
  },
];

/** ATTACKS chooses some by name. */
for (const attack of attacks.filter(({ name }) => new RegExp(process.env['ATTACKS'] ?? '').test(name))) {
  t.test(
    `${attack.name}: memory stays below ${memoryMiBMax} MiB, and good requests are served after it`,
    { timeout: 240_000 },
    async (t) => {
      if (attack.slowPlacement !== undefined && process.env['ATTACK_HELD'] === '0') return t.comment('left out, as asked');
      const place = await startPlace(t, attack.slowPlacement === undefined ? {} : { slowPlacement: attack.slowPlacement });
      const pid = place.proxy.child.pid as number;
      const idle = residentMiB(pid).now;
      const good = startGood(place.port, host, 20);
      const stop = await attack.begin(t, place);
      const from = good.sent();
      await eventually(() => good.sent() - from >= 20 * seconds);
      const overloads = await metric(place.admin, 'outrider_proxy_overload_total');
      stop();
      place.release();
      await good.stop();
      const { peak } = residentMiB(pid);
      t.comment(
        `${idle.toFixed(0)} MiB before, ${peak.toFixed(0)} at most; ${good.failures.length} of ${good.sent()} good requests failed meanwhile; ${overloads} closed or refused`,
      );
      t.ok(peak <= memoryMiBMax, `${peak.toFixed(0)} MiB ≤ ${memoryMiBMax} MiB`);
      // A target of its own, and the bounds: what is refused meanwhile was told to come again, and most is not.
      t.ok(good.failures.length <= good.sent() / 2, `${good.failures.length} of ${good.sent()} good requests failed meanwhile`);
      await eventually(async () => (await metric(place.admin, 'outrider_proxy_connections', 'client')) < 50);
      const after = startGood(place.port, host, 50);
      await eventually(() => after.sent() >= 100);
      await after.stop();
      t.same(after.failures, []);
      t.equal(await place.proxy.stop(), 0);
    },
  );
}
