import { readFileSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { dial, exchange, wholeResponse } from '../support/path.ts';
import { startRole } from '../support/processes.ts';
import { brokerYaml, collectorYaml, eventually, host, metric, prepareStack, proxyYaml } from '../support/stack.ts';

const ask = async (port: number, path: string): Promise<string> => {
  const socket = await dial(port);
  const answer = await exchange(socket, `GET http://${host}${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
  socket.destroy();
  return answer;
};

t.test('the roles as separate processes: started in any order, reloaded, drained', { timeout: 60_000 }, async (t) => {
  const stack = await prepareStack(t, (request, response) => {
    setTimeout(() => response.end('ok'), request.url === '/slow' ? 500 : 0);
  });
  const { files } = stack;
  const broker = await startRole(t, 'broker', files.dir, brokerYaml(files, stack.issuer.url));
  const grpc = broker.ports['gRPC'] as number;
  const collector = await startRole(t, 'collector', files.dir, collectorYaml(files, grpc));
  const proxy = await startRole(t, 'proxy', files.dir, proxyYaml(files, grpc, collector.ports['gRPC'] as number, stack.origin));
  const port = proxy.ports['proxy'] as number;
  await Promise.all([collector.ready, proxy.ready]);
  for (const { ports } of [broker, collector, proxy]) {
    for (const path of ['livez', 'readyz', 'metrics']) t.equal((await fetch(`http://127.0.0.1:${ports['admin']}/${path}`)).status, 200);
  }
  t.match(await ask(port, '/hello'), /^HTTP\/1\.1 200/);

  // The operator edits the broker's file: a bad one changes nothing, a good one takes effect without a restart.
  const brokerAdmin = { port: broker.ports['admin'] as number };
  writeFileSync(`${files.dir}/broker.yaml`, `${brokerYaml(files, stack.issuer.url)}unknown: 1\n`);
  await eventually(async () => (await metric(brokerAdmin, 'outrider_broker_configuration_reloads_total', 'rejected')) === 1);
  t.match(broker.output(), /unknown/, 'the log says what is wrong');
  t.match(await ask(port, '/hello'), /^HTTP\/1\.1 200/);
  const readOnly =
    '  - name: demo\n    rules:\n      - { name: read-docs, effect: allow, workloads: [demo-app], targets: [echo], methods: [GET], paths: ["/docs/**"] }';
  writeFileSync(`${files.dir}/broker.yaml`, brokerYaml(files, stack.issuer.url, { policies: readOnly }));
  await eventually(async () => (await ask(port, '/hello')).startsWith('HTTP/1.1 403'));
  t.match(await ask(port, '/docs/a'), /^HTTP\/1\.1 200/);
  t.ok((await metric(brokerAdmin, 'outrider_broker_configuration_reloads_total', 'ok')) >= 1);
  writeFileSync(`${files.dir}/broker.yaml`, brokerYaml(files, stack.issuer.url));
  await eventually(async () => (await ask(port, '/hello')).startsWith('HTTP/1.1 200'));

  // A request in flight finishes, the events are stored, and each process ends with 0.
  const slow = ask(port, '/slow');
  await eventually(() => stack.origin.requests.some(({ url }) => url === '/slow'));
  const [answer, code] = await Promise.all([slow, proxy.stop()]);
  t.match(answer, /^HTTP\/1\.1 200/);
  t.equal(code, 0);
  const lines = readFileSync(files.events, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  t.match(lines.at(-1), { kind: 'outcome', path: '/slow', outcome: { status: 200 } });
  t.notMatch(lines.at(-1), { outcome: { fault: String } }, 'it ended well');
  t.equal(lines.filter(({ kind }) => kind === 'intent').length, stack.origin.requests.length);
  t.equal(await collector.stop(), 0);
  t.equal(await broker.stop(), 0);
  for (const { output } of [broker, collector, proxy]) t.notMatch(output(), /eyJ[\w-]+\.eyJ|PRIVATE KEY/);
});
