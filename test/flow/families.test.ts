import { networkInterfaces } from 'node:os';
import t from 'tap';
import { dial, exchange, wholeResponse } from '../support/path.ts';
import { startRole } from '../support/processes.ts';
import { brokerYaml, collectorYaml, host, prepareStack, proxyYaml } from '../support/stack.ts';

/** Pods with IPv6 addresses alone, or beside IPv4: the chart's `cluster.ipFamily: IPv6`. */
const hasIPv6 = Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === '::1'));

const skip = hasIPv6 ? false : 'this machine has no IPv6';
t.test('roles that listen on [::] are reached by IPv6 and by IPv4, and reach each other by either', { skip }, async (t) => {
  const stack = await prepareStack(t, (_request, response) => response.end('ok'));
  const { files, issuer, origin } = stack;
  const anywhere = (yaml: string): string => yaml.replaceAll(/(listen|admin): 127\.0\.0\.1:0$/gm, '$1: "[::]:0"');
  const byIPv6 = (yaml: string): string => yaml.replaceAll('address: "127.0.0.1:', 'address: "[::1]:');
  const broker = await startRole(t, 'broker', files.dir, anywhere(brokerYaml(files, issuer.url)));
  const grpc = broker.ports['gRPC'] as number;
  const collector = await startRole(t, 'collector', files.dir, anywhere(byIPv6(collectorYaml(files, grpc))));
  // Of the proxy only what others ask for its health: programs come by loopback.
  const yaml = proxyYaml(files, grpc, collector.ports['gRPC'] as number, origin).replace('admin: 127.0.0.1:0', 'admin: "[::]:0"');
  const proxy = await startRole(t, 'proxy', files.dir, yaml);
  await Promise.all([collector.ready, proxy.ready]);
  for (const { ports } of [broker, collector, proxy])
    for (const address of ['127.0.0.1', '[::1]'])
      t.equal((await fetch(`http://${address}:${ports['admin']}/readyz`)).status, 200, `${address}:${ports['admin']}`);
  const socket = await dial(proxy.ports['proxy'] as number);
  t.match(await exchange(socket, `GET http://${host}/ HTTP/1.1\r\nHost: ${host}\r\n\r\n`, wholeResponse), /^HTTP\/1\.1 200/);
  socket.destroy();
  for (const role of [proxy, collector, broker]) t.equal(await role.stop(), 0);
});
