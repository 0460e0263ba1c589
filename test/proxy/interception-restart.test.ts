import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { exchange, secure, tunnelTo, wholeResponse } from '../support/path.ts';
import { type RoleProcess, startRole } from '../support/processes.ts';
import { host, prepareStack, proxyYaml } from '../support/stack.ts';

t.test(
  'a program that read the bundle once is served by the proxy that was started after a crash, and by the one after that',
  async (t) => {
    const stack = await prepareStack(t, (_, response) => response.end('hello'));
    const broker = await stack.startBroker();
    const collector = await stack.startCollector(broker.grpc.port);
    await collector.ready();

    const memory = mkdtempSync('/dev/shm/outrider-test-');
    t.teardown(() => rmSync(memory, { recursive: true }));
    const stateFile = join(memory, 'authority.pem');
    const { bundle, dir } = stack.files;
    const yaml = proxyYaml(stack.files, broker.grpc.port, collector.grpc.port, stack.origin).replace(
      `bundleFile: ${bundle}`,
      `bundleFile: ${bundle}, stateFile: ${stateFile}, trustStoreFile: ${join(dir, 'trust-store.p12')}`,
    );
    const start = async (): Promise<RoleProcess> => {
      const proxy = await startRole(t, 'proxy', dir, yaml);
      await proxy.ready;
      return proxy;
    };

    let proxy = await start();
    const read = readFileSync(bundle, 'utf8');
    for (const end of ['SIGKILL', 'SIGTERM', undefined] as const) {
      const { socket } = await tunnelTo(proxy.ports['proxy'] as number, `${host}:443`);
      const secured = await secure(socket, read, host);
      const answer = await exchange(secured, `GET / HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse);
      t.match(answer, /^HTTP\/1\.1 200 [^]*hello/);
      secured.destroy();
      t.equal(readFileSync(bundle, 'utf8'), read, 'the bundle is what it was');
      if (end === undefined) break;
      const exited = once(proxy.child, 'exit');
      proxy.child.kill(end);
      await exited;
      proxy = await start();
    }
    t.notMatch(proxy.output(), /not used|could not be|on a disk/);
    t.equal(stack.origin.requests.length, 3);
  },
);
