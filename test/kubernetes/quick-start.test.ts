import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { fromBundle } from '../support/processes.ts';
import { type Cluster, clustersArePossible, startCluster } from './cluster.ts';
import { httpGet } from './installation.ts';
import { binary } from './prepare.ts';

t.setTimeout(300_000);

const root = join(import.meta.dirname, '../..');

/** The commands between the README's markers, in their order. */
const commands = (): string => {
  const [, part = ''] = /<!-- quick-start -->([^]*?)<!-- \/quick-start -->/.exec(readFileSync(join(root, 'README.md'), 'utf8')) ?? [];
  return [...part.matchAll(/```sh\n([^]*?)```/g)].map(([, block]) => block as string).join('\n');
};

/**
 * The reader's tools: Helm and kubectl as they are, but that `kubectl exec` runs here what it would have run in the container, which no kubelet
 * here does.
 */
const toolsFor = async (t: Test, cluster: Cluster): Promise<string> => {
  const directory = join(cluster.directory, 'tools');
  mkdirSync(directory);
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
    request.on('end', () => {
      const [flag, namespace = '', pod = '', dashes, node, main, ...args] = text.trim().split(' ');
      if (flag !== '--namespace' || dashes !== '--' || !node?.endsWith('/node') || main !== '/outrider/main.js')
        return response.writeHead(400).end(text);
      const claim = cluster.node.claim(namespace, `events-${pod}`);
      const here = args.map((arg) => arg.replace('/var/lib/outrider/events', claim));
      const [bundle = '', ...flags] = fromBundle(join(cluster.directory, 'bundle')).toReversed();
      execFile(process.execPath, [...flags.toReversed(), bundle, ...here], (error, out, err) =>
        response.writeHead(error === null ? 200 : 500).end(error === null ? out : err),
      );
    });
  });
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  t.teardown(() => server.close());
  const { port } = server.address() as { port: number };
  const tool = (name: string, script: string): void => {
    writeFileSync(join(directory, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(directory, name), 0o755);
  };
  tool('helm', `exec ${binary('helm')} "$@"`);
  tool(
    'kubectl',
    `if [ "$1" = exec ]; then shift; exec curl --silent --show-error --fail-with-body --data-raw "$*" http://127.0.0.1:${port}; fi\nexec ${binary('kubectl')} "$@"`,
  );
  return directory;
};

t.test('the quick start of the README does what it says, word by word', async (t) => {
  if (!clustersArePossible(t)) return;
  const cluster = await startCluster(t);
  const tools = await toolsFor(t, cluster);
  const env = {
    PATH: `${tools}:${process.env['PATH']}`,
    HOME: join(cluster.directory, 'home'),
    KUBECONFIG: cluster.controlPlane.kubeconfig,
  };
  const { out, err, status } = await new Promise<{ out: string; err: string; status: unknown }>((resolve) => {
    execFile('/bin/sh', ['-euxc', commands()], { cwd: root, env, timeout: 240_000, maxBuffer: 2 ** 24 }, (error, out, err) =>
      resolve({ out, err, status: error?.code ?? 0 }),
    );
  });
  t.equal(status, 0, err);
  const expected = {
    'the self-test proves it': /^proven: spiffe:\/\/\S+ was allowed by rule/m,
    'the service received a credential': /"authorization": "Bearer ey/,
    'the collector has the intent': /"kind":"intent".*"target":"echo"/,
    'and the outcome': /"kind":"outcome".*"target":"echo".*"status":200/,
    'and counts it': /^outrider_collector_events_stored_total\{kind="outcome"\} [1-9]/m,
  };
  // Not t.match: what went wrong is in a few of its thousand lines.
  for (const [what, pattern] of Object.entries(expected))
    t.ok(pattern.test(out), what, { pattern: String(pattern), end: out.slice(-2_000) });

  const pods = await cluster.api.list('/api/v1/namespaces/outrider-sample/pods?labelSelector=app%3Dclient');
  const [client] = pods;
  t.notMatch(JSON.stringify(client?.['spec'].containers), /Bearer|token/i, 'the program holds no credential');
  t.match(
    await httpGet(client?.['status'].podIP as string, 15_007, '/metrics'),
    /outrider_proxy_requests_total\{target="echo",decision="allow",code_class="2xx"\} [1-9]/,
  );
});
