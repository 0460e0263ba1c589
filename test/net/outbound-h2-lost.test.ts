import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import t from 'tap';
import { authority, bodyOf, host, outboundFor, requestOf, send, untilStill } from './outbound/targets.ts';

/** node:http2 reads nothing while a request waits to be written, and drops the error of that write: a target that was killed would be waited for until the next ping. */
t.test('a target that is killed while an upload waits for it is given up soon after', async (t) => {
  const { key, cert } = authority.serverFor(host);
  const child = spawn(process.execPath, [join(import.meta.dirname, 'outbound/frozen.ts')], { stdio: ['pipe', 'pipe', 'inherit'] });
  child.stdin.end(key + cert);
  t.teardown(() => child.kill('SIGKILL'));
  const [port] = (await once(child.stdout, 'data')) as [Buffer];
  let produced = 0;
  const body = async function* (): AsyncGenerator<Uint8Array> {
    for (;;) {
      produced += 16 * 1024;
      yield Buffer.alloc(16 * 1024);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const outbound = outboundFor(t, Number(port), { patience: { lostLookMs: 20 } });
  const received = send(outbound, requestOf({ scheme: 'https', connection: { protocol: 'h2' }, method: 'POST', body: bodyOf(body()) }));
  await once(child.stdout, 'data');
  await untilStill(() => produced);
  child.kill('SIGKILL');
  t.equal((await received.ended).fault?.code, 'target_closed');
});
