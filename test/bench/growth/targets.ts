/** 10 targets and 10,000: the same requests, spread over ten of them, through two proxies in turn. */
import { median, short, spread, times } from '../figures.ts';
import type { Part } from '../growth.ts';
import type { Measured } from '../load.ts';
import { cores, familyOf, residentMiB } from '../machine.ts';
import { body } from '../origin.ts';
import { credentialThrough, prepareOutrider } from '../outrider.ts';

const few = 10;
const many = 10_000;
const asked = 10;
const connections = 64;

/** Every second target has its own names as operators write them. */
const nameOf = (i: number): string => `service-${String(i).padStart(5, '0')}`;
const hostOf = (i: number): string => `${nameOf(i)}.outrider.test`;

const targetsYaml = (count: number): string =>
  Array.from(
    { length: count },
    (_, i) =>
      `  - { name: ${nameOf(i)}, hosts: [${hostOf(i)}], ports: [80], cleartext: allowed, credentials: [{ provider: echo-token, placement: { kind: bearer } }] }`,
  ).join('\n');

const policiesYaml = `  - name: bench
    rules:
      - { name: use, effect: allow, workloads: [demo-app] }`;

export const targetsPart: Part = async ({ t, dir, bundle, ask, origin, authority, effort, say }) => {
  const sides = [];
  for (const count of [few, many]) {
    const begun = performance.now();
    // Spread over all of them, so that neither order nor neighbourhood helps.
    const chosen = Array.from({ length: asked }, (_, i) => Math.floor((i * count) / asked));
    const outrider = await prepareOutrider(t, {
      dir,
      bundle,
      originCa: authority.pem,
      targets: targetsYaml(count),
      policies: policiesYaml,
      pins: chosen.map((i) => ({ host: hostOf(i), port: 80, originPort: origin.clearPort })),
    });
    const proxy = outrider.startProxy();
    await credentialThrough(outrider, origin, hostOf(0));
    say(`${count} targets: everything is up after ${((performance.now() - begun) / 1_000).toFixed(1)} s`);
    const requests = chosen.map(
      (i) => `GET http://${hostOf(i)}/1k HTTP/1.1\r\nHost: ${hostOf(i)}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n`,
    );
    const load = { port: outrider.port, requests, expect: body, connections };
    sides.push({ count, outrider, proxy, load, idleMiB: residentMiB(familyOf(proxy.pid)), rounds: [] as Measured[] });
  }
  for (const { load, proxy } of sides) await ask({ ...load, seconds: 1 }, proxy.pid);
  for (let round = 1; round <= effort.rounds; round += 1) {
    for (const { count, load, proxy, rounds } of sides) {
      const measured = await ask({ ...load, seconds: effort.seconds }, proxy.pid);
      rounds.push(measured);
      say(`round ${round} ${count} targets: ${measured.cpuMicros.toFixed(1)} µs`);
      t.equal(measured.failed, 0, `${count} targets: ${measured.firstWrong || 'every answer is right'}`);
    }
  }
  for (const { outrider, proxy } of sides) {
    await proxy.stop();
    await outrider.collector.stop();
    await outrider.broker.stop();
  }
  const cost = sides.map(({ rounds }) => median(rounds.map(({ cpuMicros }) => cpuMicros)));
  const ratio = times((cost[1] as number) / (cost[0] as number));
  return {
    title: 'Targets',
    budget: [`CPU a request with ${many.toLocaleString('en-US')} targets next to ${few}`, ratio, '≤ 1.1×'],
    intro: `Clear text, ${connections} connections, requests spread over ${asked} targets; both proxies on core ${cores.product}, in turn.`,
    titles: ['targets', `CPU, ${few} targets = 1`, 'CPU a request, µs', 'requests/s', 'resident when idle, MiB', 'at the highest, MiB'],
    rows: sides.map(({ count, rounds, idleMiB }, i) => [
      count.toLocaleString('en-US'),
      times((cost[i] as number) / (cost[0] as number)),
      spread(rounds.map(({ cpuMicros }) => cpuMicros)),
      spread(rounds.map(({ answered, seconds }) => answered / seconds)),
      short(idleMiB),
      short(Math.max(...rounds.map(({ peakMiB }) => peakMiB))),
    ]),
  };
};
