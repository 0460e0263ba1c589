/** A test for every cell of one way in, and for what the table says of trust. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { promisify } from 'node:util';
import type { Test } from 'tap';
import { type ClientUnderTest, underTest } from './cells.ts';
import { gitEnvironment } from './origin/git.ts';
import { type Place, runIn } from './place.ts';
import { clients, protocols, type Protocol } from './table.ts';

const isInstalled = async ([program, ...args]: readonly string[]): Promise<boolean> => {
  try {
    await promisify(execFile)(program as string, args);
    return true;
  } catch {
    return false;
  }
};

/** OUTRIDER_REQUIRE_CLIENTS makes what is not installed a failure; without it (a newcomer's machine) it is left out with a word. */
const isThere = (t: Test, name: string, isFound: boolean): boolean => {
  if (isFound) return true;
  t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], `${name} is installed where clients are required`);
  t.comment(`${name} is not installed here: left out`);
  return false;
};

const testedAs = (name: string): ClientUnderTest => {
  const tested = underTest[name];
  if (!tested) throw new Error(`no test knows ${name}`);
  return tested;
};

const placeFor = (name: string, place: Place): Place =>
  name === 'git'
    ? { ...place, environment: (variables) => ({ ...gitEnvironment(place.directory), ...place.environment(variables) }) }
    : place;

/** `also`: what a client needs beside itself, and whether it is there. */
export const matrix = (t: Test, place: Place, also: Readonly<Record<string, boolean>>): void => {
  for (const client of clients) {
    const { name } = client;
    const { probe, proves, cell } = testedAs(name);
    for (const protocol of client[place.mode]) {
      t.test(`${name}, ${place.mode}, ${protocols[protocol]}: ${proves}`, { timeout: 120_000 }, async (t) => {
        if (!isThere(t, name, (await isInstalled(probe)) && also[name] !== false)) return;
        place.origin.taken();
        await cell(t, placeFor(name, place), client, protocol);
      });
    }
  }
};

const overTls: readonly Protocol[] = ['https', 'wss', 'grpc'];

/** What the table says of trust is what it takes: for each client that it says something of. */
export const withoutTrust = (t: Test, place: Place): void => {
  for (const client of clients) {
    const { name } = client;
    const { probe, cell, distrust = /certificate|self[- ]signed|PKIX|SSL/i } = testedAs(name);
    const protocol = client[place.mode].find((protocol) => overTls.includes(protocol));
    if (!protocol) continue;
    t.test(
      `${name}, ${place.mode}, ${protocols[protocol]}: refuses the proxy when it is not told to trust it`,
      { timeout: 120_000 },
      async (t) => {
        if (!isThere(t, name, await isInstalled(probe))) return;
        place.origin.taken();
        const untold: Place = { ...placeFor(name, place), bundleFile: place.originCaFile };
        await t.rejects(cell(t, untold, { ...client, variables: [] }, protocol), distrust);
        t.same(place.origin.taken(), [], 'and sends nothing');
      },
    );
  }
};

/** Clients that read no proxy variable unless the program helps: without that help they go where they were told to go themselves. */
export const withoutHelp = (t: Test, place: Place): void => {
  for (const { name, variables } of clients) {
    const { probe, alone } = testedAs(name);
    if (!alone) continue;
    t.test(`${name}, ${place.mode}: goes around the proxy when the program does not help it`, { timeout: 120_000 }, async (t) => {
      if (!isThere(t, name, await isInstalled(probe))) return;
      let connections = 0;
      const server = createServer((socket) => {
        connections += 1;
        socket.destroy();
      }).listen(0, '127.0.0.1');
      t.teardown(() => server.close());
      await once(server, 'listening');
      const everywhere: Place = {
        ...place,
        environment: (names) => ({ ...place.environment(names), NODE_USE_ENV_PROXY: '1', no_proxy: '', NO_PROXY: '' }),
      };
      await t.rejects(runIn(everywhere, variables, alone(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)));
      t.ok(connections > 0, 'which is not the proxy');
    });
  }
};
