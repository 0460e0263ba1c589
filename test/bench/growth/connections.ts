/** One connection to a thousand, each asking as soon as it was answered. */
import { median, short, spread } from '../figures.ts';
import type { Part } from '../growth.ts';
import type { Measured } from '../load.ts';
import { body } from '../origin.ts';
import { credentialThrough, prepareOutrider } from '../outrider.ts';
import { host } from '../../support/stack.ts';

const counts = [1, 10, 100, 1_000];
/** Each is short, and there are no others to alternate with. */
const roundsMax = 3;

export const connectionsPart: Part = async ({ t, dir, bundle, ask, origin, authority, effort, say }) => {
  const outrider = await prepareOutrider(t, {
    dir,
    bundle,
    originCa: authority.pem,
    pins: [{ host, port: 80, originPort: origin.clearPort }],
  });
  const proxy = outrider.startProxy();
  await credentialThrough(outrider, origin);
  const requests = [`GET http://${host}/1k HTTP/1.1\r\nHost: ${host}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n`];
  const load = { port: outrider.port, requests, expect: body };
  await ask({ ...load, connections: 10, seconds: 1 }, proxy.pid);
  const measured = new Map<number, Measured[]>(counts.map((count) => [count, []]));
  for (let round = 1; round <= Math.min(effort.rounds, roundsMax); round += 1) {
    for (const count of counts) {
      const one = await ask({ ...load, connections: count, seconds: effort.seconds }, proxy.pid);
      measured.get(count)?.push(one);
      say(`round ${round} ${count} connections: ${one.cpuMicros.toFixed(1)} µs, p99 ${one.p99Ms.toFixed(1)} ms`);
      t.equal(one.failed, 0, `${count} connections: ${one.firstWrong || 'every answer is right'}`);
    }
  }
  await proxy.stop();
  await outrider.collector.stop();
  await outrider.broker.stop();
  return {
    title: 'Connections',
    intro: 'Clear text; every connection asks as soon as it was answered, so times are those of a full queue.',
    titles: ['connections', 'CPU a request, µs', 'requests/s', 'p50, ms', 'p99, ms', 'resident at the highest, MiB', 'wrong answers'],
    rows: [...measured].map(([count, rounds]) => [
      count.toLocaleString('en-US'),
      spread(rounds.map(({ cpuMicros }) => cpuMicros)),
      spread(rounds.map(({ answered, seconds }) => answered / seconds)),
      short(median(rounds.map(({ p50Ms }) => p50Ms))),
      short(median(rounds.map(({ p99Ms }) => p99Ms))),
      short(Math.max(...rounds.map(({ peakMiB }) => peakMiB))),
      String(rounds.reduce((sum, { failed }) => sum + failed, 0)),
    ]),
  };
};
