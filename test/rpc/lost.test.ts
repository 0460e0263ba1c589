import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import t from 'tap';
import { limits } from '../../src/core/limits.ts';
import type { WatchSender } from '../../src/rpc/server/broker.ts';
import { createFakeClock } from '../fakes/clock.ts';
import { broker, createDomain, handlersOf, snapshot } from './trust-domain.ts';

const domain = createDomain();
const connections = (): number => process.getActiveResourcesInfo().filter((name) => name === 'TCPSocketWrap').length;
const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

/** node:http2 reads nothing while an answer waits to be written, and drops the error of that write: its connection would stay for as long as the broker runs. */
t.test('a client that is killed while updates wait for it leaves no connection behind', async (t) => {
  let sender: WatchSender | undefined;
  let isOver = false;
  const clock = createFakeClock();
  const watch = (_: unknown, send: WatchSender, ended: AbortSignal): void => {
    sender = send;
    ended.addEventListener('abort', () => (isOver = true));
    send.snapshot(snapshot());
  };
  const server = await broker(t, domain, { clock, handlers: handlersOf(domain, { watch }) });
  const before = connections();
  const child = spawn(process.execPath, [join(import.meta.dirname, 'lost/watcher.ts'), String(server.address.port)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  const { certificateChainPem: cert, privateKey } = domain.svid();
  child.stdin.end(
    JSON.stringify({ ca: domain.authority.certificatePem, cert, key: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string }),
  );
  await once(child.stdout, 'data');
  // Until every buffer between the two is full, and the broker has given the watch up for it.
  const [target] = snapshot().targets;
  const targets = Array.from({ length: 1_000 }, (_, i) => ({ ...(target as NonNullable<typeof target>), name: `echo-${i}` }));
  for (let i = 0; !isOver; i += 1) {
    sender?.snapshot({ configurationVersion: `v${i}`, targets });
    await turns(2);
  }
  await turns(200);
  t.equal(connections(), before + 1);
  child.kill('SIGKILL');
  await once(child, 'exit');
  while (connections() > before) {
    clock.advance(limits.lostLookMs);
    await turns(10);
  }
  t.equal(connections(), before);
});
