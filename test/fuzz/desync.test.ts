import t from 'tap';
import { startRecorder } from '../fakes/recorder.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { directoryOf } from '../support/directory.ts';
import { host, judge, runAll, withoutBodies } from './desync.ts';
import { origins } from './origins.ts';

t.setTimeout(600_000);

/** Node's parser is ours, too, and the quickest; the others see the same kind of input, fewer of them. */
const inputs = 4_000;
const fewer = 1_200;

t.test('the oracle tells fields from bodies', async (t) => {
  const head =
    'PUT /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX: trailer\r\n\r\nGET /c HTTP/1.1\r\n\r\n';
  t.notMatch(withoutBodies(head), /body/);
  t.match(withoutBodies(head), /\/a[^]*\/b[^]*X: trailer[^]*\/c/);
  t.equal(withoutBodies('PUT /a HTTP/1.1\r\nContent-Length: 44\r\n\r\nbroken off'), 'PUT /a HTTP/1.1\r\nContent-Length: 44\r\n\r\n');
});

t.test('Node as origin sees only what was intended', async (t) => {
  const origin = await startRecorder(createTestAuthority().serverFor(host));
  t.teardown(() => origin.close());
  const events = await runAll(t, directoryOf(t), origin.httpPort, inputs);
  judge(
    t,
    inputs,
    events,
    origin.requests.map(({ url, rawHeaders }) => ({
      path: url,
      authorization: rawHeaders
        .flatMap((name, i) => (name.toLowerCase() === 'authorization' && i % 2 === 0 ? [rawHeaders[i + 1] as string] : []))
        .join(),
    })),
  );
  t.notMatch(origin.raw().map(withoutBodies).join('\n'), /Bearer theirs/, 'not in a head, and not in trailers');
});

for (const { name, isThere, start } of origins) {
  t.test(`${name} as origin sees only what was intended`, async (t) => {
    if (!isThere()) {
      t.notOk(process.env['OUTRIDER_REQUIRE_CLIENTS'], `${name} is installed where clients are required`);
      return t.comment(`${name} is not installed here: left out`);
    }
    const dir = directoryOf(t);
    const origin = await start(t, dir);
    const events = await runAll(t, dir, origin.port, fewer);
    judge(t, fewer, events, await origin.seen());
  });
}
