/** Bodies of 1 KiB to 100 MiB, down and up, through the proxy and without it. The origin is load.go's. */
import { createInterface } from 'node:readline';
import { once } from 'node:events';
import { short, times } from '../figures.ts';
import type { Part } from '../growth.ts';
import type { Terms } from '../products.ts';
import { cores, start } from '../machine.ts';
import { credentialThrough, otherHosts, prepareOutrider } from '../outrider.ts';
import { host } from '../../support/stack.ts';

const sizes: readonly (readonly [string, number])[] = [
  ['1 KiB', 1024],
  ['64 KiB', 64 * 1024],
  ['1 MiB', 1024 ** 2],
  ['10 MiB', 10 * 1024 ** 2],
  ['100 MiB', 100 * 1024 ** 2],
];
const connections = 4;
/** Twenty measurements, each with a proxy of its own. */
const secondsMax = 2;

export const bodiesPart: Part = async ({ t, dir, bundle, program, ask, origin, authority, effort, say }) => {
  const server = start(t, cores.load, [program, 'origin', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [address] = (await once(createInterface({ input: server.child.stdout as NodeJS.ReadableStream }), 'line')) as [string];
  const originPort = Number(address.split(':')[1]);
  const outrider = await prepareOutrider(t, {
    dir,
    bundle,
    originCa: authority.pem,
    pins: [
      { host, port: 80, originPort: origin.clearPort },
      { host: otherHosts.bodies, port: 80, originPort },
    ],
  });
  const rows: string[][] = [];
  for (const direction of ['down', 'up'] as const) {
    for (const [label, bytes] of sizes) {
      // A proxy that has done nothing else: what is resident at the highest is this size's.
      const proxy = outrider.startProxy();
      await credentialThrough(outrider, origin);
      const terms = (target: string, port: number, more: string): Terms => ({
        port,
        requests: [
          direction === 'down'
            ? `GET ${target}/bytes/${bytes} HTTP/1.1\r\nHost: ${otherHosts.bodies}\r\n${more}\r\n`
            : `PUT ${target}/up HTTP/1.1\r\nHost: ${otherHosts.bodies}\r\nContent-Length: ${bytes}\r\n${more}\r\n`,
        ],
        uploadBytes: direction === 'up' ? bytes : 0,
        expect: direction === 'down' ? bytes : String(bytes),
      });
      const seconds = Math.min(effort.seconds, secondsMax);
      const direct = await ask({ ...terms('', originPort, 'Authorization: Bearer direct\r\n'), connections, seconds });
      const through = await ask({ ...terms(`http://${otherHosts.bodies}`, outrider.port, ''), connections, seconds }, proxy.pid);
      t.equal(
        direct.failed + through.failed,
        0,
        `${label} ${direction}: ${direct.firstWrong || through.firstWrong || 'every answer is right'}`,
      );
      const pace = ({ answered, seconds: took }: typeof through): number => (answered * bytes) / 1024 ** 2 / took;
      say(`${label} ${direction}: ${pace(through).toFixed(0)} MiB/s, direct ${pace(direct).toFixed(0)}, ${through.peakMiB.toFixed(0)} MiB`);
      rows.push([
        `${label} ${direction}`,
        times(pace(through) / pace(direct)),
        short(pace(through)),
        short(pace(direct)),
        short(through.cpuMicros / (bytes / 1024 ** 2)),
        short(through.peakMiB),
      ]);
      await proxy.stop();
    }
  }
  await server.stop();
  await outrider.collector.stop();
  await outrider.broker.stop();
  return {
    title: 'Bodies',
    intro: `Clear text, ${connections} connections. Without the proxy, client and origin share one core and nothing else is to do.`,
    titles: ['', 'direct = 1', 'MiB/s', 'direct, MiB/s', 'CPU a MiB, µs', 'resident at the highest, MiB'],
    rows,
  };
};
