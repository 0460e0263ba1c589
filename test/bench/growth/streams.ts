/** HTTP/2 by h2load: 1, 10 and 100 streams at a time on each connection. */
import { spread } from '../figures.ts';
import type { Part } from '../growth.ts';
import { h2load, type H2Measured } from '../load.ts';
import { versionOf } from '../machine.ts';
import { credentialThrough, otherHosts, prepareOutrider } from '../outrider.ts';
import { host } from '../../support/stack.ts';

const counts = [1, 10, 100];
const connections = 4;
const roundsMax = 3;

const titles = ['streams a connection', 'CPU a request, µs', 'requests/s', 'wrong answers'];

export const streamsPart: Part = async ({ t, dir, bundle, origin, authority, effort, say }) => {
  const version = versionOf(['h2load', '--version'], /nghttp2\/(\S+)/);
  const intro = `h2load ${version}, 1 KiB answers, ${connections} connections: HTTP/2 in clear text to a reverse route, HTTP/2 over TLS to the origin.`;
  if (version === undefined)
    return { title: 'HTTP/2 streams', intro: 'Not measured: h2load is not installed (nghttp2-client).', titles, rows: [] };
  const outrider = await prepareOutrider(t, {
    dir,
    bundle,
    originCa: authority.pem,
    pins: [
      { host, port: 80, originPort: origin.clearPort },
      { host: otherHosts.h2, port: 443, originPort: origin.h2Port },
    ],
    routes: [`https://${otherHosts.h2}`],
  });
  const proxy = outrider.startProxy();
  await credentialThrough(outrider, origin);
  const url = `http://127.0.0.1:${outrider.routePorts[0]}/1k`;
  await h2load(url, connections, 1, 1);
  const measured = new Map<number, H2Measured[]>(counts.map((count) => [count, []]));
  for (let round = 1; round <= Math.min(effort.rounds, roundsMax); round += 1) {
    for (const count of counts) {
      const one = await h2load(url, connections, count, effort.seconds, proxy.pid);
      measured.get(count)?.push(one);
      say(`round ${round} ${count} streams: ${one.cpuMicros.toFixed(1)} µs, ${one.requestsPerSecond.toFixed(0)}/s, ${one.failed} failed`);
      t.equal(one.failed, 0, `${count} streams a connection: every answer is right`);
    }
  }
  await proxy.stop();
  await outrider.collector.stop();
  await outrider.broker.stop();
  return {
    title: 'HTTP/2 streams',
    intro,
    titles,
    rows: [...measured].map(([count, rounds]) => [
      String(count),
      spread(rounds.map(({ cpuMicros }) => cpuMicros)),
      spread(rounds.map(({ requestsPerSecond }) => requestsPerSecond)),
      String(rounds.reduce((sum, { failed }) => sum + failed, 0)),
    ]),
  };
};
