import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type DemoProcess, launch, npmStart, shell, startDemo } from '../support/demo-process.ts';
import { root } from '../support/source-tree.ts';
import { directoryOf } from '../support/directory.ts';

const main = join(root, 'src/main.ts');

/** Ends a running command by code that throws in the middle of it. */
const crashed = async (code: string): Promise<{ status: unknown; errors: string }> => {
  const child = launch([
    process.execPath,
    ['--import', `data:text/javascript,setTimeout(() => { ${code} }, 100)`, main, 'collector', '--config', 'config/demo/collector.yaml'],
  ]);
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const [status] = (await once(child, 'close')) as [number];
  return { status, errors };
};

t.test('a bug ends the process with one line that says where it is', async (t) => {
  for (const code of ["throw new TypeError('a bug')", "Promise.reject(new TypeError('a bug'))"]) {
    const { status, errors } = await crashed(code);
    t.equal(status, 1, code);
    const last = errors.trim().split('\n').at(-1) ?? '';
    t.match(JSON.parse(last), {
      level: 'error',
      message: 'crashed: please report this',
      error: { name: 'TypeError', message: 'a bug', stack: /data:text/ },
    });
  }
});

t.test('a reader that has gone away is no failure', async (t) => {
  const { err } = await shell(`{ '${process.execPath}' '${main}' --help; echo "status $?" >&2; } | :`);
  t.equal(err, 'status 0\n');
});

/** A request through the proxy whose body is not complete: it is in flight until `rest` is called. */
const hold = async (t: Test, demo: DemoProcess): Promise<{ rest: () => Promise<string> }> => {
  const socket = connect(Number(new URL(demo.proxy).port), '127.0.0.1');
  t.teardown(() => socket.destroy());
  socket.write('POST http://echo.outrider.test/held HTTP/1.1\r\nHost: echo.outrider.test\r\nContent-Length: 8\r\n\r\nhalf');
  const events = join(demo.directory, 'events.jsonl');
  while (!readFileSync(events, 'utf8').includes('/held')) await new Promise((resolve) => setImmediate(resolve));
  let answer = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    answer += text;
  });
  return {
    rest: async () => {
      socket.write('half');
      await once(socket, 'close');
      return answer;
    },
  };
};

const start = (t: Test, directory: string): Promise<DemoProcess> => startDemo(t, npmStart('--any-port', '--dir', directory), directory);

const saidStopping = async (demo: DemoProcess): Promise<void> => {
  while (!demo.output().endsWith('stopping\n')) await once(demo.child.stdout as NodeJS.ReadableStream, 'data');
};

t.test('the first signal lets what is in flight finish', async (t) => {
  const demo = await start(t, directoryOf(t));
  const held = await hold(t, demo);
  const status = demo.stop('SIGTERM');
  await saidStopping(demo);
  const answer = await held.rest();
  t.match(answer, /^HTTP\/1\.1 200 /);
  t.match(answer, '"body": "halfhalf"');
  t.equal(await status, 0);
});

t.test('a second signal does not wait', async (t) => {
  const demo = await start(t, directoryOf(t));
  await hold(t, demo);
  const ended = demo.stop('SIGTERM');
  await saidStopping(demo);
  t.equal(demo.child.exitCode, null, 'it waits for the request');
  const begun = performance.now();
  await demo.stop('SIGTERM');
  t.equal(await ended, 143);
  t.ok(performance.now() - begun < 5_000, 'long before the drain timeout');
});

t.test('SIGUSR1 opens no debugger', async (t) => {
  const demo = await start(t, directoryOf(t));
  let errors = '';
  demo.child.stderr?.on('data', (text: string) => {
    errors += text;
  });
  demo.child.kill('SIGUSR1');
  t.equal((await fetch(demo.frontDoor)).status, 200, 'and does no harm');
  t.equal(await demo.stop(), 0);
  t.equal(errors, '');
});
