import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { environmentOf } from '../../src/core/program-environment.ts';
import { startProxy } from '../../src/proxy/run.ts';
import { parseSettings } from '../../src/settings/document.ts';
import type { ProxySettings } from '../../src/settings/proxy.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { prepareStack, proxyYaml, writeWhole } from '../support/stack.ts';
import { underTest } from './cells.ts';
import { matrix, withoutHelp } from './matrix.ts';
import { startOrigin } from './origin.ts';
import { createRepository } from './origin/git.ts';
import { hosts, type Place, policiesYaml, providersYaml, runIn, targetsYaml } from './place.ts';
import { postgresPort, startPostgres } from './postgres.ts';
import { clients } from './table.ts';

t.setTimeout(300_000);

const stack = await prepareStack(t);
const { files } = stack;
const authority = createTestAuthority('Outrider test origin authority');
const originCaFile = join(files.dir, 'clients-ca.pem');
writeWhole(originCaFile, authority.pem);
const origin = await startOrigin({
  authority,
  listen: { host: '127.0.0.1', httpPort: 0, httpsPort: 0 },
  git: createRepository(files.dir),
});
t.teardown(origin.close);
const database = await freePort();
const hasPostgres = await startPostgres(t, { host: '127.0.0.1', port: database, authority });

const broker = await stack.startBroker({ providers: providersYaml(files.dir), targets: targetsYaml(originCaFile), policies: policiesYaml });
const collector = await stack.startCollector(broker.grpc.port);
const trustStore = join(files.dir, 'trust-store.p12');
const dialled: readonly (readonly [string, number, number])[] = [
  [hosts.api, 443, origin.httpsPort],
  [hosts.api, 80, origin.httpPort],
  [hosts.h2, 443, origin.httpsPort],
  [hosts.s3, 443, origin.httpsPort],
  [hosts.s3, 80, origin.httpPort],
  [hosts.grpc, 443, origin.httpsPort],
  [hosts.grpc, 80, origin.httpPort],
  [hosts.db, postgresPort, database],
];
const yaml = proxyYaml(files, broker.grpc.port, collector.grpc.port, stack.origin)
  .replace('interception: {', `interception: { trustStoreFile: ${trustStore},`)
  .concat(dialled.map(([host, port, to]) => `    - { host: ${host}, port: ${port}, address: "127.0.0.1:${to}" }\n`).join(''));
const proxy = await startProxy(parseSettings(yaml, 'proxy.yaml') as ProxySettings, { log: stack.log('proxy') });
t.teardown(proxy.close);
await Promise.all([collector.ready(), proxy.ready()]);

const told = environmentOf({ host: '127.0.0.1', port: proxy.listen.port, bundleFile: files.bundle, trustStoreFile: trustStore });
const directory = join(files.dir, 'clients');
mkdirSync(directory);
const proxyVariables = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY', 'no_proxy', 'NO_PROXY'];
const place: Place = {
  mode: 'explicit',
  origin,
  directory,
  originCaFile,
  bundleFile: files.bundle,
  environment: (variables) => ({
    PATH: process.env['PATH'],
    HOME: directory,
    ...Object.fromEntries([...proxyVariables, ...variables].map((name) => [name, told[name] ?? ''])),
  }),
  within: (command) => command,
};

t.test('the table names every client that is tested, and only variables that "outrider run" sets', async (t) => {
  t.strictSame(
    clients.map(({ name }) => name),
    Object.keys(underTest),
  );
  for (const { name, variables } of clients) for (const variable of variables) t.ok(told[variable], `${name}: ${variable}`);
});

matrix(t, place, { psql: hasPostgres });
withoutHelp(t, place);

t.test('a program learns why it was refused', async (t) => {
  const command = ['curl', '--silent', '--write-out', '%{http_code}', `https://${hosts.api}/admin/x`];
  const { stdout } = await runIn(place, ['CURL_CA_BUNDLE'], command);
  t.match(stdout, /"code":"policy_denied"[^]*"rule":"no-admin"[^]*403$/);
  t.same(origin.taken(), []);
});
