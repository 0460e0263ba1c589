import t from 'tap';
import { residentMiB } from '../support/processes.ts';
import { eventually, host, metric } from '../support/stack.ts';
import { startGood } from './crowd/good.ts';
import { type Crowd, type Crowded, startPlace } from './crowd/place.ts';

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
  readonly begin: (place: Crowded) => Promise<() => void>;
  readonly slowPlacement?: string;
}

const crowdOf =
  (count: number, ...kinds: string[]) =>
  async (place: Crowded): Promise<() => void> =>
    isUnderWay(place.crowd(count, kinds, 2_000), count);

const h2CrowdOf =
  (count: number, kind: Parameters<Crowded['h2Crowd']>[1]) =>
  async (place: Crowded): Promise<() => void> =>
    isUnderWay(place.h2Crowd(count, kind), count);

const isUnderWay = async ({ counts, stop }: Crowd, count: number): Promise<() => void> => {
  await eventually(() => counts().opened >= count);
  return stop;
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
  { name: '100 HTTP/2 connections with 256 unread answers each', begin: h2CrowdOf(100, 'unread') },
  { name: '100 HTTP/2 connections with 100 uploads each that wait', begin: h2CrowdOf(100, 'uploads') },
  { name: 'HTTP/2 streams that are opened and reset, and settings, as fast as they go', begin: h2CrowdOf(4, 'resets') },
];

/** How many there are of each, by what they begin with. */
const kindsOf = (failures: readonly string[]): Map<string, number> => {
  const kinds = new Map<string, number>();
  for (const failure of failures) {
    const kind = failure.split('\r\n', 1)[0] as string;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return kinds;
};

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
      const stop = await attack.begin(place);
      const from = good.sent();
      await eventually(() => good.sent() - from >= 20 * seconds);
      const overloads = await metric(place.admin, 'outrider_proxy_overload_total');
      stop();
      place.release();
      await good.stop();
      const { peak } = residentMiB(pid);
      for (const [kind, count] of kindsOf(good.failures)) t.comment(`${count} failed so: ${kind}`);
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
