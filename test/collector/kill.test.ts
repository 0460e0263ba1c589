/** A collector process killed with SIGKILL while it stores, again and again: nothing lost, nothing twice (THREATS R-3). */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { systemClock } from '../../src/ops/clock.ts';
import { collectorSettings, freePort, proxyTo, sequencesIn, until, upTo } from './ends.ts';

t.test('killed at random moments under load, once leaving half a line: every event is in the file exactly once', async (t) => {
  const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
  t.comment(`seed ${seed}`);
  const port = await freePort();
  const { settings } = await collectorSettings(t, { port });
  const start = async () => {
    const script = fileURLToPath(new URL('collector-process.ts', import.meta.url));
    const child = spawn(process.execPath, [script, JSON.stringify(settings)], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.teardown(() => child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    return child;
  };
  // Pauses between tries are a tenth as long: timers run ten times as fast.
  const hasty = { ...systemClock, after: (ms: number, callback: () => void) => systemClock.after(ms / 10, callback) };
  const { eventLog, request } = proxyTo(t, port, { clock: hasty });
  let requests = 0;
  let isLoaded = true;
  const load = (async () => {
    while (isLoaded) {
      if (eventLog.waiting() < 4_000) {
        request();
        requests += 1;
      }
      await pause(1);
    }
  })();
  for (let kill = 0; kill < 2; kill += 1) {
    const child = await start();
    const before = eventLog.waiting();
    await until(() => eventLog.waiting() < before);
    await pause((seed >>> (kill * 6)) % 64);
    child.kill('SIGKILL');
    await once(child, 'exit');
    if (kill === 1) appendFileSync(settings.store.file, '{"time":"2026-11-22T03:00:00.000Z","kind":"int');
  }
  isLoaded = false;
  await load;
  await start();
  t.equal(await eventLog.flush(10 * 10_000), 0);
  t.ok(requests > 50, `${requests} requests`);
  t.same(sequencesIn(settings.store.file), upTo(2 * requests));
});
