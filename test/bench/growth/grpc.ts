/** gRPC by the real client and server, processes of their own, through a reverse route and without the proxy. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { short, spread, times, median } from '../figures.ts';
import type { Part } from '../growth.ts';
import { cores, cpuSeconds, familyOf, pinned, start } from '../machine.ts';
import { credentialThrough, otherHosts, prepareOutrider } from '../outrider.ts';
import { host } from '../../support/stack.ts';

const peer = join(import.meta.dirname, '../grpc-peer.ts');
const kinds: readonly (readonly [kind: string, label: string, concurrency: number])[] = [
  ['unary', 'unary, 32 calls at a time', 32],
  ['stream', 'streaming both ways, 32 streams', 32],
  ['unary', 'unary, one call at a time', 1],
];
const roundsMax = 3;

interface Measured {
  readonly perSecond: number;
  readonly cpuMicros: number;
}

export const grpcPart: Part = async ({ t, dir, bundle, origin, authority, effort, say }) => {
  const { cert, key } = authority.serverFor(otherHosts.grpc);
  const files = { cert: join(dir, 'grpc.pem'), key: join(dir, 'grpc.key'), ca: join(dir, 'grpc-ca.pem') };
  writeFileSync(files.cert, cert);
  writeFileSync(files.key, key, { mode: 0o600 });
  writeFileSync(files.ca, authority.pem);
  const server = start(t, cores.load, [process.execPath, peer, 'server', files.cert, files.key], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [port] = (await once(createInterface({ input: server.child.stdout as NodeJS.ReadableStream }), 'line')) as [string];
  const outrider = await prepareOutrider(t, {
    dir,
    bundle,
    originCa: authority.pem,
    pins: [
      { host, port: 80, originPort: origin.clearPort },
      { host: otherHosts.grpc, port: 443, originPort: Number(port) },
    ],
    routes: [`https://${otherHosts.grpc}`],
  });
  const proxy = outrider.startProxy();
  await credentialThrough(outrider, origin);

  const measure = async (address: string, ca: string, kind: string, concurrency: number, pid?: number): Promise<Measured> => {
    const command = [process.execPath, peer, 'client', address, ca, otherHosts.grpc, kind, String(concurrency), String(effort.seconds)];
    const [program, ...args] = pinned(cores.load, command);
    const client = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let complaint = '';
    client.stderr.on('data', (chunk: Buffer) => (complaint += chunk));
    const lines = createInterface({ input: client.stdout })[Symbol.asyncIterator]();
    const next = async (): Promise<string> => {
      const { value, done } = await lines.next();
      if (done) throw new Error(complaint);
      return value;
    };
    await next();
    const watched = pid === undefined ? [] : familyOf(pid);
    const before = cpuSeconds(watched);
    client.stdin.write('go\n');
    const { perSecond, answered, failed, first } = JSON.parse(await next()) as {
      perSecond: number;
      answered: number;
      failed: number;
      first: string;
    };
    const used = cpuSeconds(watched) - before;
    t.equal(failed, 0, `${kind} × ${concurrency}: ${first || 'every message came back'}`);
    return { perSecond, cpuMicros: (used / answered) * 1e6 };
  };

  const rows: string[][] = [];
  for (const [kind, label, concurrency] of kinds) {
    const through: Measured[] = [];
    const direct: Measured[] = [];
    for (let round = 1; round <= Math.min(effort.rounds, roundsMax); round += 1) {
      direct.push(await measure(`127.0.0.1:${port}`, files.ca, kind, concurrency));
      through.push(await measure(`127.0.0.1:${outrider.routePorts[0]}`, '', kind, concurrency, proxy.pid));
    }
    const pace = (list: readonly Measured[]): number[] => list.map(({ perSecond }) => perSecond);
    say(`${label}: ${pace(through).map(short).join(' ')}/s, direct ${pace(direct).map(short).join(' ')}/s`);
    rows.push([
      label,
      times(median(pace(through)) / median(pace(direct))),
      spread(pace(through)),
      spread(pace(direct)),
      spread(through.map(({ cpuMicros }) => cpuMicros)),
    ]);
  }
  await proxy.stop();
  await server.stop();
  await outrider.collector.stop();
  await outrider.broker.stop();
  return {
    title: 'gRPC',
    intro:
      'Messages of 100 bytes, answered one for one by @grpc/grpc-js. HTTP/2 in clear text to a reverse route and TLS to the origin; without the proxy, TLS. Client and origin share a core.',
    titles: ['', 'direct = 1', 'messages/s', 'direct, messages/s', 'CPU a message, µs'],
    rows,
  };
};
