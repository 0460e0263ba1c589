import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Between, between, files, host, outcomeOf, until } from '../support/between.ts';
import { untilStill } from '../net/outbound/targets.ts';
import type { Path, PathOptions } from '../support/path.ts';

/**
 * Programs that end without a word while the proxy does not read from them. node:http2 reads nothing while an answer waits to be written, and
 * drops the error of that write: the connection would stay for ever.
 */
interface Frozen {
  readonly path: Path;
  readonly origin: Between['origin'];
  readonly child: ChildProcess;
  readonly clients: () => number;
}

/** A program in a process of its own that has stopped in the middle of an answer without an end; every buffer between it and the target is full. */
const frozen = async (t: Test, clientPatience: PathOptions['clientPatience']): Promise<Frozen> => {
  let clients = 0;
  let produced = 0;
  const endless: RequestListener = (_request, response) => {
    const block = Buffer.alloc(16 * 1024);
    const more = (): void => {
      let isRoom = true;
      while (isRoom && !response.destroyed) {
        isRoom = response.write(block);
        produced += block.length;
      }
      response.once('drain', more);
    };
    more();
  };
  const { path, origin } = await between(t, createTlsServer(files, endless), {
    onConnections: (_kind, delta) => (clients += delta),
    ...(clientPatience ? { clientPatience } : {}),
  });
  const child = spawn(process.execPath, [join(import.meta.dirname, 'killed/program.ts'), String(path.port), host], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.end(path.bundle);
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  await untilStill(() => produced);
  t.equal(clients, 1);
  return { path, origin, child, clients: () => clients };
};

t.test('a program that is killed while an answer waits for it is gone soon after', async (t) => {
  const { path, origin, child, clients } = await frozen(t, { lostLookMs: 20 });
  t.equal(path.events.filter(({ kind }) => kind !== 'intent').length, 0, 'it is waited for while it lives');
  child.kill('SIGKILL');
  t.equal((await outcomeOf(path)).outcome?.fault, 'client_closed');
  await until(() => clients() === 0 && origin.sockets.size === 0);
  t.pass('and its connection, and the one to the target, are closed');
});

t.test('a program that has stopped for longer than anybody waits is left, though it takes no goodbye', async (t) => {
  const { path, origin, clients } = await frozen(t, { stallMs: 50, keepAliveMs: 50 });
  t.equal((await outcomeOf(path)).outcome?.fault, 'client_closed');
  await until(() => clients() === 0 && origin.sockets.size === 0);
  t.pass('its connection, and the one to the target, are closed');
});
