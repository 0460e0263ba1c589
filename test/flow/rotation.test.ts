import t from 'tap';
import { dial, exchange, wholeResponse } from '../support/path.ts';
import { brokerYaml, eventually, host, metric, startStack } from '../support/stack.ts';
import { limits } from '../../src/core/limits.ts';
import { parseSettings } from '../../src/settings/document.ts';

t.test('requests in flight while SVIDs, grants, keys and tokens rotate all succeed', { timeout: 90_000 }, async (t) => {
  // Everything as short-lived as settings allow, so that a few seconds hold many rotations.
  const stack = await startStack(t, {
    svidLifetime: '4s',
    providers: '  - { kind: jwt, name: echo-token, audience: "https://echo.outrider.test", lifetime: 2s }',
    answer: (request, response) => {
      // Some answers take a moment, so that rotations fall into the middle of them.
      setTimeout(() => response.end('ok'), request.url === '/slow' ? 300 : 0);
    },
  });
  const { proxy, broker, issuer, files, projectToken } = stack;
  const failures: string[] = [];
  let count = 0;
  let isDone = false;
  const client = async (path: string): Promise<void> => {
    const socket = await dial(proxy.listen.port);
    while (!isDone) {
      const answer = await exchange(socket, `GET http://${host}${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
      count += 1;
      if (!answer.startsWith('HTTP/1.1 200')) failures.push(answer);
    }
    socket.destroy();
  };
  const renewals = (): Promise<number> => metric(proxy.admin, 'outrider_proxy_svid_renewals_total', 'result="ok"');
  const startedAt = performance.now();
  const rotations = async (): Promise<void> => {
    for (let round = 0; ; round += 1) {
      projectToken();
      // Settings that change nothing for this workload, and settings that do.
      const providers = `  - { kind: jwt, name: echo-token, audience: "https://echo.outrider.test", lifetime: ${2 + (round % 2)}s }`;
      broker.apply(parseSettings(brokerYaml(files, issuer.url, { svidLifetime: '4s', providers }), 'broker.yaml') as never);
      const before = count;
      await eventually(() => count >= before + 200);
      // Once, later than the broker's pause between two fetches of the issuer's keys; then a few SVIDs by the new key.
      if (issuer.keys.length === 1 && performance.now() - startedAt > limits.jwksCooldownMs + 1_000) {
        issuer.rotate('ES256');
        const sofar = await renewals();
        await eventually(async () => (await renewals()) >= sofar + 2);
        isDone = true;
        return;
      }
    }
  };
  await Promise.all([
    ...Array.from({ length: 8 }, () => client('/fast')),
    ...Array.from({ length: 8 }, () => client('/slow')),
    rotations(),
  ]);
  t.comment(`${count} requests`);
  t.same(failures, []);
  t.ok((await renewals()) >= 4, 'SVIDs were renewed');
  t.ok(
    (await metric(proxy.admin, 'outrider_proxy_grant_refreshes_total', 'result="ok"')) +
      (await metric(proxy.admin, 'outrider_proxy_grant_cache_requests_total', 'result="miss"')) >=
      4,
    'grants were fetched anew',
  );
  await eventually(async () => (await metric(proxy.admin, 'outrider_proxy_events_queued')) === 0);
  const kinds = stack.events().map(({ kind }) => kind);
  t.equal(kinds.filter((kind) => kind === 'intent').length, count);
  t.equal(kinds.filter((kind) => kind === 'outcome').length, count);
});
