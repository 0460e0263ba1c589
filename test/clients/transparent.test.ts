import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { environmentOf, trustVariables } from '../../src/core/program-environment.ts';
import { createTestAuthority } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { podsArePossible, relay, startTransparentStack } from '../support/namespace.ts';
import { writeWhole } from '../support/stack.ts';
import { matrix, withoutTrust } from './matrix.ts';
import { startOrigin } from './origin.ts';
import { createRepository } from './origin/git.ts';
import { hosts, type Place, policiesYaml, providersYaml, targetsYaml } from './place.ts';
import { postgresPort, startPostgres } from './postgres.ts';

t.setTimeout(300_000);

if (podsArePossible(t)) {
  // The stack takes the test's fixture directory.
  const own = mkdtempSync(join(tmpdir(), 'outrider-clients-'));
  t.teardown(() => rmSync(own, { recursive: true, force: true }));
  const authority = createTestAuthority('Outrider test origin authority');
  const originCaFile = join(own, 'clients-ca.pem');
  writeWhole(originCaFile, authority.pem);
  const origin = await startOrigin({
    authority,
    listen: { host: '127.0.0.1', httpPort: 0, httpsPort: 0 },
    git: createRepository(own),
  });
  t.teardown(origin.close);
  const database = await freePort();
  const hasPostgres = await startPostgres(t, { host: '127.0.0.1', port: database, authority });

  const { pod, bundle, podDir } = await startTransparentStack(t, {
    providers: providersYaml(own),
    targets: targetsYaml(originCaFile),
    policies: policiesYaml,
  });
  for (const address of [pod.elsewhere.ipv4, pod.elsewhere.ipv6]) {
    await relay(t, address, 443, origin.httpsPort);
    await relay(t, address, 80, origin.httpPort);
    await relay(t, address, postgresPort, database);
  }
  pod.nameHosts(Object.fromEntries(Object.values(hosts).map((host) => [host, [pod.elsewhere.ipv4, pod.elsewhere.ipv6]])));

  // Nothing tells a program of a proxy; it is told whom to trust.
  const trustStoreFile = join(podDir, 'public/trust-store.p12');
  const told = environmentOf({ host: '127.0.0.1', port: 1, bundleFile: bundle, trustStoreFile });
  const trust: Readonly<Record<string, string | undefined>> = {
    ...Object.fromEntries(trustVariables.map(({ name }) => [name, told[name]])),
    JAVA_TOOL_OPTIONS: told['JAVA_TOOL_OPTIONS']
      ?.split(' ')
      .filter((option) => option.startsWith('-Djavax.net.ssl.'))
      .join(' '),
  };
  const directory = join(own, 'clients');
  mkdirSync(directory);
  const place: Place = {
    mode: 'transparent',
    origin,
    directory,
    originCaFile,
    bundleFile: bundle,
    environment: (variables) => ({
      PATH: process.env['PATH'],
      HOME: directory,
      ...Object.fromEntries(variables.filter((name) => name in trust).map((name) => [name, trust[name]])),
    }),
    within: (command) => ['ip', 'netns', 'exec', pod.name, ...command],
  };
  matrix(t, place, { psql: hasPostgres });
  // Where nothing else tells a program of the proxy, trust is all that can be missing.
  withoutTrust(t, place);
}
