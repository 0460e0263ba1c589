import t from 'tap';
import { residentMiB } from '../support/processes.ts';
import { eventually, host, metric } from '../support/stack.ts';
import { startGood } from './crowd/good.ts';
import { startPlace } from './crowd/place.ts';

/**
 * 10,000 programs that are slow in every way there is, beside good ones at 200 requests a second: none of the good ones fails, nor waits much
 * longer (THREATS S-1, 19, 22). The proxy takes fewer than 10,000 connections: who keeps it waiting makes room for who does not.
 */
const seconds = Number(process.env['SLOW_SECONDS'] ?? 40);
const slowCount = Number(process.env['SLOW_COUNT'] ?? 10_000);
const perSecond = 200;
const memoryMiBMax = 320;
t.setTimeout(seconds * 1_000 + 180_000);

t.test(`${slowCount} slow connections beside ${perSecond} good requests a second`, async (t) => {
  const place = await startPlace(t);
  const pid = place.proxy.child.pid as number;
  // What they are like alone.
  const alone = startGood(place.port, host, perSecond);
  await eventually(() => alone.sent() >= perSecond * 5);
  await alone.stop();
  t.same(alone.failures, []);
  const kinds = [
    'silent',
    'head',
    'kept',
    'handshake',
    'silent',
    'head',
    'kept',
    'handshake',
    'silent',
    'head',
    'kept',
    'silent',
    'head',
    'kept',
    'body',
    'body',
    'body',
    'head-bomb',
    'silent',
    'reader',
  ];
  const good = startGood(place.port, host, perSecond);
  const crowd = place.crowd(slowCount, kinds, 60_000);
  await eventually(() => crowd.counts().opened >= slowCount);
  const from = good.sent();
  await eventually(() => good.sent() - from >= seconds * perSecond);
  const counts = crowd.counts();
  const held = await metric(place.admin, 'outrider_proxy_connections', 'client');
  const { peak } = residentMiB(pid);
  const text = await (await fetch(`http://127.0.0.1:${place.admin.port}/metrics`)).text();
  const closed = [...text.matchAll(/^outrider_proxy_overload_total\{reason="(\w+)"\} (\d+)/gm)]
    .map(([, why, count]) => `${why} ${count}`)
    .join(', ');
  crowd.stop();
  await good.stop();
  t.comment(
    `${good.sent()} good requests (${good.repeated()} repeated), p50 ${good.quantile(0.5).toFixed(1)} ms, p99 ${good.quantile(0.99).toFixed(1)} ms (alone ${alone.quantile(0.5).toFixed(1)} and ${alone.quantile(0.99).toFixed(1)} ms); slow connections: ${JSON.stringify(counts)}, ${held} held by the proxy, closed or refused: ${closed}; memory at most ${peak.toFixed(0)} MiB`,
  );
  const kindsOf = new Map<string, number>();
  for (const one of good.failures) kindsOf.set(one, (kindsOf.get(one) ?? 0) + 1);
  t.same([...kindsOf].slice(0, 20), [], `${good.failures.length} good requests failed`);
  t.ok(good.repeated() <= good.sent() / 200, `${good.repeated()} were sent a second time`);
  t.ok(good.sent() >= seconds * perSecond);
  t.ok(counts.opened >= slowCount, `${counts.opened} slow connections were opened`);
  t.ok(held > 700, `and ${held} are held`);
  t.ok(peak <= memoryMiBMax, `${peak.toFixed(0)} MiB ≤ ${memoryMiBMax} MiB`);
  t.equal(await place.proxy.stop(), 0);
});
